"""Which kernels MKL and torch compute with: those that every x86-64 processor has.

Left alone they pick by processor, and kernels round differently: the same study would give another model on the next
machine. Both read this at their first use, so it is set when this module is imported, as `store.weights` does, which
every model passes. Wide dense layers take up to three times as long, convolutions and the bundled language
model half as long again, small models the same.
"""

import os

COMMON = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}

os.environ |= COMMON
