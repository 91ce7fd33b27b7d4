"""A site's files until they are arrays, and a study until it has been drafted.

cdisc      writes the tables of the CDISC pilot trial
pin        which bytes a site trains on: DVC's digests, and what differs from them
remote     the DVC remote in the object store
reading/   from CSV files to inputs and labels
checks/    what tables must look like before a model may see them
drafting/  a study drafted from a folder of tables
"""
