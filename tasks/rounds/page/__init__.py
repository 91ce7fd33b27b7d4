"""A round's report: one page for clinicians, privacy officers and operators, its plots, and its numbers.

build         everything of one round, as files by name
view          a closed round as the page shows it
privacy_view  who is protected from whom, and what was spent
plots         the charts
index         the lists of rounds
store         where reports lie, and which round a run closed
"""
