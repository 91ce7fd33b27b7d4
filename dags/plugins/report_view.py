"""The reports in Airflow's web UI: a "Report" tab on every DAG run, and "Reports" in the menu.

Airflow loads this file in every task process, so it imports next to nothing; the pages are in `report_pages.py`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/pharmafed"


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The pages' ASGI app, imported at the first request: only the api-server pays for it."""
    from report_pages import app

    await app(scope, receive, send)


def _href(path: str) -> str:
    """A path in the web server, below the path of `[api] base_url`."""
    return urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + PREFIX + path


#: A rising line in a frame, in a blue that shows on the menu's light, dark and selected backgrounds.
_ICON = "data:image/svg+xml," + quote(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='#6d8fc4' stroke-width='2' "
    "stroke-linecap='round' stroke-linejoin='round'><path d='M4 4v16h16M8 15l4-4 3 3 5-6'/></svg>"
)


class ReportPlugin(AirflowPlugin):
    """Mounts the pages and links them from the UI."""

    name = "pharmafed_reports"
    fastapi_apps: list[Any] = [{"app": pages, "url_prefix": PREFIX, "name": "pharmafed reports"}]  # noqa: RUF012
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Report",
            "href": _href("/runs/{DAG_ID}/{RUN_ID}"),
            "destination": "dag_run",
            "url_route": "round_report",
        },
        {
            "name": "Reports",
            "href": _href("/"),
            "destination": "nav",
            "url_route": "reports",
            "nav_top_level": True,
            "icon": _ICON,
        },
    ]
