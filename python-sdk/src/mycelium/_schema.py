"""What generated modules say about their contracts: fields, and the list of everything in one file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ._dynamic import DynamicMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ENCODINGS", "Contracts", "DynamicMessage", "Field"]

ENCODINGS: Final = ("contract", "msgpack", "json", "raw")
"""Names of the encodings; the index is the number in the frame's flags."""


class Field(NamedTuple):
    """One field of a message's layout.

    Attributes:
        name: Name of the property.
        type_text: Type as in the contracts file with everything that two peers have to agree on: lengths, and the
            names and values of an enum: ``String(16)``, ``u8 BUY=1 SELL=2``.
        offset: Bytes from the start of the payload.
        size: Bytes of the field.
        code: Code of the `struct` module; texts, vecs and arrays are bytes.
        contract_name: Name in the contracts file, where it is not that of the property.
    """

    name: str
    type_text: str
    offset: int
    size: int
    code: str
    contract_name: str = ""


class Contracts:
    """One contracts file, as a generated module knows it.

    Attributes:
        schema_digest: SHA-256 of the model; comments and descriptions do not change it.
        source_digest: SHA-256 of the file's bytes.
        messages: All message classes ordered by topic id, dynamic ones included.
    """

    __slots__ = ("messages", "schema_digest", "source_digest")

    def __init__(self, schema_digest: bytes, source_digest: bytes, messages: Iterable[type[Any]]) -> None:
        self.schema_digest = schema_digest
        self.source_digest = source_digest
        self.messages: tuple[type[Any], ...] = tuple(messages)

    def to_json(self) -> str:
        """Everything that decides how bytes are read, as JSON: what peers with different contracts compare."""
        return contracts_json(self.schema_digest, self.messages)

    def __repr__(self) -> str:
        names = ", ".join(message.NAME for message in self.messages[:8])
        more = ", …" if len(self.messages) > 8 else ""
        return (
            f"<Contracts schema_digest={self.schema_digest.hex()[:12]}… messages={len(self.messages)}: {names}{more}>"
        )


def contracts_json(schema_digest: bytes, messages: Iterable[type[Any]]) -> str:
    """The JSON of `Contracts.to_json` for any choice of message classes."""
    shapes = [
        {
            "name": message.NAME,
            "id": message.TOPIC_ID,
            "encoding": ENCODINGS[message.ENCODING],
            "max_size": message.MAX_SIZE if message.ENCODING else message.SIZE,
            "layout_digest": message.LAYOUT_DIGEST.hex(),
            "fields": [
                [field.contract_name or field.name, field.type_text, field.offset, field.size]
                for field in getattr(message, "FIELDS", ())
            ],
        }
        for message in messages
    ]
    return json.dumps({"schema_digest": schema_digest.hex(), "messages": shapes}, separators=(",", ":"))
