"""A model is asked. Only `engine` and `local_model` know the engine.

ask             begins a run, or goes on with one
questions       what the engine is handed
prompts         what a model is asked, word for word
engine          the engine's process
engine_process  that process as seen from outside
local_model     a real model that needs no key
model_address   where a model is
redaction       what a provider says, without keys
prices          what a reply costs
collect         from the engine's answers to responses
"""
