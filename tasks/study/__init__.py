"""What is asked: a study is one YAML file, read once, and refused with line, key and remedy.

sections     the sections of a study
label        which endpoint is learned, from which rows
names        how things are called
channels     how updates travel, in which phases
strategy     the `strategy` section: how updates become the next model
codec        the `codec` section: how what is released becomes bytes
privacy      the `privacy` section: which mechanism, and its budget
fits         what goes with what, asked once when a study is read
reading      the `data.reading` section: what cells mean
round_terms  deadlines and quorum of a round, as they follow from its study alone
file         reading study files
"""
