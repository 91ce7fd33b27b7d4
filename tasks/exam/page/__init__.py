"""What people see of an examination.

report    the page of a run and that of a model's history
items     every item with the model's own words
tables    tables and figures as text
plots     the charts
files     the reports, written beside their runs
store     where reports lie, and which run made them
publish   their copies in the object store
terminal  what the terminal shows
"""
