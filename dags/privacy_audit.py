"""## Does every study keep its privacy promise?

Attacks what each study would upload, with the code that its sites run: reconstruction of records, membership of
patients, and worst-case canaries over all rounds. Each attack first has to work on the raw update.

**Runs** on Sundays at 04:00 UTC, and on trigger, for one study or for all. About two minutes a study, on one core.
**Reads** `studies/<study>.yaml`; real patients only where the study says its data are public, else synthetic ones.
**Writes** `studies/<study>/audits/<time>/` in the object store, and `reports/<study>/audits/` at the hub.

| parameter | meaning |
|---|---|
| `study` | which study to audit; `all`: each of them |
| `seed` | of splits, coins and starting points; the noise is fresh in every audit |

A study is red when an attack beats its bound twice by more than two standard errors, or when the attacks prove
nothing. A study without privacy is green: it promises nothing, and its report shows what the attacks get.

**Does not** spend budget, does not touch a round, and shows no patient's value of a study whose data are not public.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_parsing_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.wiring import DEFAULTS, asked, nightly, studies, tell_of_failure


@task(on_failure_callback=tell_of_failure, retries=1)
def audit(study: str) -> None:
    """Attack one study; red when its promise is broken."""
    from tasks.privacy.audit.study_audit import audit_study, publish_audit, require_promise
    from tasks.rounds.hub.context import HubContext
    from tasks.rounds.pooled import public_patients

    params = asked()
    if params["study"] not in ("all", study):
        raise AirflowSkipException(f"only {params['study']} was asked for")
    hub = HubContext.load(study)
    found = audit_study(
        hub.study,
        public_patients(hub.study),
        seed=params["seed"],
        progress=lambda what, share: print(f"{share:4.0%}  {what}"),
    )
    print(f"{found.words}\n{publish_audit(found, hub.store)}")
    require_promise(found)


with DAG(
    dag_id="privacy_audit",
    dag_display_name="Privacy audit",
    description="Attacks on what each study uploads, against what its ledger says",
    doc_md=__doc__,
    schedule=nightly("0 4 * * 0"),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,
    tags=["privacy"],
    default_args=DEFAULTS,
    params={
        "study": Param("all", type="string", enum=["all", *studies()], title="Study"),
        "seed": Param(0, type="integer", minimum=0, title="Seed of the attacks"),
    },
):
    _asked = (get_parsing_context().task_id or "").removeprefix("audit_")
    for _name in [_asked] if _asked in studies() else studies():
        audit.override(task_id=f"audit_{_name}")(_name)
