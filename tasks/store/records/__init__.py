"""The records that pass between hub and sites: all of them JSON in the object store, none with a patient's value.

record  what all records are
ledger  what was spent
model   global models, their cards, the pointer to the newest
round   plan, manifest, sums, selection, refusal
report  a site's figures and a closed round
site    enrolment and the daily check
"""
