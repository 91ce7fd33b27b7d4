"""Language models that sit a licensing examination: asked once, scored from saved replies as often as wanted.

bank/       an examination as it is: items, keys, importers
runs/       replies on disk, sealed
asking/     a model is asked
reading/    from a reply to options
scoring/    from options to points, and what they mean
comparing/  two runs, and drift
page/       what people see
evaluate    all of it, for one model in one language
"""
