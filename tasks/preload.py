"""Imported once in the process that forks the tasks, so that no task pays for these imports again.

No torch operation runs here: a forked child must start its own threads.
"""

from __future__ import annotations

import gc

import tasks.hub.aggregate
import tasks.hub.close
import tasks.hub.open
import tasks.report.build
import tasks.report.store
import tasks.site.steps
import tasks.validation.engine  # noqa: F401
from tasks.storage import warm_up

warm_up()
gc.collect()
gc.freeze()
