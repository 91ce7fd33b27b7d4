"""The report of a round: one page for clinicians, privacy officers and operators, its plots, and its numbers.

words    numbers, times and privacy in plain words
plots    the charts, each as PNG and as SVG that follows the page's colours
view     a closed round as the page shows it
pages    HTML from templates; no matplotlib
build    build_report: everything of one round, as files by name
store    where reports lie, and which round a run closed
"""
