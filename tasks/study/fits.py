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
from tasks.study.privacy import PRIVACY_SECTIONS, Privacy, noise_shares, sent_fraction
from tasks.study.strategy import STRATEGY_SECTIONS, StrategySection, StrategySettings

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
    strategy: StrategySettings
    codec: CodecSection
    weighting: str
    optimizer: str
    batch_size: int | Literal["full"]
    local_iterations: int | None
    local_epochs: int | None
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
    _require_strategy(asked)
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


def _require_strategy(asked: Combination) -> None:
    own, name = asked.strategy, asked.strategy.name
    if why := _why_not(own, asked):
        names = frozenset(each for each, section in STRATEGY_SECTIONS.items() if not _why_not(section, asked))
        raise ValueError(f"strategy.name must be {_either(STRATEGY_SECTIONS, names)} {why.format(name)}")
    if own.corrects and asked.optimizer != "sgd":
        raise ValueError(f"training.optimizer must be sgd with strategy.name {name}: it corrects gradients")
    if (own.needs_each or own.corrects) and asked.weighting != "plain":
        raise ValueError(f"training.weighting must be plain with strategy.name {name}: each site counts once")
    if asked.min_sites < own.fewest_sites:
        raise ValueError(
            f"rounds.min_sites is {asked.min_sites}, but strategy.name {name} needs {own.fewest_sites} updates for "
            "what it promises"
        )


def _why_not(strategy: StrategySection | type[StrategySection], asked: Combination) -> str:
    """With what a strategy does not go, and why not. Steps at the hub go with every mean or sum that there is.

    Updates are whole where each is one site's weight difference: neither some components of it, nor summed gradients
    of a site's patients, which are longer the more patients a site has.
    """
    privacy, channel = asked.privacy, asked.channel
    whole = sent_fraction(privacy) is None and not privacy.needs.per_patient
    one_step = asked.local_iterations == 1 or (asked.local_epochs == 1 and asked.batch_size == "full")
    if one_step and strategy.needs_steps:
        return "where a site takes one local step: {} needs several"
    if channel.adds_only and (strategy.needs_each or strategy.corrects):
        return f"with channel {channel.name}: {{}} looks at what each site sends"
    if strategy.keeps_layers and (channel.adds_only or privacy.needs.per_patient):
        return f"with channel {channel.name} and privacy.mechanism {privacy.mechanism}: {{}} sends a part of the model"
    if strategy.needs_each and not whole:
        return f"with privacy.mechanism {privacy.mechanism}: {{}} compares whole updates"
    if strategy.needs_each and asked.codec.chooses:
        return f"with codec.name {asked.codec.name}: {{}} compares whole updates"
    if strategy.corrects and asked.codec.name != "dense":
        return f"with codec.name {asked.codec.name}: {{}} sends a second vector, which has no codec"
    if strategy.corrects and (privacy.promises or not whole):
        return f"with privacy.mechanism {privacy.mechanism}: {{}} sends a second, raw vector"
    return ""


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
