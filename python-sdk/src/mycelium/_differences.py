"""What differs between the contracts of the bridge and of this side, as the bridge reports it in the handshake."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .exceptions import ProtocolError

__all__ = ["ContractDifference", "decode_report"]


class ContractDifference(NamedTuple):
    """One message that is not the same on both sides.

    Attributes:
        topic_id: The topic: the bridge's, or this side's for a message that the bridge does not have.
        message: Name of the message; of a renamed one the name on the bridge's side.
        compatible: Whether its frames flow on this link, as far as both sides have it.
        text: What differs, field by field, as ``bridge -> peer``.
        expected: Digest of the layout on the bridge's side; empty where the bridge does not have the message.
        peer_topic_id: The topic on this side, where it is another.
    """

    topic_id: int
    message: str
    compatible: bool
    text: str
    expected: bytes = b""
    peer_topic_id: int | None = None

    def refuses(self, topic_id: int) -> bool:
        """Whether frames of this topic are refused because of the difference."""
        return not self.compatible and topic_id in (self.topic_id, self.peer_topic_id)


def decode_report(payload: bytes) -> tuple[ContractDifference, ...]:
    """Reads the payload of a ``ContractsReport``.

    Raises:
        ProtocolError: It is not what the protocol says; the text names the place.
    """
    try:
        entries = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"report of differing contracts is no JSON: len={len(payload)} error={error}") from error
    if not isinstance(entries, list):
        raise ProtocolError(f"report of differing contracts is no JSON array: type={type(entries).__name__}")
    return tuple(_difference(number, entry) for number, entry in enumerate(entries))


def _difference(number: int, entry: Any) -> ContractDifference:
    def take(key: str, kind: type[Any], default: Any = ...) -> Any:
        value: Any = entry.get(key, default) if isinstance(entry, dict) else ...
        if value is None and default is None:
            return None
        if not isinstance(value, kind) or (kind is int and (value is True or not 0 <= value <= 0xFFFF)):
            what = "topic id" if kind is int else kind.__name__
            raise ProtocolError(f"report of differing contracts: {key} of entry {number} is no {what}")
        return _printable(value) if kind is str else value

    digest = take("layout_digest", str, None)
    try:
        expected = bytes.fromhex(digest or "")
    except ValueError as error:
        raise ProtocolError(f"report of differing contracts: layout_digest of entry {number}: {error}") from error
    return ContractDifference(
        topic_id=take("id", int),
        message=take("name", str),
        compatible=take("compatible", bool),
        text=take("text", str),
        expected=expected,
        peer_topic_id=take("peer_id", int, None),
    )


def _printable(text: str) -> str:
    """Text of the bridge for the log: without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
