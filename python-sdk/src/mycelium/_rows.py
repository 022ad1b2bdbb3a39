"""Records as tuples: one ``struct`` format per choice of fields, with text columns decoded through a cache."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

from . import _layout as layout
from ._frame import record_len
from ._message import Message
from .exceptions import MessageError

__all__ = ["column_format", "row_format"]

Unpack = Callable[[memoryview], list[tuple[Any, ...]]]
_PREFIX_LEN = 8
_CACHE_MAX = 4096


class _Decoded(dict[bytes, Any]):
    """Decodes each distinct value once; forgets everything when it grows too large."""

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, raw: bytes) -> Any:
        if len(self) >= _CACHE_MAX:
            self.clear()
        value = self[raw] = self._decode(raw)
        return value


def _counted(raw: bytes, name: str) -> bytes:
    length = int.from_bytes(raw[:2], "little")
    if length > len(raw) - _PREFIX_LEN:
        text = f"stored length out of range: field={name} length={length}, legal: 0..={len(raw) - _PREFIX_LEN}"
        raise MessageError(text, field=name, value=length)
    return raw[_PREFIX_LEN : _PREFIX_LEN + length]


def _text(raw: bytes, name: str) -> str:
    try:
        return _counted(raw, name).decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"text is not UTF-8: field={name} {error}", field=name, value=raw) from error


def _decoder(kind: str, name: str) -> Callable[[bytes], Any] | None:
    """Returns how the bytes of a field become its value; None where the bytes or number are the value."""
    if kind.startswith("String"):
        return functools.partial(_text, name=name)
    if kind.startswith("Vec<u8>"):
        return functools.partial(_counted, name=name)
    if kind in ("u128", "i128"):
        return functools.partial(int.from_bytes, byteorder="little", signed=kind == "i128")
    if kind.startswith(("Vec", "[[")):
        raise TypeError(f"no column of this kind: field={name} type={kind}; choose other fields, or iterate")
    return None


_WINDOWS = {
    "B": "u8",
    "b": "i8",
    "H": "u16",
    "h": "i16",
    "I": "u32",
    "i": "i32",
    "Q": "u64",
    "q": "i64",
    "f": "f32",
    "d": "f64",
}
"""Which typed window a number of this struct code is read through."""


_columns: dict[tuple[type[Message], str], tuple[str, int, int]] = {}


def column_format(contract: type[Message], name: str) -> tuple[str, int, int]:
    """Returns window, size in bytes and offset in the payload of a field that is a number.

    Raises:
        TypeError: The field does not exist, or is not such a number.
    """
    known_format = _columns.get((contract, name))
    if known_format is not None:
        return known_format
    field = next((field for field in contract.FIELDS if field.name == name), None)
    if field is None:
        known = ", ".join(field.name for field in contract.FIELDS)
        raise TypeError(f"no such field: message={contract.NAME} field={name}, legal: {known}")
    window = _WINDOWS.get(field.code)
    if window is None:
        raise TypeError(f"no column of this kind: field={name} type={field.type_text}; use rows(), or iterate")
    found = _columns[contract, name] = window, field.size, field.offset
    return found


_formats: dict[tuple[type[Message], tuple[str, ...]], Unpack] = {}


def row_format(contract: type[Message], names: tuple[str, ...]) -> Unpack:
    """Returns the function that turns adjacent records of one message into tuples; made once per choice of fields.

    Args:
        contract: The message class.
        names: The fields wanted, in this order; empty for all.

    Raises:
        TypeError: A field does not exist, or has a type without a column form.
    """
    key = (contract, names)
    found = _formats.get(key)
    if found is None:
        found = _formats[key] = _make(contract, names)
    return found


def _make(contract: type[Message], names: tuple[str, ...]) -> Unpack:
    fields = {field.name: field for field in contract.FIELDS}
    unknown = [name for name in names if name not in fields]
    if unknown:
        known = ", ".join(fields)
        raise TypeError(f"no such field: message={contract.NAME} fields={', '.join(unknown)}, legal: {known}")
    wanted = [fields[name] for name in names or fields]
    text, end = f"<{layout.FRAME_HEADER_LEN}x", 0
    ordered = sorted(set(wanted), key=lambda field: field.offset)
    for field in ordered:
        text += f"{field.offset - end}x{field.code}"
        end = field.offset + field.size
    text += f"{record_len(contract.SIZE) - layout.FRAME_HEADER_LEN - end}x"
    iterate = struct.Struct(text).iter_unpack
    decoders = {field.name: _decoder(field.type_text, field.name) for field in ordered}
    if wanted == ordered and not any(decoders.values()):
        return lambda records: list(iterate(records))
    # Columns are decoded and put in order by transposing, which stays in C.
    places = [ordered.index(field) for field in wanted]
    caches = [None if (decode := decoders[field.name]) is None else _Decoded(decode) for field in wanted]

    def unpack(records: memoryview) -> list[tuple[Any, ...]]:
        columns = list(zip(*iterate(records)))
        chosen = [
            columns[place] if cache is None else map(cache.__getitem__, columns[place])
            for place, cache in zip(places, caches)
        ]
        return list(zip(*chosen))

    return unpack
