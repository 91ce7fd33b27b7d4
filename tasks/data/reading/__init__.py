"""From CSV files to inputs and labels: strictly, and never by a guess.

csv_file  a file into columns of text
cells     from the text in a cell to a value
tables    a site's tables
rows      which rows of a table a study means
features  from tables to model inputs
labels    from tables to the endpoint
patients  inputs and labels as arrays, split into training and held-out
"""
