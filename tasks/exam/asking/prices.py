"""What a reply costs, where the price is known: exams/prices.yaml."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import ConfigError
from tasks.foreign.yaml_file import read_yaml
from tasks.store.records.record import Record
from tasks.store.settings import project_dir

#: What a dated model's name ends with.
_DATE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")


class Price(Record):
    """US dollars per million tokens. `dates` are the dated models of this name that cost the same."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    dates: tuple[str, ...] = ()


class Prices(Record):
    """The file: prices by `<provider>/<model>`, and providers that charge nothing."""

    as_of: str
    source: str
    free: tuple[str, ...]
    models: dict[str, Price]


def cost(model: str, answered_by: str, input_tokens: int, output_tokens: int) -> float | None:
    """US dollars of one reply, or None where the price is not known.

    `model` is as inspect names it; `answered_by` is what the reply names, which may carry a date.

    Raises:
        ConfigError: the price list does not hold what it should.
    """
    prices = _prices(project_dir() / "exams" / "prices.yaml")
    provider = model.split("/")[0]
    if provider in prices.free:
        return 0.0
    price = prices.models.get(f"{provider}/{answered_by}") or _dated(prices, f"{provider}/{answered_by}")
    if price is None:
        return None
    return (price.input * input_tokens + price.output * output_tokens) / 1e6


def _dated(prices: Prices, name: str) -> Price | None:
    """The price of the undated model where the file says that this date costs the same: not every one does."""
    date = _DATE.search(name)
    price = prices.models.get(name[: date.start()]) if date else None
    return price if date and price and date[1] in price.dates else None


@cache
def _prices(path: Path) -> Prices:
    try:
        return Prices.model_validate(read_yaml(path).content)
    except FileNotFoundError:
        raise ConfigError(f"no price list at {path}: restore it, or set PHARMAFED_PROJECT") from None
    except ValidationError as error:
        raise ConfigError(f"{path} is not a price list: {error}") from None
