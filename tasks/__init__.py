"""The logic of pharmafed. Nothing in here imports Airflow; `dags/` wires these functions into a schedule."""

import os

__version__ = "0.1.0"

# MKL and torch pick their kernels by processor, and these round differently: the same study would give another model
# on the next machine. Both read this at their first use; whoever imports anything of ours has set it before, and
# a child inherits it. Wide dense layers take up to three times as long, convolutions half as long again,
# small models the same.
os.environ |= {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
