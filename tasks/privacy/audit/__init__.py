"""The audit: attacks on what a study would really release, each proven on the raw update first.

observer        what an attack is given: what the adversary of the promise learns of one round
observe         a study's observers, made of the functions that sites and hub run
adversary       what he can compute himself: models, each patient's contribution
patients        on whom the attacks run: real patients only where the data are public
promise         what the mechanism's guarantee allows any attack to reach
effort          how hard an audit tries
setting         what all attacks of one audit share
statistics      ROC, area under it with its standard error, exact binomial bounds
trials          scores of canaries, in and out, and what they say
inversion       records from a gradient, by exact algebra
matching        records from a gradient, by search
reconstruction  attack 1: are the records of a batch seen?
membership      attack 2: is it seen that a patient takes part?
canary          attack 3: a worst-case patient, in or out; an empirical lower bound on epsilon
findings        what each attack found
verdict         the audit's records, and when it fails
run             all of it
study_audit     the audit of a study as it is configured
plots           the charts
report          the page
"""
