"""How a valid input is spoilt, knowing its structure, so that most of it still stands and the parser goes deep."""

from __future__ import annotations

import base64
import copy
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

_LONG = "x" * 5000
#: Values that some reader somewhere has got wrong.
ODD: tuple[Any, ...] = (
    *(None, True, False, "", [], {}, [[]], {"": {}}, "NaN", "null", "0", "-1", "1e999"),
    *(0, -1, 1, 2, 7, 8, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1),
    *(10**30, 10**400, 0.0, -0.0, 0.5, -0.5, 5e-324, 1e-308, 1e16, 1e300, -1e300, 1.7976931348623157e308),
    *(float("nan"), float("inf"), float("-inf")),
    *("\x00", "\n", "\x1b[31m", "\u202e", "\ud800", "\udfff\ud800", "é", "\U0001f600", "ʼ", "٣", "../..", "%s", "{}"),
    *("A" * 86 + "==", "A" * 85 + "B==", "A" * 88, "A" * 43 + "=", "=", "A===", "AA==\n", "§", "a b", _LONG),
    *("0" * 64, "f" * 64, "F" * 64, "0" * 63, "g" * 64),
    *("2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59"),
    *("2026-01-01T00:00:00+23:59:59", "2026-02-30T00:00:00Z", "2026-01-01", 253402300799, -62135596800, 1e18, "1e18"),
    *("F32", "F64", "BF16", "F8_E4M3", "F8_E5M2", "BOOL", "C64", "U64", "I32", "U8", "f32", "F4"),
    *([0, 2**63], [2**40, 0, 2**40], [0] * 9, [2**62, 4], [-1], [1.0], [True], ["1"], [0, 8], [8, 0], [4, 4]),
    {"__metadata__": 1},
)
#: Sizes of what is repeated; the large ones come rarely.
_MANY = (2, 9, 65, 129, 300)


