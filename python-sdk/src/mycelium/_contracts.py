"""Which messages a channel knows, and by which header words it recognises them."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from . import _layout as layout
from ._dynamic import DynamicMessage
from ._frame import record_len
from ._message import Message
from ._schema import contracts_json

__all__ = ["Registry"]


def is_fixed(contract: type[Any]) -> bool:
    """Whether the class is a message with a fixed layout."""
    return isinstance(contract, type) and issubclass(contract, Message)


def is_contract(value: object) -> bool:
    """Whether the value is a generated message class."""
    return isinstance(value, type) and issubclass(value, (Message, DynamicMessage)) and hasattr(value, "TOPIC_ID")


class Registry:
    """The messages of a channel.

    Attributes:
        fixed: Full header word -> (words of the record, class). For a message of fixed size the whole header word is
            constant, so that one look-up validates length, topic and flags.
        dynamic: Topic id -> class, for messages of any size.
        schema_digest: Digest of the contracts: that of a module, the exclusive or of several, which is the digest of
            no contracts file, or zeros for none.
    """

    __slots__ = ("_names", "_offered", "dynamic", "fixed", "schema_digest")

    def __init__(self, contracts: ModuleType | Iterable[ModuleType | type[Any]] | None) -> None:
        self.fixed: dict[int, tuple[int, type[Message]]] = {}
        self.dynamic: dict[int, type[Any]] = {}
        self._offered: dict[tuple[int, bytes], type[Any]] = {}
        self._names: dict[int, str] = {}
        digests = set()
        sources: Iterable[Any] = [contracts] if isinstance(contracts, ModuleType) else contracts or ()
        for source in sources:
            if isinstance(source, ModuleType):
                digests.add(bytes(source.SCHEMA_DIGEST))
            for contract in source.MESSAGES if isinstance(source, ModuleType) else (source,):
                self.add(contract)
                digests.add(bytes(contract.SCHEMA_DIGEST))
                self._offered.setdefault((contract.TOPIC_ID, bytes(contract.LAYOUT_DIGEST)), contract)
        digest = 0
        for other in digests:
            digest ^= int.from_bytes(other, "big")
        self.schema_digest = digest.to_bytes(32, "big")

    def offer(self) -> bytes:
        """Returns what decides the bytes of all messages, for a bridge whose contracts are others."""
        return contracts_json(self.schema_digest, self._offered.values()).encode()

    def instead_of(self, contract: type[Any]) -> type[Any] | None:
        """Returns what the bridge was told of this topic where that is another layout than the class has."""
        if (contract.TOPIC_ID, bytes(contract.LAYOUT_DIGEST)) in self._offered:
            return None
        return next((other for (topic_id, _), other in self._offered.items() if topic_id == contract.TOPIC_ID), None)

    def name(self, topic_id: int) -> str:
        """Returns the name of the message with this topic; empty where none is known."""
        return self._names.get(topic_id, "")

    def refuse(self, topic_id: int) -> None:
        """Forgets what was known of a topic whose layouts differ, so that its frames are skipped."""
        self.dynamic.pop(topic_id, None)
        for word, (_, contract) in list(self.fixed.items()):
            if topic_id == contract.TOPIC_ID:
                del self.fixed[word]

    def check(self, contract: type[Any]) -> None:
        """Raises TypeError where a class is no generated message class of an application."""
        if not is_contract(contract):
            raise TypeError(f"not a message class: {contract!r}; use a class of the generated messages module")
        if contract.TOPIC_ID <= layout.CORE_TOPIC_MAX:
            raise TypeError(f"not an application message: message={contract.NAME} topic_id={contract.TOPIC_ID}")

    def add(self, contract: type[Any]) -> None:
        """Adds a message class; adding it again does nothing.

        Raises:
            TypeError: It is no generated message class of an application.
        """
        self.check(contract)
        self._names[contract.TOPIC_ID] = contract.NAME
        if issubclass(contract, Message):
            self.fixed[contract.HEADER_WORD] = (record_len(contract.SIZE) // 8, contract)
        else:
            self.dynamic[contract.TOPIC_ID] = contract

    def forget_longer_than(self, max_payload: int) -> None:
        """Drops messages that this link cannot carry, so that their header words are caught as illegal."""
        for word, (_, contract) in list(self.fixed.items()):
            if max_payload < contract.SIZE:
                del self.fixed[word]
