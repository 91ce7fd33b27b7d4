"""## One federated round a run

Every site checks its data, trains from the current global model, makes its update private and uploads it. The hub
averages what arrived before the deadline, every contributing site validates the new model, and the round is closed.

Where the study aggregates behind masks, the hub learns the sum and no single update: `freeze_roster` fixes who takes
part, each upload carries masks that only cancel in the sum, `select_updates` fixes whose sum it is, and the sites'
`unmask` tasks hand out what opens that sum and nothing else. A site that is lost after the roster is survived.

**Runs** nightly at 02:00 UTC, one round a night, or when triggered with the parameters below. A run that has more
rounds to do starts the next run itself, so each round is one column of the grid. A night that the hub missed is not
caught up on: a scheduled run that begins more than an hour late is skipped.

**Clearing.** A round that is closed is over: clearing its tasks changes nothing and starts nothing, and what is not in
its record stays red. Cleared whole, a run says that it has had its round. Trigger a new run for the next one.

**Reads** `studies/<study>.yaml`, and at each site its own CSV files. **Writes** to the object store under
`studies/<study>/`: plan, updates, model, card, metrics and report of the round.

| parameter | meaning |
|---|---|
| `rounds` | how many rounds to run, this one included |
| `min_sites` | quorum for these rounds instead of the study's; empty: the study's |
| `note` | free text, kept with the run |

Example: `{"rounds": 3, "note": "after the data freeze"}`

**Colours.** A site that is out of the round is red, with the reason in its log; `all_sites_in` is then amber, or red
where the hub has not taken what a site has sent, and the report says who is missing. The run is red only when the
quorum was missed, or the budget is spent.

**Does not** move patient data, values or raw updates off a site; does not go on when the privacy budget is spent;
does not wait for a dead site beyond the deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, TaskGroup, chain, get_current_context, get_parsing_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.wiring import (
    DEFAULTS,
    asked,
    at_site,
    in_round,
    nightly,
    opened_round,
    site_group,
    sites_to_wire,
    skip_if_late,
    studies,
    tell_of_failure,
    the_round,
    without_templates,
)
from tasks.study.channels import HubStep, Step
from tasks.study.sections import Study

if TYPE_CHECKING:
    from tasks.rounds.hub.context import HubContext
    from tasks.rounds.site.context import SiteContext


def _site_and_round(study: str, site: str) -> tuple[SiteContext, int]:
    """What a site's step works with: its context in this run, and the round's number."""
    from tasks.rounds.site.context import SiteContext

    return SiteContext.load(study, site, run_id=get_current_context()["run_id"]), the_round()


def _hub_and_round(study: str) -> tuple[HubContext, int]:
    """The same of a step at the hub."""
    from tasks.rounds.hub.context import HubContext

    return HubContext.load(study, get_current_context()["run_id"]), the_round()


@task(on_failure_callback=tell_of_failure, do_xcom_push=True)
def open_round(study: str) -> int:
    """Write the round's plan: base model, sites, privacy, deadline. Refuses when the budget is spent."""
    from tasks.rounds.hub.context import HubContext
    from tasks.rounds.hub.open import open_round

    params, run_id = asked(), get_current_context()["run_id"]
    skip_if_late(tell=True)
    plan = open_round(HubContext.load(study, run_id), run_id, min_sites=params["min_sites"])
    print(f"round {plan.server_round} of {plan.total_rounds}: {len(plan.sites)} sites, until {plan.deadline:%H:%M} UTC")
    return plan.server_round


@task
def validate_data(study: str, site: str) -> None:
    """Check the site's files against their pin, then against the expectation suites. Failures name expectations."""
    from tasks.rounds.site import steps

    steps.validate_data(*_site_and_round(study, site))


@task
def train_local(study: str, site: str) -> None:
    """Train from the round's base model. The raw update stays in the site's own folder."""
    from tasks.rounds.site import steps

    steps.train(*_site_and_round(study, site))


@task
def privatize_and_upload(study: str, site: str) -> None:
    """Make the update private, write the spend into the ledger, then upload. Whatever fails, nothing leaves."""
    from tasks.rounds.site import steps

    steps.privatize_and_upload(*_site_and_round(study, site))


@task(trigger_rule="one_success")
def freeze_roster(study: str) -> None:
    """Masked rounds: wait for the sites' keys, then fix who takes part before anybody masks anything."""
    from tasks.rounds.hub.phases import freeze_roster

    roster = freeze_roster(*_hub_and_round(study))
    print(f"{len(roster.members)} sites on the roster; missing: {roster.missing or 'none'}")


@task(trigger_rule="one_success")
def select_updates(study: str) -> None:
    """Hidden updates: wait for them, then fix whose sum is opened before any site helps to open it."""
    from tasks.rounds.hub.phases import select_updates

    selection = select_updates(*_hub_and_round(study))
    print(f"{len(selection.chosen)} updates; missing: {selection.missing or 'none'}")


@task
def unmask(study: str, site: str) -> None:
    """Hidden updates: help to open their sum, by shares of its masks or by decrypting it; never a single update."""
    from tasks.rounds.site import steps

    steps.unmask(*_site_and_round(study, site))


