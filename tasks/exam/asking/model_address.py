"""Where the environment says that a model is: answers of two hosts are not one run."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from tasks.errors import ConfigError

#: Where the environment names no address.
OF_THE_PROVIDER = "the provider's own address"


def model_address(model: str) -> str:
    """Scheme, host and port of the address that inspect takes from the environment, or `OF_THE_PROVIDER`.

    Raises:
        ConfigError: the variable holds no address; the message has its name and not its value.
    """
    providers = [part.upper().replace("-", "_") for part in model.split("/")[:-1]]
    for name in (*(f"{one}_BASE_URL" for one in reversed(providers)), "INSPECT_EVAL_MODEL_BASE_URL"):
        if value := os.environ.get(name):
            found = host_of(value)
            if found is None:
                raise ConfigError(
                    f"{name} is not an address: write http(s)://HOST:PORT/PATH, "
                    "with / and @ of a password as %2F and %40"
                )
            return found
    return OF_THE_PROVIDER


def host_of(address: str) -> str | None:
    """Scheme, host and port, and never what else an address may hold, such as a user; None where it is no address."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if host is None or parts.scheme not in ("http", "https"):
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
