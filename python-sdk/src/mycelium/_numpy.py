"""Messages as NumPy arrays. NumPy is imported when the first dtype is asked for, and never before."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .exceptions import MessageError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from ._message import Message

__all__ = ["array_of", "dtype_of", "messages_of", "numpy_module"]

_M = TypeVar("_M", bound="Message")

_PREFIX: Final = 8
_NUMBERS: Final = {
    "u8": "u1",
    "u16": "<u2",
    "u32": "<u4",
    "u64": "<u8",
    "i8": "i1",
    "i16": "<i2",
    "i32": "<i4",
    "i64": "<i8",
    "f32": "<f4",
    "f64": "<f8",
    "bool": "?",
    "u128": "V16",
    "i128": "V16",
    "U256": "V32",
}
_TEXT: Final = re.compile(r"String\((\d+)\)")
_VEC: Final = re.compile(r"Vec<(?:\[u8; (\d+)\]|(\w+))>\((\d+)\)")
_ARRAY: Final = re.compile(r"\[u8; (\d+)\]")
_TABLE: Final = re.compile(r"\[\[u8; (\d+)\]; (\d+)\]")


def numpy_module() -> Any:
    """NumPy, or an ImportError that says how to get it."""
    try:
        import numpy
    except ImportError:
        raise ImportError(
            "NumPy is not installed, and arrays of messages need it; pip install 'mycelium[numpy]'"
        ) from None
    return numpy


def _format(type_text: str) -> tuple[Any, bool]:
    """The format of a field's data, and whether a length stands in front of it."""
    if found := _TEXT.fullmatch(type_text):
        return f"S{found[1]}", True
    if found := _VEC.fullmatch(type_text):
        element = f"V{found[1]}" if found[1] else _NUMBERS[found[2]]
        return (element, (int(found[3]),)), True
    if found := _ARRAY.fullmatch(type_text):
        return f"V{found[1]}", False
    if found := _TABLE.fullmatch(type_text):
        return (f"V{found[1]}", (int(found[2]),)), False
    return _NUMBERS[type_text.partition(" ")[0]], False  # an enum starts with its integer


_dtypes: dict[type[Message], numpy.dtype[numpy.void]] = {}


def dtype_of(contract: type[Message]) -> numpy.dtype[numpy.void]:
    """The structured dtype of a message; see `Message.dtype`."""
    known = _dtypes.get(contract)
    if known is not None:
        return known
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    for field in contract.FIELDS:
        data, counted = _format(field.type_text)
        names.append(field.name)
        formats.append(data)
        offsets.append(field.offset + (_PREFIX if counted else 0))
        if counted:
            names.append(f"{field.name}.len")
            formats.append("<u2")
            offsets.append(field.offset)
    shape = {"names": names, "formats": formats, "offsets": offsets, "itemsize": contract.SIZE}
    dtype: numpy.dtype[numpy.void] = numpy_module().dtype(shape)
    _dtypes[contract] = dtype
    return dtype


def array_of(contract: type[Message], messages: Iterable[Message]) -> numpy.typing.NDArray[numpy.void]:
    """Copies messages into a new array; see `Message.to_array`."""
    dtype = dtype_of(contract)
    payloads = bytearray()
    for message in messages:
        if type(message) is not contract:
            raise MessageError(f"wrong message: type={type(message).__name__}, expected={contract.__name__}")
        payloads += message.to_bytes()
    array: numpy.typing.NDArray[numpy.void] = numpy_module().frombuffer(payloads, dtype)
    return array


def messages_of(contract: type[_M], array: Any) -> list[_M]:
    """Copies the elements of an array into messages; see `Message.from_array`."""
    dtype = dtype_of(contract)
    array = numpy_module().asarray(array)
    if array.dtype != dtype:
        raise MessageError(f"array of another layout: dtype={array.dtype}, expected={contract.__name__}.dtype()")
    clean = numpy_module().zeros(array.shape, dtype)
    for name in dtype.names or ():  # between the columns an array may have anything
        clean[name] = array[name]
    payloads = clean.tobytes()
    return [contract.from_bytes(payloads[at : at + contract.SIZE]) for at in range(0, len(payloads), contract.SIZE)]