@task(trigger_rule="one_success")
def aggregate(study: str) -> None:
    """Average the updates that pass every check, or open the sum of hidden ones, and write the model."""
    from tasks.rounds.hub.aggregate import aggregate

    selection = aggregate(*_hub_and_round(study))
    print(f"{len(selection.chosen)} updates averaged; missing: {selection.missing or 'none'}")


@task
def all_sites_in(study: str) -> None:
    """Green: every site is in the model. Amber: one has sent nothing. Red: the hub has not taken what one has sent."""
    from tasks.rounds.hub.selection import require_all_in

    require_all_in(*_hub_and_round(study))


@task
def validate_global(study: str, site: str) -> None:
    """Validate the new model on the site's held-out patients. Cells under the study's minimum are suppressed."""
    from tasks.rounds.site import steps

    steps.validate_global(*_site_and_round(study, site))


@task(trigger_rule="all_done", on_failure_callback=tell_of_failure)
def close_round(study: str) -> None:
    """Move the pointer to the new model, write the round's record, publish the report, notify."""
    from tasks.deploy.finish import finish_round

    skip_if_late()
    print(finish_round(study, opened_round(), get_current_context()["run_id"]))


#: The tasks of a round whose places follow from the channel's phases, by name.
AT_SITE: dict[Step, Any] = {
    "validate_data": validate_data,
    "train_local": train_local,
    "privatize_and_upload": privatize_and_upload,
    "unmask": unmask,
}
AT_HUB: dict[HubStep, Any] = {"freeze_roster": freeze_roster, "select_updates": select_updates}
#: Airflow keeps 250 characters.
_LONGEST_RUN_ID = 200


class NextRound(TriggerDagRunOperator):
    """Starts the next run of this DAG while there are rounds left to do; cleared, it starts none twice."""

    def execute(self, context):
        """Trigger with one round less; skip after the last."""
        params, conf = context["params"], context["dag_run"].conf or {}
        if params["rounds"] <= 1:
            raise AirflowSkipException("that was the last of the rounds asked for")
        run_id, left = context["run_id"], params["rounds"] - 1
        series = conf.get("series", run_id) if run_id.startswith("next__") else run_id  # a conf may be used again
        self.conf = {**params, "rounds": left, "series": series}
        self.trigger_run_id = f"next__{series}"[:_LONGEST_RUN_ID] + f"__{left}_to_go"
        super().execute(context)


def build_dag(study: Study) -> DAG:
    """The DAG of one study."""
    dag = DAG(
        dag_id=f"federated_round.{study.study}",
        dag_display_name=f"Federated round: {study.title}",
        description=study.title,
        doc_md=f"{__doc__}\n### {study.title}\n\n{study.description}",
        schedule=nightly("0 2 * * *"),
        catchup=False,
        max_active_runs=1,
        max_active_tasks=32,
        tags=["federated-learning", study.study, study.privacy.mechanism],
        default_args=DEFAULTS,
        params={
            "rounds": Param(1, type="integer", minimum=1, maximum=study.rounds.total, title="Rounds to run"),
            "min_sites": Param(
                None, type=["null", "integer"], minimum=1, maximum=len(study.sites), title="Quorum (empty: the study's)"
            ),
            "note": Param(None, type=["null", "string"], maxLength=500, title="Note"),
            "study": Param(study.study, type="string", enum=[study.study], title="Study"),
        },
    )
    with dag:
        _wire(study, sites_to_wire(study.sites, get_parsing_context().task_id))
    return without_templates(dag)


def _wire(study: Study, sites: list[str]) -> None:
    """The tasks, as the channel's phases order them: the hub ends each before any site begins the next."""
    name, channel, opened, model = study.study, study.channel, open_round(study.study), aggregate(study.study)
    before = {phase.hub: AT_HUB[phase.hub](name) for phase in channel.phases if phase.hub != "aggregate"}
    at_hub, all_in, closed = {**before, "aggregate": model}, all_sites_in(name), close_round(name)
    uploads = {}
    for site in sites:
        with TaskGroup(site_group(site), tooltip=f"What happens at site {site}; nothing but its update leaves"):
            own = {step: AT_SITE[step].override(**in_round(site))(name, site) for step in channel.site_steps}
            chain(opened, *own.values())
            for phase in channel.phases:
                own[phase.site[-1]] >> at_hub[phase.hub]
            for ended, begun in channel.turns:
                at_hub[ended] >> own[begun]
            uploads[site] = own["privatize_and_upload"]
            uploads[site] >> all_in
    with TaskGroup("validation", tooltip="The new model on each site's held-out patients"):
        for site in sites:
            validated = validate_global.override(task_id=site_group(site), **at_site(site))(name, site)
            [model, uploads[site]] >> validated >> closed
    model >> all_in >> closed
    closed >> NextRound(
        task_id="next_round",
        trigger_dag_id=f"federated_round.{name}",
        skip_when_already_exists=True,
        doc_md=NextRound.__doc__,
    )


for _name, _study in studies().items():
    if get_parsing_context().dag_id in (None, f"federated_round.{_name}"):
        globals()[f"federated_round_{_name}"] = build_dag(_study)
