"""Throws malformed input at everything that parses what another party sent: `python -m fuzz`, or `make fuzz`.

mutations  how a valid input is spoilt: JSON, safetensors bodies, certificates
world      a hub, three sites and one round of theirs in memory, with everything that a site sends in it
parsers    each parser with valid inputs; a parser gives a value or a refusal, and anything else is a finding
run        the loop: seeded, so the same inputs again

Written here because what parses is mostly compiled (pydantic, safetensors, OpenSSL), where the coverage that guides a
fuzzer of Python code sees nothing: atheris 3.1 has no wheel for Python 3.11, and hypothesis draws a thousand inputs a
second where this draws ten thousand.
"""
