"""Drafts a study from a folder of CSV tables per site: the study file and a suite per table, to be edited.

draft          the whole way from a folder to a draft
folder         which tables a folder has
subjects       which column names the patients
cell_kinds     what kinds of cells a column has
column_types   which type a column has
columns        everything about one column
names          what a column's name says of it
word_meanings  what words for yes, no and missing mean
sentinels      numbers that stand for missing
spellings      several spellings of one value
rounding       public constants from private values
measured       columns of one test among rows of several
label          the label
inputs         the inputs
suites         the suites
questions      what a person has to say first
told           what a person has said
settle         the draft is tried on the data and mended
content        the draft as a study
render         the draft as text, with remarks
place          writes it into a project
check          runs it once
"""
