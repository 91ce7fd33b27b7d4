"""The logic of pharmafed. Nothing in here imports Airflow; `dags/` wires these functions into a schedule.

    errors       everything that pharmafed raises on purpose
    foreign/     reading what others wrote, within limits
    study/       what is asked: the sections of a study file and their rules
    store/       what lies where, in which bytes, signed by whom
    learning/    the mathematics of a round: models, training, averages, figures
    report/      how people are told: charts, pages, words, notices
    data/        a site's files until they are arrays
    exam/        language models that sit a licensing examination
    privacy/     from a raw update to what may leave a site, and back
    rounds/      one round through the store, at the sites and at the hub
    simulation/  the same rounds in one process, and the paper's experiments
    deploy/      what a person or a DAG starts
    models       the models that studies name by import path
    cli          the `pharmafed` command

docs/architecture.md has the way of one update through them, and where each new thing goes.
A room imports only rooms above it in this list, `errors` and `models`; `tests/test_rooms.py` holds them to it.
"""

__version__ = "0.1.0"
