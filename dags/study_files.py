"""An import error in Airflow's web UI for every file in `studies/` that cannot be read: where, what, and what to do.

There is no DAG in here. A study whose file is broken has none until it is mended; the DAGs of all others stay.
"""

from __future__ import annotations

from tasks.errors import ConfigError
from tasks.store.settings import project_dir
from tasks.study.file import readable_studies

if _problems := readable_studies(project_dir() / "studies")[1]:
    raise ConfigError("\n".join(_problems.values()))
