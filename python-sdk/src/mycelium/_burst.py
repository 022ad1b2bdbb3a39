"""Sending many messages: the steps of ``send_many``, which both kinds of publisher drive.

A burst goes on where it stopped, so that a publisher that may not wait catches :class:`ChannelFull`, waits in its own
way, and calls :meth:`Burst.run` again.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._contracts import is_fixed
from ._layout import FRAME_HEADER_LEN
from .exceptions import ChannelError

if TYPE_CHECKING:
    from ._publisher import Publisher

__all__ = ["Burst", "burst_of"]

_CHUNK = 256
"""Messages of a list that become visible together: what is written of one is still in the nearest cache."""


class Burst(abc.ABC):
    """Messages on their way; from a claim to its commit a reservation of the channel.

    Attributes:
        sent: How many are sent.
    """

    def __init__(self, publisher: Publisher[Any]) -> None:
        self._publisher = publisher
        self._channel = publisher._channel
        self._thread = 0
        self.sent = 0

    def run(self, timeout: float | None) -> int:
        """Sends what is left, and returns how many were sent in all.

        Raises:
            ChannelError: As :meth:`Publisher.send`, with ``sent`` set. After ChannelFull it may be called again.
        """
        try:
            self._run(self._channel._deadline(timeout))
        except BaseException as error:
            self._channel._give_up(self)
            if isinstance(error, ChannelError):
                error.sent = self.sent
            raise
        return self.sent

    @abc.abstractmethod
    def _run(self, deadline: int | None) -> None:
        """Sends what is left."""

    def _room(self, wanted: int, deadline: int | None) -> tuple[int, int]:
        """Waits for room, and returns the word of the first record and for how many there is room."""
        count = self._publisher._count
        self._channel._claim(count, deadline, self)
        self._producer: Any = self._publisher._producer
        return self._producer.extend(count, wanted)

    def _commit(self, word: int, number: int, deadline: int | None) -> None:
        publisher = self._publisher
        self._producer.commit_many(word, publisher._count, number, publisher._header)
        self.sent += number
        self._channel._reserved = None
        self._channel._flush(deadline)


class _ArrayBurst(Burst):
    """Elements of a structured array; they are checked and in order of memory."""

    def __init__(self, publisher: Publisher[Any], array: Any) -> None:
        from ._arrays import sendable

        super().__init__(publisher)
        self._source = sendable(publisher.contract, array)

    def _run(self, deadline: int | None) -> None:
        source, stride = self._source, self._publisher._count * 8
        while self.sent < len(source):
            word, number = self._room(len(source) - self.sent, deadline)
            start = word * 8 + FRAME_HEADER_LEN
            source.write(self.sent, number, self._producer.views.raw.obj, start, stride)
            self._commit(word, number, deadline)


class _ListBurst(Burst):
    """Messages of fixed size and of one class, in a list or tuple."""

    def __init__(self, publisher: Publisher[Any], messages: Sequence[Any]) -> None:
        super().__init__(publisher)
        self._messages = messages

    def _run(self, deadline: int | None) -> None:
        messages, count = self._messages, self._publisher._count
        while self.sent < len(messages):
            first, number = self._room(min(len(messages) - self.sent, _CHUNK), deadline)
            words, word = self._producer.words, first
            for message in messages[self.sent : self.sent + number]:
                start = message._word
                payload = message._views.u64
                # As in Publisher.send: only what owns its memory starts at word 0.
                words[word + 1 : word + count] = payload[start : start + count - 1] if start else payload
                word += count
            self._commit(first, number, deadline)


class _IteratorBurst(Burst):
    """Anything else: each message is visible before the next one is asked for."""

    def __init__(self, publisher: Publisher[Any], messages: Iterable[Any]) -> None:
        super().__init__(publisher)
        self._left: Iterator[Any] = iter(messages)
        self._pending: list[Any] = []

    def _run(self, deadline: int | None) -> None:
        from ._publisher import Publisher

        send, channel, publisher, pending = Publisher.send, self._channel, self._publisher, self._pending
        while True:
            if not pending:
                try:
                    pending.append(next(self._left))
                except StopIteration:
                    return
            left = channel._left_ms(deadline)
            send(publisher, pending[0], None if left is None else left / 1e3)
            pending.clear()
            self.sent += 1


def burst_of(publisher: Publisher[Any], messages: Any) -> Burst:
    """Returns the burst that suits what is to be sent.

    Raises:
        MessageError: An array has another dtype, or an element that breaks a rule of the contract.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(messages, numpy.ndarray) and is_fixed(publisher.contract):
        return _ArrayBurst(publisher, messages)
    fast = publisher._fast_type
    if fast is not None and isinstance(messages, (list, tuple)) and set(map(type, messages)) == {fast}:
        return _ListBurst(publisher, messages)
    return _IteratorBurst(publisher, messages)
