"""Whether rounds can be made of a model that is not ours: asked before any patient is looked at.

policy   which modules may be imported here
check    one look at a model, on made-up patients
rows     those patients
tensors  whether its parameters can travel
memory   what it holds beside them
layers   which layer is at fault, for the sentence that refuses it
"""
