"""Structured arrays on their way into a ring: what is checked, and how they are copied."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ._message import Message
from ._numpy import dtype_of, numpy_module
from .exceptions import MessageError

if TYPE_CHECKING:
    import numpy

__all__ = ["Sendable", "sendable"]

_LIMIT = re.compile(r"\((\d+)\)$")
_MEMBER = re.compile(r"=(-?\d+)")


class Sendable:
    """The elements of an array, ready to be copied into records.

    Args:
        contract: The message class.
        source: One-dimensional; of the contract's dtype in memory without gaps, or with the same columns placed in
            another way.
    """

    def __init__(self, contract: type[Message], source: Any) -> None:
        dtype = dtype_of(contract)
        self._source = source
        self._dtype = dtype
        self._gaps = _gaps(dtype)
        self._whole = source.dtype == dtype
        self._padding = -contract.SIZE % 8
        if self._whole and contract.SIZE:
            # Rows of the widest unit that payloads consist of: copying goes row by row.
            unit = 1 if self._padding else 8
            self._unit = f"<u{unit}"
            self._rows = source.view(self._unit).reshape(len(source), contract.SIZE // unit)

    def __len__(self) -> int:
        return len(self._source)

    def write(self, first: int, number: int, buffer: Any, offset: int, stride: int) -> None:
        """Copies elements to payloads in a buffer.

        Args:
            first: Number of the first element.
            number: How many.
            buffer: Where to.
            offset: Of the first payload, in bytes.
            stride: Bytes from one payload to the next.
        """
        ndarray = numpy_module().ndarray
        size = self._dtype.itemsize
        if not size:
            return
        octets = ndarray((number, size + self._padding), "u1", buffer, offset, (stride, 1))
        if self._whole:
            width = self._rows.shape[1]
            rows = ndarray((number, width), self._unit, buffer, offset, (stride, size // width))
            rows[...] = self._rows[first : first + number]
        else:
            columns = ndarray((number,), self._dtype, buffer, offset, (stride,))
            for name in self._dtype.names or ():
                columns[name] = self._source[name][first : first + number]
        for start, end in self._gaps:
            octets[:, start:end] = 0
        if self._padding:
            octets[:, size:] = 0


def _gaps(dtype: numpy.dtype[numpy.void]) -> list[tuple[int, int]]:
    """First byte and end of everything between the columns: it may hold anything, and goes out as zeros."""
    gaps, end = [], 0
    places = sorted((place[1], place[1] + place[0].itemsize) for place in (dtype.fields or {}).values())
    for start, stop in [*places, (dtype.itemsize, dtype.itemsize)]:
        if start > end:
            gaps.append((end, start))
        end = max(end, stop)
    return gaps


def sendable(contract: type[Message], array: Any) -> Sendable:
    """Checks an array, all of it before anything is sent.

    Raises:
        MessageError: The array has other columns than the contract's dtype, or holds what no message may hold.
    """
    dtype = dtype_of(contract)
    if array.ndim != 1:
        raise MessageError(f"not an array of messages: shape={array.shape}, expected one dimension")
    if array.dtype != dtype:
        _check_columns(contract, array.dtype, dtype)
    else:
        array = numpy_module().ascontiguousarray(array)
    _check_values(contract, array)
    return Sendable(contract, array)


def _check_columns(contract: type[Message], actual: Any, expected: numpy.dtype[numpy.void]) -> None:
    names, wanted = actual.names or (), expected.names or ()
    problems = []
    if not actual.names:
        problems.append(f"dtype={actual}, no columns")
    else:
        for what, those in (
            ("missing", [name for name in wanted if name not in names]),
            ("unknown", [name for name in names if name not in wanted]),
        ):
            if those:
                problems.append(f"{what}: {', '.join(those)}")
        problems += [
            f"{name}: {actual[name]}, expected {expected[name]}"
            for name in names
            if name in wanted and actual[name] != expected[name]
        ]
    if problems:
        text = "; ".join(problems)
        raise MessageError(f"array of another layout: message={contract.NAME} {text}; use {contract.__name__}.dtype()")


def _check_values(contract: type[Message], array: Any) -> None:
    """Lengths, enums and bools: what would make a message unreadable on the other side."""
    numpy = numpy_module()
    for field in contract.FIELDS:
        kind, _, members = field.type_text.partition(" ")
        column = f"{field.name}.len"
        if column in (array.dtype.names or ()):
            limit = int(_LIMIT.findall(field.type_text)[0])
            wrong, legal = array[column] > limit, f"0 to {limit} elements"
        elif "=" in members:
            values = [int(value) for value in _MEMBER.findall(members)]
            wrong, legal, column = ~numpy.isin(array[field.name], values), f"one of {members}", field.name
        elif kind == "bool":
            wrong, legal, column = array[field.name].view("u1") > 1, "0 or 1", field.name
        else:
            continue
        if wrong.any():
            at = int(wrong.argmax())
            value = array[column][at].item() if contract.LOG_PAYLOAD else None
            shown = "value not logged" if value is None else f"value={value}"
            text = f"message '{contract.NAME}', field '{field.name}': element {at} out of range: {shown}; give {legal}"
            raise MessageError(text, field=field.name, value=value)
