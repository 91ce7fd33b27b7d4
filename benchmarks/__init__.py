"""Speed and memory of pharmafed, each figure beside something measured in the same run: `python -m benchmarks`.

    aggregation  averaging updates, beside reading the same bytes once and beside Flower
    privacy      sanitising ten million parameters, beside NVFlare's SVTPrivacy; masks beside CKKS; a ledger
    rounds       one warm federated round on a real Airflow, and where its time goes
    simulation   a simulated round beside Flower's and NVFlare's; up to 1,000 sites; an idle `dvc repro`
    exam         asking beside a bare asyncio loop; a kill half way; scoring and comparing 100 runs
    demo         `make demo` from an empty clone

Only ratios compare between machines; seconds are of this machine at this moment.
"""
