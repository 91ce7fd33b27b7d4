"""Reading what others wrote, within limits: nothing here believes a file's size, depth, name or kind.

bounds     how large what comes from elsewhere may be: bounded types for records
files      ordinary files only, never more than a limit, never waiting
inside     files in a folder that others may also write to; no link is followed
yaml_file  YAML that a person wrote; a mistake is told by its line
json_file  JSON that a person wrote, likewise
spelling   what somebody may have meant by a name that there is not
"""
