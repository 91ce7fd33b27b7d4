"""The audit: attacks on what a study would really release, each proven on the raw update first.

observer        what an attack is given: what the adversary of the study's promise learns of one round
adversary       what he can compute himself: models, each patient's contribution, who takes part
patients        on whom the attacks run: real patients only where the data are public
promise         what the mechanism's guarantee allows any attack to reach
statistics      ROC, area under it with its standard error, exact binomial bounds
inversion       records from a gradient: exact algebra, and gradient matching
reconstruction  attack 1: are the records of a batch seen?
membership      attack 2: is it seen that a patient takes part?
canary          attack 3: a worst-case patient, in or out; an empirical lower bound on epsilon
verdict         the audit's records, and when it fails
run             run_audit: all of it
plots, report   the page
"""
