"""The subcommands of `pharmafed`; `tasks.cli` mounts them and shows their errors.

data         prepare, pin, verify, check
study        init
simulate     a study's rounds without a scheduler
experiments  the paper's experiments
privacy      what the budget was spent on, and the audit
exam         build or import an exam, ask, score, compare, report
progress     a bar for work that takes a while
"""
