"""A study without a scheduler: its rounds in one process, by the functions that the scheduled steps call.

rounds        all rounds of a study
data          every split of its patients
runs          settings times seeds, over the cores
workers       processes of one thread each
baselines     all patients in one place, and each site on its own
reference     the lines that a round is compared with, where data are public
summary       what several seeds say together
experiments/  the paper's experiments
"""
