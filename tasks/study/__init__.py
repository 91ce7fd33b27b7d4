"""What is asked: a study is one YAML file, read once, and refused with line, key and remedy.

sections     the sections of a study and what they may be combined with
channels     how updates travel, in which phases
privacy      the `privacy` section: which mechanism, and its budget
reading      the `data.reading` section: what cells mean
round_terms  deadlines and quorum of a round, as they follow from its study alone
file         reading study files
"""
