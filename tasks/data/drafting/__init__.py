"""Drafts a study from a folder of CSV tables per site: the study file and a suite per table, to be edited."""
