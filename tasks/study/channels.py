"""How updates travel from the sites to the hub, as far as it follows from the study: phases, and what the hub learns.

What a site and the hub do in each phase is in `tasks.rounds.channels`, one module of a channel's name each. Everybody
else asks a channel what it does, and never which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, PlainSerializer, PlainValidator, TypeAdapter, WithJsonSchema

from tasks.foreign.bounds import Name

#: What `channel` was called in study files and records once. Both are read; records and digests still say this one.
OLD_KEY = "aggregation"
#: What sites answer with in a phase of a round.
PhaseName = Literal["keys", "updates", "unmask"]
#: A site's tasks in a round, and the hub's that end a phase.
Step = Literal["validate_data", "train_local", "privatize_and_upload", "unmask", "validate_global"]
HubStep = Literal["freeze_roster", "select_updates", "aggregate"]
#: A site's tasks before its update is at the hub, whatever the channel.
TO_UPLOAD: tuple[Step, ...] = ("validate_data", "train_local", "privatize_and_upload")


@dataclass(frozen=True)
class Phase:
    """A part of a round: each site does its tasks, then the hub's task ends it for all of them.

    until: the share of the round's time after which it is over. A site's task in no phase has all of it.
    """

    name: PhaseName
    site: tuple[Step, ...]
    hub: HubStep
    until: float = 1.0


@dataclass(frozen=True)
class Channel:
    """One way for updates to travel; `name` is what a study writes as `channel`.

    phases: in order; the last one ends with `aggregate`.
    sums: what the hub learns the sum of and nothing else; None where it reads every update.
    hides: nobody but the site itself can read its update, even with the help of another site.
    copies: how often a model's bytes lie in one upload.
    """

    name: str
    phases: tuple[Phase, ...]
    sums: Literal["integers", "reals"] | None = None
    hides: bool = False
    copies: int = 1

    @property
    def adds_only(self) -> bool:
        """Whether the hub learns a sum, so that only what can be summed as it is may go this way."""
        return self.sums is not None

    @property
    def exact(self) -> bool:
        """Whether that sum is to the last bit what it would be without the channel."""
        return self.sums == "integers"

    @property
    def joins(self) -> bool:
        """Whether sites put themselves up for a round before they upload: one that is lost later on is missed."""
        return any(phase.hub == "freeze_roster" for phase in self.phases)

    @property
    def site_steps(self) -> tuple[Step, ...]:
        """A site's tasks from its data to the new model, in order."""
        return tuple(dict.fromkeys((*TO_UPLOAD, *(step for phase in self.phases for step in phase.site))))

    @property
    def turns(self) -> list[tuple[HubStep, Step]]:
        """Where one phase follows another: the hub's task that ends it, and a site's first one of the next."""
        return [(earlier.hub, later.site[0]) for earlier, later in pairwise(self.phases)]

    def phase_of(self, step: Step) -> PhaseName | None:
        """The phase that a site's task belongs to, if it is over before the round is."""
        return next((phase.name for phase in self.phases if step in phase.site), None)

    def until(self, name: PhaseName) -> float | None:
        """The share of a round's time after which this phase is over; None where it lasts as long as the round."""
        cut = next((phase.until for phase in self.phases if phase.name == name), 1.0)
        return cut if cut < 1 else None


_UNMASK = Phase("unmask", site=("unmask",), hub="aggregate")
_HIDDEN = Phase("updates", site=("privatize_and_upload",), hub="select_updates", until=0.85)

#: In the open: the hub reads every update.
PLAIN = Channel("plain", phases=(Phase("updates", site=("privatize_and_upload",), hub="aggregate"),))
#: Behind masks that cancel in the sum only, after a roster of whose masks there are.
MASKS = Channel(
    "masks",
    phases=(Phase("keys", site=("validate_data", "train_local"), hub="freeze_roster", until=0.6), _HIDDEN, _UNMASK),
    sums="integers",
    hides=True,
    copies=2,
)
#: Under a key that the sites share: the hub adds what it cannot read, and the sites decrypt the sum.
CKKS = Channel("ckks", phases=(_HIDDEN, _UNMASK), sums="reals", copies=14)

CHANNELS: Mapping[str, Channel] = {channel.name: channel for channel in (PLAIN, MASKS, CKKS)}


def _known(value: Any) -> Channel:
    """A channel by its name, or as it is."""
    if isinstance(value, Channel):
        return value
    if not isinstance(value, str) or value not in CHANNELS:
        raise ValueError(f"must be {', '.join(list(CHANNELS)[:-1])} or {list(CHANNELS)[-1]}")
    return CHANNELS[value]


def _of_any_version(value: Any) -> Channel:
    """The same; one that only a later version knows is told by its name, and nothing good is said of it."""
    if not isinstance(value, str) or value in CHANNELS:
        return _known(value)
    try:
        return replace(PLAIN, name=_NAME.validate_python(value))
    except ValueError:
        raise ValueError("no channel has such a name") from None


_NAME: TypeAdapter[str] = TypeAdapter(Name)
_BY_NAME = PlainSerializer(lambda channel: channel.name, return_type=str)
_KNOWN = Annotated[Channel, PlainValidator(_known), WithJsonSchema({"enum": list(CHANNELS)}), _BY_NAME]
#: A record says it under the old key, whose bytes are signed, and is read under either.
_RECORDED = Field(validation_alias=AliasChoices(OLD_KEY, "channel"), serialization_alias=OLD_KEY)
StudyChannel = Annotated[_KNOWN, Field(validation_alias=AliasChoices("channel", OLD_KEY))]
PlannedChannel = Annotated[_KNOWN, _RECORDED]
ClosedChannel = Annotated[Channel, PlainValidator(_of_any_version, json_schema_input_type=Name), _BY_NAME, _RECORDED]
