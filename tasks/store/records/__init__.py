"""The records that pass between hub and sites: all of them JSON in the object store, none with a patient's value."""
