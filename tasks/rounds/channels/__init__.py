"""How updates travel from the sites to the hub: one module for each channel of `tasks.study.channels`, of its name.

A new one is a module here with a `Site` and a `Hub`, its name and phases there, and the mechanisms that may go that
way: docs/architecture.md adds one.

channel  what every channel does at a site and at the hub, and how to get at it
plain    in the open
masks/   behind masks that cancel in the sum only
ckks     under a key that the sites share
"""