def spoil_json(rng: Random, body: bytes) -> bytes:
    """One to three changes to the values and keys of a JSON text, and sometimes to its bytes or spelling."""
    value = json.loads(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = spoil_value(rng, value)
    kind = rng.random()
    text = json.dumps(value, ensure_ascii=kind < 0.5, indent=2 if kind < 0.8 else None)
    spoilt = (text + "\n" * (kind < 0.8)).encode("utf-8", "surrogatepass")
    if kind < 0.9:
        return spoilt
    return rng.choice((spoil_bytes, _twin_key, _deep, _many_keys))(rng, spoilt)


def spoil_value(rng: Random, value: Any) -> Any:
    """A JSON value with one place in it changed; the value itself may be changed in place."""
    places = list(_places(value))
    if not places:
        return copy.deepcopy(rng.choice(ODD))
    holder, key = rng.choice(places)
    change = rng.random()
    if change < 0.5:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif change < 0.6:
        del holder[key]
    elif change < 0.7:
        holder[key] = _neighbour(rng, holder[key])
    elif change < 0.8:
        other, place = rng.choice(places)
        if place in other if isinstance(other, dict) else place < len(other):
            holder[key] = copy.deepcopy(other[place])  # a part of itself would have no end
    elif change < 0.9 and isinstance(holder, dict):
        name = rng.choice(ODD)
        holder[name if isinstance(name, str) else f"{key}_"] = holder[key]
    else:
        _repeat(rng, holder, key)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value; iterative, for nothing here may be as deep as its inputs."""
    found, left = [], [value]
    while left:
        node = left.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], dict | list):
                left.append(node[key])
    return found


def _neighbour(rng: Random, value: Any) -> Any:
    """Nearly the same value."""
    match value:
        case bool():
            return not value
        case int():
            return value + rng.choice((-1, 1, 2**16, 2**32, -(2**40)))
        case float():
            return value * rng.choice((-1.0, 1e10, 1e300, 1e-300, 1.0000001))
        case str():
            place = rng.randrange(len(value) + 1)
            character = rng.choice('\x00\x7f\n"\\/é\u2028A=0 \u200b' + chr(rng.randrange(0x110000)))
            return value[:place] + character + value[place + rng.randrange(2) :]
        case list():
            return value[::-1] + value[:1]
        case dict():
            return dict(list(value.items())[1:])
        case _:
            return 0


def _repeat(rng: Random, holder: Any, key: Any) -> None:
    times, value = rng.choice(_MANY), holder[key]
    if isinstance(value, str):
        holder[key] = value * times
    elif isinstance(value, list):
        holder[key] = (value or [0]) * times
    elif isinstance(value, dict):
        line = next(iter(value.values()), 0)
        value.update({f"k{number}": line for number in range(times)})
    else:
        holder[key] = [value] * times


def spoil_bytes(rng: Random, body: bytes) -> bytes:
    """A few bytes changed, cut, doubled or put in, most of them near the beginning."""
    spoilt = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(len(spoilt), 64) + 1) if rng.random() < 0.5 else rng.randrange(len(spoilt) + 1)
        match rng.randrange(5):
            case 0 if place < len(spoilt):
                spoilt[place] = rng.randrange(256)
            case 1 if place < len(spoilt):
                spoilt[place] ^= 1 << rng.randrange(8)
            case 2:
                del spoilt[place : place + rng.choice((1, 2, 8, 64, 1 << 20))]
            case 3:
                spoilt[place:place] = rng.choice((b"\x00", b"\xff" * 8, b'"', b"[", b"\xc3\x28", spoilt[:place][-64:]))
            case _:
                spoilt[place : place + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, len(body))))
    return bytes(spoilt)


def _twin_key(rng: Random, body: bytes) -> bytes:
    """The first key of an object once more, with another value."""
    at, end = body.find(b'"'), body.find(b'"', body.find(b'"') + 1)
    return body[:at] + body[at : end + 1] + b": 1, " + body[at:] if 0 <= at < end else b"{}"


def _deep(rng: Random, body: bytes) -> bytes:
    depth = rng.choice((10, 200, 2000, 50_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return body.replace(b": ", b": " + opened * depth + b"1" + closed * depth + b",", 1)


def _many_keys(rng: Random, body: bytes) -> bytes:
    count = 200_000 if rng.random() < 0.01 else 1000
    return b"{" + b",".join(b'"k%d":1' % number for number in range(count)) + b"," + body.lstrip()[1:]


# safetensors


def spoil_tensors(rng: Random, body: bytes) -> bytes:
    """A safetensors body with another header or other values; half of the headers still fit the data."""
    size = int.from_bytes(body[:8], "little")
    header, data = json.loads(body[8 : 8 + size]), bytearray(body[8 + size :])
    kind = rng.random()
    if kind < 0.35:
        header = spoil_value(rng, header)
    elif kind < 0.55:
        header, data = _refit(rng, header, data)
    elif kind < 0.85:
        _spoil_values(rng, data)
    else:
        return rng.choice((spoil_bytes, _with_odd_header))(rng, body)
    return _body(header, bytes(data))


def _refit(rng: Random, header: Any, data: bytearray) -> tuple[Any, bytearray]:
    """Another type or shape for each tensor, with offsets and data that fit it: only its meaning is wrong."""
    sizes = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "U64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
    position = 0
    for entry in header.values():
        dtype = rng.choice((*sizes, entry["dtype"], entry["dtype"], entry["dtype"]))
        shape = rng.choice(([3], [], [0], [1, 1, 2], [0, 2**40], [0, 2**63], [4], entry["shape"], entry["shape"]))
        length = sizes.get(dtype, 4)
        for dimension in shape:
            length *= dimension
        entry.update(dtype=dtype, shape=shape, data_offsets=[position, position + length])
        position += length
    return header, bytearray(bytes(data[:position]).ljust(min(position, 1 << 16), b"\x01"))


def _spoil_values(rng: Random, data: bytearray) -> None:
    """Values at the edge of what their type holds, wherever four or eight bytes lie."""
    numbers = (0, 1, 2, 5, -1, -2, 2**31 - 1, -(2**31), 22, 23)
    floats = (float("nan"), float("inf"), -float("inf"), 3.4e38, 1e-45, -0.0, 1e20)
    for _ in range(rng.randrange(1, 4)):
        if len(data) >= 8:
            place = 4 * rng.randrange(len(data) // 4)
            word = (
                struct.pack("<i", rng.choice(numbers)) if rng.random() < 0.6 else struct.pack("<f", rng.choice(floats))
            )
            data[place : place + 4] = word


def _with_odd_header(rng: Random, body: bytes) -> bytes:
    size = int.from_bytes(body[:8], "little")
    raw = rng.choice((_twin_key, _deep, spoil_bytes))(rng, body[8 : 8 + size])
    return struct.pack("<Q", len(raw)) + raw + body[8 + size :]


def _body(header: Any, data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


# certificates


def spoil_pem(rng: Random, body: bytes) -> bytes:
    """A PEM text whose DER has other bytes, or that is itself no PEM any more."""
    if rng.random() < 0.2:
        return spoil_bytes(rng, body)
    lines = body.decode().split("-----")
    der = bytearray(base64.b64decode(lines[2]))
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(der))
        match rng.randrange(3):
            case 0:
                der[place] = rng.choice((0, 1, 2, 5, 6, 0x13, 0x17, 0x18, 0x30, 0x31, 0x7F, 0x80, 0x84, 0xFF))
            case 1:
                der[place] ^= 1 << rng.randrange(8)
            case _:
                der[place:place] = der[place : place + 4]
    lines[2] = "\n" + base64.encodebytes(bytes(der)).decode()
    return "-----".join(lines).encode()


def spoil_ciphertext(rng: Random, body: bytes) -> bytes:
    """A safetensors body of ciphertext whose ciphertext has other bytes, mostly in its own header."""
    size = 8 + int.from_bytes(body[:8], "little")
    if rng.random() < 0.2:
        return spoil_tensors(rng, body)
    inner = bytearray(spoil_bytes(rng, body[size:]))
    if len(inner) > 4 and rng.random() < 0.7:
        inner[:4] = struct.pack("<I", len(inner) - 4)
    header = {"encrypted": {"dtype": "U8", "shape": [len(inner)], "data_offsets": [0, len(inner)]}}
    return _body(header, bytes(inner))
