"""What goes with what in a study: asked once, when its file is read, of the allow-list that each mechanism has.

Each refusal begins with the key at fault and says what is allowed there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tasks.study.channels import CHANNELS, Channel
from tasks.study.codec import CODEC_SECTIONS, CodecSection
from tasks.study.label import LABEL_SECTIONS
from tasks.study.privacy import PRIVACY_SECTIONS, Privacy, noise_shares

#: In which order values are told.
_CHANNELS = tuple(CHANNELS)
_WEIGHTINGS = ("plain", "iterations", "samples")


@dataclass(frozen=True)
class Combination:
    """What of a study its mechanism and its channel have a say in; each is the value of a key."""

    privacy: Privacy
    task: str
    sums_over_patients: bool
    channel: Channel
    codec: CodecSection
    weighting: str
    optimizer: str
    batch_size: int | Literal["full"]
    local_iterations: int | None
    score_bins: int | None
    num_sites: int
    min_sites: int


def require_fit(asked: Combination) -> None:
    """Return where the mechanism's promise holds for all that it is combined with.

    Raises:
        ValueError: it does not, or nobody has said that it does; begins with the key at fault.
    """
    _require_training(asked)
    _require_delta(asked)
    _require_channel(asked)
    _require_codec(asked)
    _require_counts(asked)
    if asked.channel.joins:
        _require_masks(asked)


def _require_training(asked: Combination) -> None:
    """To bound each patient's gradient is one full-batch gradient step: anything else would be accounted wrongly."""
    needs, suffix = asked.privacy.needs, f"with privacy.mechanism {asked.privacy.mechanism}"
    if needs.per_patient:
        if not asked.sums_over_patients:
            able = " or ".join(name for name, section in LABEL_SECTIONS.items() if section.per_patient)
            raise ValueError(f"label.task must be {able} {suffix}: the loss of {asked.task} is no sum over patients")
        for key, value in {"optimizer": "sgd", "batch_size": "full", "local_iterations": 1}.items():
            if getattr(asked, key) != value:
                raise ValueError(f"training.{key} must be {value} {suffix}")
    if asked.weighting not in needs.weightings:
        raise ValueError(f"training.weighting must be {_either(_WEIGHTINGS, needs.weightings)} {suffix}")


def _require_delta(asked: Combination) -> None:
    """A delta of one over the number of protected units allows to publish one of them in the clear."""
    privacy, delta = asked.privacy, getattr(asked.privacy, "delta", None)
    if delta is None:
        return
    units, what = asked.num_sites, "sites"
    if privacy.unit == "patient":
        if privacy.public_patients is None:
            raise ValueError(f"privacy.mechanism {privacy.mechanism} protects patients and does not say how many")
        units, what = privacy.public_patients, "patients of privacy.public_num_examples"
    if delta * units >= 1:
        raise ValueError(
            f"privacy.delta is {delta:g}; with {units} {what} it must be below {1 / units:.3g}, and should be a tenth "
            "of that or less: it is the chance that a promise for one of them fails"
        )


def _require_channel(asked: Combination) -> None:
    """Masks and encryption hide what one site sends, so only what can be summed as it is may go behind them."""
    channels, name = asked.privacy.needs.channels, asked.privacy.mechanism
    if asked.channel.name not in channels:
        why = "" if "plain" in channels else ": its noise is in the sum"
        raise ValueError(f"channel must be {_either(_CHANNELS, channels)} with privacy.mechanism {name}{why}")


def _require_codec(asked: Combination) -> None:
    """A sum is made of what was uploaded; and what a mechanism releases may be looked at only where all of it may be.

    int8 does not add: each site has scales of its own, which follow from its values, and a number on one of them is
    none on another. On a public grid, where numbers would add, updates go behind masks already.
    """
    name, channel, mechanism = asked.codec.name, asked.channel.name, asked.privacy.mechanism
    if asked.channel.adds_only and not asked.codec.adds:
        able = _either(CODEC_SECTIONS, frozenset(n for n, section in CODEC_SECTIONS.items() if section.adds))
        raise ValueError(f"codec.name must be {able} with channel {channel}: encodings of {name} do not add")
    if asked.codec.looks and not asked.privacy.needs.codecs_that_look:
        able = _either(CODEC_SECTIONS, frozenset(n for n, section in CODEC_SECTIONS.items() if not section.looks))
        raise ValueError(
            f"codec.name must be {able} with privacy.mechanism {mechanism}: what {name} sends depends on the values"
        )


def _require_counts(asked: Combination) -> None:
    if asked.score_bins and not asked.privacy.needs.counts:
        able = [name for name, section in PRIVACY_SECTIONS.items() if section.needs.counts]
        raise ValueError(
            f"evaluation.score_bins needs privacy.mechanism {' or '.join(able)}: its counts ride on the sum"
        )


def _require_masks(asked: Combination) -> None:
    if asked.num_sites < 3:
        raise ValueError("channel masks needs at least 3 sites: of two, each knows the other's part of a sum")
    lost, colluding = noise_shares(asked.privacy)
    needed = max(3, (asked.num_sites + colluding) // 2 + 1, lost + colluding + 1)
    if asked.min_sites < needed:
        raise ValueError(
            f"rounds.min_sites is {asked.min_sites}, but masks over {asked.num_sites} sites with "
            f"{colluding} colluding open with {needed} or more"
        )


def _either(order: Iterable[str], allowed: frozenset[str]) -> str:
    """What is allowed, in words; a mechanism that names nothing is allowed nowhere."""
    return " or ".join(value for value in order if value in allowed) or "none of those that there are"
