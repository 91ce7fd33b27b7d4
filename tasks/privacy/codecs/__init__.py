"""An update as tensors: what a site sends, and what the hub accepts.

dense   every component
sparse  some components
update  whichever of them a plan asks for
"""
