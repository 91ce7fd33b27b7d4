"""What happens at a site in one round: validate its data, train, sanitise and upload, validate the global model.

steps          the steps, each one task
running        how a step runs, and how the hub hears of one that failed
context        what a step needs
guard          no patient value in errors, no work past the deadline
plans          which plans a site follows
global_models  which models it works with
validation     its data, checked
kept           what it goes on from
local_update   its part before anything protects it
personal       its own model beside the global one
accounted      whatever comes of it is paid for
witness        what it knows of the others' ledgers
round_files    what it keeps of a round
daily          the daily check of its data
"""
