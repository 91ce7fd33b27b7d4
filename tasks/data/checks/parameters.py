"""What a suite must be told about the study and the site: public constants only, nothing from patients."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.data.checks.suite import SuiteMeta
from tasks.errors import ConfigError
from tasks.study.sections import MAX_MISSING, Input, Study


class InputReference(BaseModel):
    """A model input's public constants: where its values should lie, in natural units.

    `values` lists the codes of a coded input; a measured one has none and is judged by centre and scale:
    transform(value) should be near transform(centre), in units of `scale`. `filled`: the least share of a site's
    patients who have a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    centre: float
    scale: float
    transform: Literal["identity", "log1p"] = "identity"
    values: tuple[float, ...] | None = None
    filled: float = 1 - MAX_MISSING

    @classmethod
    def from_input(cls, spec: Input, max_missing: float = MAX_MISSING) -> Self:
        """`max_missing`: the study's, where the input has none of its own."""
        missing = max_missing if spec.max_missing is None else spec.max_missing
        return cls(
            name=spec.name,
            centre=spec.centre,
            scale=spec.scale,
            transform=spec.transform,
            values=_codes(spec),
            filled=round(1 - missing, 9),
        )

    def bounds(self, scales: float) -> tuple[float, float]:
        """centre -+ `scales` scales, back in natural units."""
        if self.transform == "identity":
            return self.centre - scales * self.scale, self.centre + scales * self.scale
        middle, reach = np.log1p(self.centre), scales * self.scale
        return float(np.expm1(middle - reach)), float(np.expm1(middle + reach))

    def suite_values(self, meta: SuiteMeta) -> dict[str, Any]:
        """What `{"$PARAMETER": "input.*"}` stands for."""
        if meta.range_scales is None or meta.shift_scales is None:
            raise ConfigError("suite inputs: meta needs range_scales and shift_scales")
        lowest, highest = self.bounds(meta.range_scales)
        lowest_median, highest_median = self.bounds(meta.shift_scales)
        return {
            "input.name": self.name,
            "input.kinds": ("input", "measured_input" if self.values is None else "coded_input"),
            "input.values": self.values,
            "input.filled": self.filled,
            "input.lowest": lowest,
            "input.highest": highest,
            "input.lowest_median": lowest_median,
            "input.highest_median": highest_median,
        }


class SiteParameters(BaseModel):
    """One site in one study: which SITEIDs are its own, who its patients are, and which inputs the study builds.

    `subject_table` lists each patient once, in its column `subject`. `min_cell`: fewer patients are few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    site_ids: tuple[str, ...]
    subject_table: str
    subject: str
    inputs: tuple[InputReference, ...]
    min_cell: int = 1


def site_parameters(study: Study, site: str) -> SiteParameters:
    """What the suites need to know of `site` in `study`.

    Raises:
        ConfigError: the study has no such site.
    """
    if site not in study.sites:
        raise ConfigError(f"study {study.study} has no site {site}; it has: {', '.join(study.sites)}")
    return SiteParameters(
        site=site,
        site_ids=study.sites[site],
        subject_table=study.data.tables[0],
        subject=study.data.subject,
        inputs=input_references(study),
        min_cell=study.evaluation.min_cell,
    )


def input_references(study: Study) -> tuple[InputReference, ...]:
    return tuple(InputReference.from_input(spec, study.data.max_missing) for spec in study.inputs)


def _codes(spec: Input) -> tuple[float, ...] | None:
    if spec.reduce in ("any", "missing"):
        return (0.0, 1.0)
    if spec.codes is None:
        return None
    other = set() if spec.other is None else {spec.other}
    return tuple(sorted(set(spec.codes.values()) | other))
