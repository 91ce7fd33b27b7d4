"""Two runs, and whether a model has drifted.

archive             finished runs, their scores and comparisons
compare             two runs of one exam, item by item
comparison_records  what a comparison says
drift               a run against earlier ones
"""
