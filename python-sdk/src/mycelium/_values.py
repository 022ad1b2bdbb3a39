"""Values on their way in and out of messages: plain forms for dictionaries, short forms for people."""

from __future__ import annotations

import enum
import functools
import math
import string
import struct
from collections.abc import Mapping
from typing import Any, Final

from ._schema import Field

__all__ = ["from_plain", "joined", "shown", "to_plain"]

_SHOWN_MAX: Final = 80
_JOINED_MAX: Final = 1000
_FLOATS: Final = ("f32", "f64")
_NOT_FINITE: Final = {math.inf: "inf", -math.inf: "-inf"}
_FLOAT_TEXTS: Final = ("NaN", "inf", "-inf")
_NAN_FORMATS: Final = {8: ">f", 16: ">d"}


def shown(value: object) -> str:
    """A value for people, of bounded length; cost does not grow with the value."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bytes, bytearray, str)) and len(value) > _SHOWN_MAX:
        return f"{value[: _SHOWN_MAX // 2]!r}... (length {len(value)})"
    if isinstance(value, (tuple, list)):
        parts = ", ".join(shown(part) for part in value[:8])
        return f"({parts}, ... (length {len(value)}))" if len(value) > 8 else f"({parts})"
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def joined(parts: list[str]) -> str:
    """Parts of a `repr` with commas; what is too much is only counted."""
    length = 0
    for index, part in enumerate(parts):
        length += len(part) + 2
        if length > _JOINED_MAX:
            return f"{', '.join(parts[:index])}, ... ({len(parts) - index} more fields)"
    return ", ".join(parts)


def to_plain(value: Any) -> Any:
    """A value as JSON knows it, in every language.

    Names of enum members, bytes in hexadecimal, lists; text for floats that are not finite and for integers that need
    more than 64 bits.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value


@functools.cache
def _members(type_text: str) -> Mapping[str, int]:
    """The names and values of an enum; nothing for other types."""
    pairs = (part.partition("=") for part in type_text.split(" ")[1:])
    return {name: int(value) for name, sign, value in pairs if sign}


def from_plain(field: Field, value: Any) -> Any:
    """Undoes `to_plain`, and leaves alone what already has the type of the field.

    Raises:
        ValueError: Text that stands for no value of the field; the text of the error says what is legal.
    """
    kind = field.type_text
    if isinstance(value, str):
        members = _members(kind)
        if members:
            if value not in members:
                legal = ", ".join(f"{name}={number}" for name, number in members.items())
                raise ValueError(f"give one of {legal}")
            return members[value]
        if kind in _FLOATS:
            return _from_float_text(value)
        if kind in ("u128", "i128"):
            return _from_digits(value)
        if kind == "U256" or kind.startswith(("[u8", "Vec<u8>")):
            return _from_hex(value)
    elif isinstance(value, (list, tuple)) and kind.startswith(("[[u8", "Vec<[u8")):
        return tuple(_from_hex(part) if isinstance(part, str) else part for part in value)
    elif isinstance(value, (list, tuple)) and kind.startswith(("Vec<f32>", "Vec<f64>")):
        return tuple(_from_float_text(part) if isinstance(part, str) else part for part in value)
    return value


def _from_float_text(text: str) -> float:
    if text in _FLOAT_TEXTS:
        return float(text)
    # Rust writes the bits of a NaN that is not the usual one.
    name, _, digits = text.partition(":")
    if name == "NaN" and len(digits) in _NAN_FORMATS and set(digits) <= set(string.hexdigits):
        value: float = struct.unpack(_NAN_FORMATS[len(digits)], bytes.fromhex(digits))[0]
        if math.isnan(value):
            return value
    raise ValueError(f"give a number, or one of {', '.join(_FLOAT_TEXTS)}")


def _from_digits(text: str) -> int:
    if len(text) > 40 or not (text[1:] if text[:1] == "-" else text).isdecimal():
        raise ValueError("give an integer, or text of its decimal digits")
    return int(text)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text[2:] if text[:2] in ("0x", "0X") else text)
    except ValueError:
        raise ValueError("give bytes, or text of hexadecimal digits") from None
