"""## Is every site's data fit to train on?

Checks each site's files against their DVC pin and the expectation suites, without training anything, so that a site
data manager learns of a problem in the morning and not from a failed round.

**Runs** daily at 01:00 UTC, an hour before the rounds, and on trigger. **Reads** each site's own files.
**Writes** `federation/data_validation/<site>.json`: which expectation passed, failed or is waived, no values.

**Does not** change data, and does not show any: run the suite at the site to see the rows behind a failure.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_parsing_context, task

from dags.wiring import DEFAULTS, asked, at_site, nightly, site_group, sites_to_wire, studies, tell_of_failure


@task(on_failure_callback=tell_of_failure)
def validate_site(site: str, studies: list[str]) -> None:
    """Check one site's data for every study it takes part in; red when an expectation fails without a waiver."""
    from tasks.rounds.site.daily import validate_daily

    asked()
    validate_daily(site, studies)


with DAG(
    dag_id="site_data_validation",
    dag_display_name="Site data validation",
    description="Every site's data against its pin and the expectation suites",
    doc_md=__doc__,
    schedule=nightly("0 1 * * *"),
    catchup=False,
    max_active_runs=1,
    tags=["data-quality"],
    default_args=DEFAULTS,
    params={"note": Param("", type="string", maxLength=500, title="Note")},
):
    _studies = list(studies().values())
    _sites = sorted({site for study in _studies for site in study.sites})
    for _site in sites_to_wire(_sites, get_parsing_context().task_id):
        _names = [study.study for study in _studies if _site in study.sites]
        validate_site.override(task_id=site_group(_site), **at_site(_site))(_site, _names)
