"""Which messages a channel knows, and by which header words it recognises them."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from . import _layout as layout
from ._frame import record_len
from ._message import Message, Views

__all__ = ["RawMessage", "Registry"]


class RawMessage:
    """A received message without a fixed layout (MessagePack, JSON or raw bytes); a copy that stays valid.

    Attributes:
        contract: The generated class that declares the message.
        payload: The payload's bytes.
    """

    __slots__ = ("_views", "_word", "contract", "payload")

    def __init__(self, contract: type[Any], payload: bytes) -> None:
        self._views: Views | None = None
        self._word = 0
        self.contract = contract
        self.payload = payload

    def __repr__(self) -> str:
        return f"<{self.contract.NAME} payload_len={len(self.payload)}>"


def is_fixed(contract: type[Any]) -> bool:
    """Whether the class is a message with a fixed layout."""
    return isinstance(contract, type) and issubclass(contract, Message)


def is_contract(value: object) -> bool:
    """Whether the value is a generated message class."""
    return isinstance(value, type) and isinstance(getattr(value, "TOPIC_ID", None), int)


class Registry:
    """The messages of a channel.

    Attributes:
        fixed: Full header word -> (words of the record, class). For a message of fixed size the whole header word is
            constant, so that one look-up validates length, topic and flags.
        dynamic: Topic id -> class, for messages of any size.
        schema_digest: Digest of the contracts, or zeros.
    """

    __slots__ = ("dynamic", "fixed", "schema_digest")

    def __init__(self, contracts: ModuleType | Iterable[type[Any]] | None) -> None:
        self.fixed: dict[int, tuple[int, type[Message]]] = {}
        self.dynamic: dict[int, type[Any]] = {}
        self.schema_digest = bytes(32)
        if isinstance(contracts, ModuleType):
            self.schema_digest = bytes(contracts.SCHEMA_DIGEST)
            classes: Iterable[type[Any]] = contracts.MESSAGES
        else:
            classes = contracts or ()
        for contract in classes:
            self.add(contract)

    def add(self, contract: type[Any]) -> None:
        """Adds a message class; adding it again does nothing.

        Raises:
            TypeError: It is no generated message class of an application.
        """
        if not is_contract(contract):
            raise TypeError(f"not a message class: {contract!r}; use a class of the generated messages module")
        if contract.TOPIC_ID <= layout.CORE_TOPIC_MAX:
            raise TypeError(f"not an application message: message={contract.NAME} topic_id={contract.TOPIC_ID}")
        if issubclass(contract, Message):
            self.fixed[contract.HEADER_WORD] = (record_len(contract.SIZE) // 8, contract)
        else:
            self.dynamic[contract.TOPIC_ID] = contract

    def forget_longer_than(self, max_payload: int) -> None:
        """Drops messages that this link cannot carry, so that their header words are caught as illegal."""
        for word, (_, contract) in list(self.fixed.items()):
            if max_payload < contract.SIZE:
                del self.fixed[word]
