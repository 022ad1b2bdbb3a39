"""Typed windows over the memory that messages lie in, and what takes their place once it is given back."""

from __future__ import annotations

from typing import Any, Final, Literal, NoReturn, cast

from .exceptions import MessageError, StaleMessageError

__all__ = ["FORMATS", "RELEASED", "STALE", "STALE_TEXT", "Stale", "Views"]

STALE_TEXT: Final = "the message is no longer valid: its ring space was released; use .copy() to keep a message"

FORMATS: Final[dict[str, Literal["b", "H", "h", "I", "i", "Q", "q", "f", "d"]]] = {
    "i8": "b",
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "u64": "Q",
    "i64": "q",
    "f32": "f",
    "f64": "d",
}


class Views:
    """Typed windows over one buffer that starts at an 8-byte boundary.

    `raw` and `u8` are bytes; each other window is made when it is first used and kept. Create one per
    mapping, never per message.

    Args:
        buffer: Memory of a length that is a multiple of 8 bytes.
        readonly: Whether writing through the windows is refused.

    Raises:
        MessageError: The length is not a multiple of 8.
    """

    __slots__ = ("f32", "f64", "i8", "i16", "i32", "i64", "raw", "u8", "u16", "u32", "u64")

    raw: memoryview[int]
    u8: memoryview[int]
    i8: memoryview[int]
    u16: memoryview[int]
    i16: memoryview[int]
    u32: memoryview[int]
    i32: memoryview[int]
    u64: memoryview[int]
    i64: memoryview[int]
    f32: memoryview[float]
    f64: memoryview[float]

    def __init__(self, buffer: Any, *, readonly: bool = False) -> None:
        raw = memoryview(buffer)
        if raw.format != "B" or raw.ndim != 1:
            raw = raw.cast("B")
        if readonly:
            raw = raw.toreadonly()
        if raw.nbytes % 8:
            raise MessageError(f"buffer length is not a multiple of 8: len={raw.nbytes}; pad it with zeros")
        self.raw = raw
        self.u8 = raw

    def __getattr__(self, name: str) -> Any:
        """Makes a window on its first use; afterwards the attribute is found without this call."""
        code = FORMATS.get(name)
        if code is None:
            raise AttributeError(f"views have no attribute {name!r}")
        window = self.raw.cast(code)
        setattr(self, name, window)
        return window

    def release(self) -> None:
        """Releases every window, so that the buffer can be closed; messages over it become stale."""
        if self.raw is RELEASED:
            return
        for name in FORMATS:
            try:
                window = object.__getattribute__(self, name)
            except AttributeError:
                window = None
            setattr(self, name, RELEASED)
            if window is not None:
                window.release()
        raw, self.raw, self.u8 = self.raw, RELEASED, RELEASED
        raw.release()


class Stale:
    """Stands in for the views of a message whose memory was released."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise StaleMessageError(STALE_TEXT)


class _Released:
    """Stands in for a window whose memory was released."""

    __slots__ = ()

    def __getitem__(self, key: object) -> NoReturn:
        raise StaleMessageError(STALE_TEXT)

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise StaleMessageError(STALE_TEXT)

    def __getattr__(self, name: str) -> NoReturn:
        raise StaleMessageError(STALE_TEXT)


STALE: Final = cast(Views, Stale())
"""Views of a message that has been given up: every access raises `StaleMessageError`."""

RELEASED: Final[Any] = _Released()
