"""An examination as it is: items, keys, and where they come from.

records             items, exams, responses and runs
items               an exam on disk, and the checks that hold for any
practice            our own exam
importer            a national examination
published           its published files, line by line
jsonl               lines of JSON, each with its place
national            what the law and a year say of it
numeric             labels of options
answer_keys         how many options an item asks for, and which sets are right
cases               items that share a patient
references          what a stem refers to and does not hold
import_pictures     which items have a picture
corrections         corrections of the published files
correction_effects  whether they change anything
faults              what is wrong with the files, all of it at once
import_report       what an import did
"""
