"""Exit code 0 when one part works: `python docker/health.py scheduler`. Standard library only, so it costs little.

Of Airflow's parts the api-server is asked, which knows their heartbeats.
"""

from __future__ import annotations

import json
import sys
from urllib.request import ProxyHandler, build_opener

AIRFLOW = "http://api-server:8080/api/v2/monitor/health"
STORE = "http://127.0.0.1:8333/healthz"


def works(part: str) -> bool:
    """Whether `part` (a service of compose.yaml) does its work at this moment."""
    get = build_opener(ProxyHandler({})).open
    if part == "seaweedfs":
        return bool(get(STORE, timeout=5).status == 200)
    states = json.load(get(AIRFLOW, timeout=5))
    name = "metadatabase" if part == "api-server" else part.replace("-", "_")
    return bool(states[name]["status"] == "healthy")


if __name__ == "__main__":
    try:
        healthy = works(sys.argv[1] if len(sys.argv) > 1 else "api-server")
    except (OSError, LookupError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.exit(0 if healthy else "not healthy")
