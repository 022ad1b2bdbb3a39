"""The channel: one connection between this process and a bridge.

A channel belongs to one thread. Received messages are windows into shared memory (or into the receive buffer): each is
valid until the next step, and raises :class:`StaleMessageError` afterwards; ``message.copy()`` keeps one. Going on is
the acknowledgement: a process that dies while it handles a message gets, or its successor gets, that message again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _control as control
from ._batch import Batch, Run, find_run
from ._core import ChannelCore, layout_digest
from ._doorbell import deadline_after
from ._frame import encode_frame
from ._handshake import truncate
from ._message import STALE
from ._publisher import Publisher
from .exceptions import ChannelClosed

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Channel", "Statistics"]

_new = object.__new__
_GOODBYE_NS = 1_000_000_000
_REASON_LEN = 120
MessageT = TypeVar("MessageT")


class Statistics(NamedTuple):
    """Counters of one channel since it was connected.

    Attributes:
        frames_in: Messages received. A running ``for`` loop adds its own now and then, at the latest when it waits.
        bytes_in: Bytes of records received, padding included.
        frames_out: Messages sent.
        bytes_out: Bytes of records sent, padding included.
        frames_skipped: Frames that came and whose topic no known message has.
        frames_rejected: Notices of the bridge that it dropped a frame of ours.
        frames_missed: Frames of subscribed topics that the bridge dropped on their way here, by the policy of the
            subscription, as far as it has told.
        parks: How often this side went to sleep.
        wakeups_sent: How often this side rang the bridge's doorbell.
        wakeups_received: How often something ended a sleep of this side.
    """

    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    frames_skipped: int
    frames_rejected: int
    frames_missed: int
    parks: int
    wakeups_sent: int
    wakeups_received: int


class Channel(ChannelCore):
    """A connection to a bridge; made by :func:`mycelium.connect`.

    Attributes:
        name: Name of the link in the bridge.
        transport: ``"shm"`` or ``"socket"``.
        fallback_code: Name of the reason why the transport is not shared memory; ``"NONE"`` where it is.
        fallback_reason: The same as a sentence; empty where it is.
        settings: The worker's settings from the bridge's configuration.
        epoch: How often this link has been handed to a process, counted from 1.
        fencing: ``"asymmetric"``, or ``"fenced"`` where membarrier is missing and sleeps are bounded to 1 ms.
        max_payload: Longest payload that can be published, in bytes.
        contract_differences: What differs between the contracts of the bridge and of this side, as a tuple of
            :class:`mycelium.ContractDifference`; empty where they are the same, or this side gave none.
    """

    # ---- topics

    def subscribe(self, *contracts: type[Any]) -> None:
        """Asks for every frame of these messages, and waits for the bridge's answers.

        Raises:
            UnknownTopic: The bridge has no such topic.
            ContractMismatch: The bridge's layout differs; nothing is subscribed from there on.
            TimeoutError: No answer in time.
        """
        for contract in contracts:
            self._registry.check(contract)
            request = control.Subscribe(topic_id=contract.TOPIC_ID, layout_digest=layout_digest(contract))
            self._request(control.Subscribe.TOPIC_ID, contract, request.to_bytes())
            # No frame has been looked at meanwhile, so none was taken for an unknown one.
            self._registry.add(contract)
            self._registry.forget_longer_than(self._largest_in)

    def unsubscribe(self, *contracts: type[Any]) -> None:
        """Ends subscriptions; frames that are already on their way still come."""
        for contract in contracts:
            request = control.Unsubscribe(topic_id=contract.TOPIC_ID)
            self._request(control.Unsubscribe.TOPIC_ID, contract, request.to_bytes())

    def publisher(self, contract: type[MessageT]) -> Publisher[MessageT]:
        """Announces that this side is going to publish a message, and returns its publisher.

        Raises:
            UnknownTopic: The bridge has no such topic.
            ContractMismatch: The bridge's layout differs.
            FrameTooLarge: The message does not fit into this link.
            TimeoutError: No answer in time.
        """
        self._registry.check(contract)
        publisher = Publisher(self, contract)
        kind: Any = contract
        request = control.Advertise(topic_id=kind.TOPIC_ID, layout_digest=layout_digest(kind))
        self._request(control.Advertise.TOPIC_ID, kind, request.to_bytes())
        self._registry.add(contract)
        self._registry.forget_longer_than(self._largest_in)
        return publisher

    # ---- receiving

    def recv(self, timeout: float | None = None) -> Any:
        """Returns the next message; the one before it becomes stale and is acknowledged.

        Args:
            timeout: Longest wait in seconds; None for ever, 0 to look once.

        Raises:
            TimeoutError: No message in time.
            ChannelClosed: The channel is closed, or the bridge has shut down and nothing is left.
            PeerLost: The bridge vanished, and nothing is left.
            SegmentCorrupt: The bridge's words in shared memory are impossible.
        """
        self._release_current()
        self._check_open()
        consumer = self._consumer
        deadline: int | None = -1
        while True:
            word = consumer.word
            entry = self._fixed.get(consumer.words[word])
            if entry is not None:
                count, contract = entry
                next_word = word + count
                if next_word < consumer.limit:
                    consumer.word = next_word
                elif consumer.cross(word, next_word) < 0:
                    continue
                consumer.frames += 1
                message: Any = _new(contract)
                message._views = consumer.views
                message._word = word + 1
                self._current = message
                return message
            if deadline == -1:
                deadline = deadline_after(timeout)
            message = self._unusual(deadline)
            if message is not None:
                return message

    def __iter__(self) -> Iterator[Any]:
        """Yields messages, each valid until the next step, until the bridge has shut down and nothing is left.

        Raises:
            PeerLost: The bridge vanished, and nothing is left.
        """
        self._release_current()
        self._check_open()
        consumer = self._consumer
        find = self._fixed.get
        new = _new
        taken = 0
        try:
            while True:
                words, views = consumer.words, consumer.views
                word, limit = consumer.word, consumer.limit
                while True:
                    entry = find(words[word])
                    if entry is None:
                        break
                    count, contract = entry
                    next_word = word + count
                    if next_word < limit:
                        consumer.word = next_word
                    else:
                        next_word = consumer.cross(word, next_word)
                        if next_word < 0:
                            break
                        limit = consumer.limit
                    message: Any = new(contract)
                    message._views = views
                    message._word = word + 1
                    self._current = message
                    taken += 1
                    yield message
                    if self._current is not message:  # The loop's body has gone on by other means.
                        self._release_current()
                        break
                    message._views = STALE
                    word = next_word
                consumer.frames += taken
                taken = 0
                self._current = None
                if consumer.words[consumer.word] in self._fixed:
                    continue
                try:
                    dynamic = self._unusual(None)
                except ChannelClosed:
                    return
                if dynamic is not None:
                    yield dynamic
                    self._release_current()
        except ValueError:
            # The loop's body has closed the channel, which released the words.
            if not self._closed:
                raise
        finally:
            consumer.frames += taken

    def recv_batch(self, limit: int = 1024, timeout: float | None = None) -> Batch:
        """Returns everything that is there, as one batch; waits until there is something.

        Args:
            limit: Most messages of the batch.
            timeout: Longest wait in seconds; None for ever, 0 to look once.

        Raises:
            TimeoutError: No message in time; the rest as :meth:`recv`.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}, legal: 1 or more")
        self._release_current()
        self._check_open()
        deadline: int | None = -1
        while True:
            batch = self._take_batch(limit)
            if batch is None:
                if deadline == -1:
                    deadline = deadline_after(timeout)
                word = self._consumer.word
                dynamic = self._unusual(deadline)
                if dynamic is None:
                    continue
                batch = Batch(self, self._consumer.views, word, [], dynamic)
            self._current = batch
            return batch

    def batches(self, limit: int = 1024) -> Iterator[Batch]:
        """Yields batches, each valid until the next step, until the bridge has shut down and nothing is left.

        Args:
            limit: Most messages of one batch.
        """
        while not self._closed:
            try:
                batch = self.recv_batch(limit)
            except ChannelClosed:
                return
            yield batch

    def _take_batch(self, limit: int) -> Batch | None:
        consumer = self._consumer
        words, end, find = consumer.words, consumer.end, self._fixed.get
        first = word = consumer.word
        runs: list[Run] = []
        while limit and word < end:
            header = words[word]
            entry = find(header)
            if entry is None:
                break
            count, contract = entry
            length = find_run(words, header, word, end, count, limit)
            if word + count * length > end:
                if not runs:
                    consumer.cross(word, word + count)  # hides an incomplete frame, or tells what is corrupt
                break
            runs.append(Run(contract, word, count, length))
            word += count * length
            limit -= length
        if not runs:
            return None
        if word < consumer.limit:
            consumer.word = word
        else:
            consumer.cross(first, word)
        consumer.frames += sum(run.length for run in runs)
        return Batch(self, consumer.views, first, runs)

    def acknowledge(self) -> None:
        """Releases and acknowledges what is in hand, without going on to the next message."""
        self._check_open()
        self._release_current()
        self._link.acknowledge()

    def fileno(self) -> int:
        """Returns a descriptor to wait on with ``select`` and the like: the doorbell, or the socket.

        It becomes readable only after :meth:`arm`. In shared memory the bridge's shutdown or end is noticed by the
        next ``recv(timeout=0)``, not by this descriptor.
        """
        return -1 if self._closed else self._link.fileno()

    def arm(self) -> bool:
        """Prepares for waiting on :meth:`fileno`: asks the bridge to wake this side.

        Returns:
            True: wait now, then call :meth:`disarm`. False: something is there already, do not wait.
        """
        self._check_open()
        self._release_current()
        self._link.idle()
        return self._link.arm()

    def disarm(self) -> None:
        """Ends :meth:`arm` and takes the wakeup off the descriptor."""
        self._check_open()
        self._link.disarm()

    # ---- the end

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def statistics(self) -> Statistics:
        """Returns the counters; they are still there after :meth:`close`."""
        if self._closed:
            return self._last_statistics
        link, consumer, producer = self._link, self._consumer, self._link.producer
        return Statistics(
            frames_in=consumer.frames,
            bytes_in=consumer.byte_count,
            frames_out=producer.frames,
            bytes_out=producer.byte_count,
            frames_skipped=sum(self._skipped.values()),
            frames_rejected=sum(self._rejected.values()),
            frames_missed=sum(self._missed.values()),
            parks=link.parks,
            wakeups_sent=link.wakeups_sent,
            wakeups_received=link.wakeups_received,
        )

    def close(self, reason: str = "") -> None:
        """Says goodbye and gives everything back; may be called again, and never raises BufferError.

        A message or batch in hand becomes stale and is *not* acknowledged: it goes to the successor. Going on,
        :meth:`acknowledge`, or leaving ``with channel`` without an exception acknowledges it.

        Args:
            reason: For the bridge's log; cut to 120 bytes.
        """
        if self._closed:
            return
        self._last_statistics = self.statistics()
        self._closed = True
        link = self._link
        try:
            link.acknowledge()
            if not link.eof:
                goodbye = control.Goodbye(reason=truncate(reason, _REASON_LEN))
                link.writer.write(encode_frame(control.Goodbye.TOPIC_ID, goodbye.to_bytes()))
                link.writer.flush_until(time.monotonic_ns() + _GOODBYE_NS)
        finally:
            self._release_current()
            link.producer.limit = -1  # Every later send takes the long way, which finds the channel closed.
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._release_current()
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<mycelium.Channel name={self.name!r} transport={self.transport} {state}>"
