"""What lies where, in which bytes, signed by whom; and what this machine is told of it.

layout         every key of the object store, and who may write it
keys           the form of every key, by which keys are spelled and read
objects        the object store's client: create-once writes, compare-and-swap
version        which layout a bucket has
records/       what passes between hub and sites, as JSON
record_size    how many bytes a record can have
weights        weights as safetensors bytes, in one canonical form
plans          the plan of a round that no hub opens
identity       certificates, keys and enrolment
hub_signature  the hub's signature on plans, ends of rounds and cards
settings       where this deployment lives, and with which credentials
files          private files, written whole or not at all
disk           room on disk
clock          the time, in one place
kernels        which kernels torch computes with, the same on every machine
"""
