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
    values: dict[str, Any] = entry if isinstance(entry, dict) else {}

    def wrong(key: str, expected: str) -> ProtocolError:
        return ProtocolError(f"report of differing contracts: {key} of entry {number} is no {expected}")

    def topic(key: str) -> int:
        value = values.get(key)
        if not isinstance(value, int) or value is True or not 0 <= value <= 0xFFFF:
            raise wrong(key, "topic id")
        return value

    def text(key: str) -> str:
        value = values.get(key)
        if not isinstance(value, str):
            raise wrong(key, "text")
        return _printable(value)

    try:
        expected = bytes.fromhex(text("layout_digest")) if values.get("layout_digest") is not None else b""
    except ValueError as error:
        raise wrong("layout_digest", "hexadecimal number") from error
    compatible = values.get("compatible")
    if not isinstance(compatible, bool):
        raise wrong("compatible", "true or false")
    return ContractDifference(
        topic_id=topic("id"),
        message=text("name"),
        compatible=compatible,
        text=text("text"),
        expected=expected,
        peer_topic_id=None if values.get("peer_id") is None else topic("peer_id"),
    )


def _printable(text: str) -> str:
    """Text of the bridge for the log: without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
