"""The `codec` section of a study: how what a site releases becomes the bytes that it uploads.

A codec comes after the mechanism and sees only what may be seen anyway, so it costs no epsilon, and protects nobody.
How each works stands in `tasks.privacy.codecs`.

`top` and `random` were values of `privacy.mechanism` once, beside their options. That spelling is still read and means
mechanism `none` with the codec of that name. Digests and signed records go on saying it so: there is one spelling for
one meaning, and neither a study's digest nor the signature of an older plan depends on who has read it since.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from tasks.foreign.bounds import MAX_COUNT
from tasks.study.privacy import Fraction, Section

ErrorFeedback = Annotated[
    bool, Field(description="what rounding or choosing has left out is added to the next round's release")
]


class CodecSection(Section):
    """A codec's own section.

    adds: the sum of encodings is the encoding of the sum, so that it may go behind masks or under encryption.
    looks: which components are sent, or on which scale, depends on the values.
    chooses: components are left out that are not zero.
    """

    adds: ClassVar[bool] = False
    looks: ClassVar[bool] = False
    chooses: ClassVar[bool] = False

    name: str


class Dense(CodecSection):
    """Every component in float32; under a mechanism that sends few components as `sparse`."""

    adds: ClassVar[bool] = True

    name: Literal["dense"] = "dense"


class Sparse(CodecSection):
    """The components that are not zero, in float32."""

    looks: ClassVar[bool] = True

    name: Literal["sparse"]


class Float16(CodecSection):
    """Every component in half precision."""

    name: Literal["float16"]
    error_feedback: ErrorFeedback = True


class Int8(CodecSection):
    """Every component as one of 255 multiples of a scale that a block of components shares."""

    looks: ClassVar[bool] = True

    name: Literal["int8"]
    block: Annotated[int, Field(ge=16, le=MAX_COUNT)] | Literal["tensor"] = Field(
        default=1024, description="components that share a scale; tensor: those of one of the model's tensors"
    )
    rounding: Literal["nearest", "stochastic"] = "nearest"
    error_feedback: ErrorFeedback = True


class Top(CodecSection):
    """The components of largest magnitude, in float32."""

    looks: ClassVar[bool] = True
    chooses: ClassVar[bool] = True

    name: Literal["top"]
    fraction: Fraction
    error_feedback: ErrorFeedback = False


class Random(CodecSection):
    """Components that a coin has chosen, in float32."""

    chooses: ClassVar[bool] = True

    name: Literal["random"]
    fraction: Fraction
    error_feedback: ErrorFeedback = False


StudyCodec = Annotated[Dense | Sparse | Float16 | Int8 | Top | Random, Field(discriminator="name")]
#: Name -> its section, in the order in which they are told.
CODEC_SECTIONS: dict[str, type[CodecSection]] = {
    get_args(section.model_fields["name"].annotation)[0]: section for section in get_args(get_args(StudyCodec)[0])
}

#: Codecs that were mechanisms once, and the options that stood beside them in `privacy`.
OLD_MECHANISMS = ("top", "random")
_OLD_OPTIONS = ("fraction", "error_feedback")


def respelled(data: Any) -> Any:
    """A study or a record as it is written, with a codec that stands where mechanisms do put into its own section.

    Raises:
        ValueError: there is a codec beside it; begins with the key at fault.
    """
    privacy = data.get("privacy") if isinstance(data, dict) else None
    if not isinstance(privacy, dict) or privacy.get("mechanism") not in OLD_MECHANISMS:
        return data
    name = privacy["mechanism"]
    if "codec" in data:
        raise ValueError(f"privacy.mechanism {name} is a codec, and codec stands here too: set privacy.mechanism: none")
    moved = {key: privacy[key] for key in _OLD_OPTIONS if key in privacy}
    rest = {key: value for key, value in privacy.items() if key not in _OLD_OPTIONS}
    return {**data, "privacy": {**rest, "mechanism": "none"}, "codec": {"name": name, **moved}}


def as_spelled_once(data: dict[str, Any]) -> dict[str, Any]:
    """The way back, in which digests and records say it: a codec that was a mechanism once, without another one."""
    privacy, codec = data.get("privacy"), data.get("codec")
    if not isinstance(privacy, dict) or not isinstance(codec, dict):
        return data
    if privacy.get("mechanism") != "none" or codec.get("name") not in OLD_MECHANISMS:
        return data
    options = {key: codec[key] for key in _OLD_OPTIONS if key in codec}
    once = {"mechanism": codec["name"], **options, "i_accept_no_privacy": privacy.get("i_accept_no_privacy")}
    return {key: once if key == "privacy" else value for key, value in data.items() if key != "codec"}
