"""Imported once in the process that forks the tasks, so that no task pays for these imports again.

No torch operation runs here: a forked child must start its own threads.
"""

from __future__ import annotations

import gc
import importlib
from contextlib import suppress

from tqdm import tqdm

from tasks.data.checks.parameters import site_parameters
from tasks.data.checks.suites import all_columns, load_suite, suite_names
from tasks.errors import ConfigError
from tasks.privacy.secure_sum import records as of_masks
from tasks.store import settings
from tasks.store.objects import connect_identities, warm_up
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.records.round import Manifest, Plan, Refusal, Selection
from tasks.store.records.site import Enrolment
from tasks.study.channels import CHANNELS
from tasks.study.file import load_study, readable_studies

HEAVY = (
    *(f"tasks.rounds.channels.{name}" for name in CHANNELS),
    "tasks.rounds.hub.aggregate",
    "tasks.deploy.finish",
    "tasks.rounds.hub.open",
    "tasks.rounds.site.daily",
    "tasks.rounds.site.steps",
    "tasks.data.checks.engine",
    "opendp.domains",
    "opendp.measurements",
    "torch._dynamo",  # torch.func imports it at its first call
    "pyarrow.pandas_compat",
    "PIL.PngImagePlugin",
)
#: What the steps of a round read from the store; how large each may be is worked out here.
READ = (
    Plan,
    ModelCard,
    Selection,
    RoundMetrics,
    Enrolment,
    Manifest,
    LedgerEntry,
    Refusal,
    SiteMetrics,
    of_masks.SealingKey,
    of_masks.Roster,
    of_masks.KeyMessage,
    of_masks.Survivors,
    of_masks.UnmaskAnswer,
)


def preload() -> None:
    """Import everything heavy, warm botocore, and keep the garbage collector from copying it all into each fork."""
    for module in HEAVY:
        importlib.import_module(module)
    for record in READ:
        max_bytes(record)
    warm_up()
    connect_identities()
    tqdm.monitor_interval = 0  # Great Expectations draws progress bars, whose monitor is a thread: no fork has it
    project = settings.project_dir()
    for name, study in readable_studies(project / "studies")[0].items():
        with suppress(ConfigError):  # its own steps tell what is wrong with it
            load_study(project / "studies" / f"{name}.yaml", columns=all_columns(project / study.data.suites))
            site_parameters(study, next(iter(study.sites)))
            for table in suite_names(project / study.data.suites):  # held to their library once, and not in every task
                load_suite(project / study.data.suites, table)
    gc.collect()
    gc.freeze()


preload()
