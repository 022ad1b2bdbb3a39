"""The channel: one connection between this process and a bridge.

One thread receives on a channel; any thread may publish.

Received messages are windows into shared memory (or into the receive buffer): each is valid until the next step, and
raises :class:`StaleMessageError` afterwards; ``message.copy()`` keeps one. Going on is the acknowledgement: a process
that dies while it handles a message gets, or its successor gets, that message again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._batch import Batch
from ._core import _GOODBYE_NS, READY, ChannelCore
from ._delivery import Delivery
from ._doorbell import deadline_after
from ._message import STALE
from ._outbox import LOOK_MS
from ._publisher import Publisher
from ._statistics import Statistics
from ._waits import Steps, drive, parted
from .exceptions import ChannelClosed, ChannelError, PeerLost

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Channel", "Statistics"]

_new = object.__new__
MessageT = TypeVar("MessageT")


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

    def __init__(
        self, sock: socket.socket, *, name: str = "", token: str = "", transport: str = "auto", **options: Any
    ) -> None:
        super().__init__(**options)
        drive(self._open_steps(sock, name=name, token=token, transport=transport))

    def _ask(self, make: Callable[[], Steps[None]]) -> None:
        """Makes a request; where the link is lost meanwhile and comes back, once more."""
        while True:
            try:
                return drive(make())
            except PeerLost as error:
                if self._recovery is None or not self._loses(error):
                    raise
                self._recovery.run(error, deadline_after(self._timeout))

    def _repair(self, error: ChannelError, count: int, deadline: int | None) -> None:
        if self._recovery is None:
            raise error
        try:
            self._recovery.run(error, deadline)
        except TimeoutError:
            raise self._full(count) from error

    # ---- topics

    def subscribe(self, *contracts: type[Any], delivery: Delivery | None = None) -> None:
        """Asks for every frame of these messages, and waits for the bridge's answers.

        Args:
            contracts: Message classes.
            delivery: What happens to a message for which this side has no room (:data:`mycelium.Delivery`): its
                publishers wait, or something is dropped, counted, and told by an event. None leaves it to the bridge's
                configuration and the contract. Subscribing again changes it, and what waits still comes first.
                A policy that the configuration names for a worker's topic goes before this one; then a warning is
                logged, and :meth:`delivery` tells.

        Raises:
            UnknownTopic: The bridge has no such topic.
            ContractMismatch: The bridge's layout differs; nothing is subscribed from there on.
            DeliveryRefused: The message has no key in a fixed layout to conflate by, or this endpoint lets nobody hold
                up publishers.
            ValueError: There is no such policy.
            TimeoutError: No answer in time.
        """
        self._ask(lambda: self._subscribe_steps(contracts, delivery))

    def unsubscribe(self, *contracts: type[Any]) -> None:
        """Ends subscriptions; frames that are already on their way still come."""
        self._ask(lambda: self._unsubscribe_steps(contracts))

    def publisher(self, contract: type[MessageT]) -> Publisher[MessageT]:
        """Announces that this side is going to publish a message, and returns its publisher.

        Raises:
            UnknownTopic: The bridge has no such topic.
            ContractMismatch: The bridge's layout differs.
            FrameTooLarge: The message does not fit into this link.
            TimeoutError: No answer in time.
        """
        self._check_open()
        self._registry.check(contract)
        publisher = Publisher(self, contract)
        self._ask(lambda: self._advertise_steps(contract))
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
        if self._closed or self._owner != get_ident():  # asked here, too, to spare the usual call these calls
            self._check_open()
            self._check_thread()
        if self._current is not None:
            self._release_current()
        deadline: int | None = -1
        while True:
            consumer = self._consumer
            if consumer.words[consumer.word]:
                message = self._take()
                if message is not None:
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
        self._check_open()
        self._check_thread()
        self._release_current()
        consumer = self._consumer
        new = _new
        taken = 0
        try:
            while True:
                consumer = self._consumer  # another one once the link was lost and is back
                find = self._fixed.get
                words, views = consumer.words, consumer.views
                word, limit = consumer.word, consumer.limit
                while True:
                    entry = find(words[word])
                    if entry is None:
                        break
                    count, contract = entry
                    next_word = word + count
                    message: Any = new(contract)
                    message._views = views
                    message._word = word + 1
                    self._current = message  # before it is taken, as in _take
                    if next_word < limit:
                        consumer.word = next_word
                    else:
                        next_word = consumer.cross(word, next_word)
                        if next_word < 0:
                            break
                        limit = consumer.limit
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
            # The loop's body has closed the channel, or is the child of a fork: both released the words.
            if not self._closed:
                raise
            self._check_not_forked()
        finally:
            consumer.frames += taken

    def recv_batch(self, limit: int = 1024, timeout: float | None = None, *, one_class: bool = False) -> Batch:
        """Returns everything that is there, as one batch; waits until there is something.

        Args:
            limit: Most messages of the batch.
            timeout: Longest wait in seconds; None for ever, 0 to look once.
            one_class: End the batch where messages of another class begin.

        Raises:
            TimeoutError: No message in time; the rest as :meth:`recv`.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}, legal: 1 or more")
        self._check_open()
        self._check_thread()
        self._release_current()
        deadline: int | None = -1
        while True:
            batch = self._take_batch(limit, one_class)
            if batch is None:
                if deadline == -1:
                    deadline = deadline_after(timeout)
                word = self._consumer.word
                dynamic = self._unusual(deadline)
                if dynamic is None:
                    continue
                batch = self._current = Batch(self, self._consumer.views, word, [], dynamic)
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

    def _unusual(self, deadline: int | None) -> Any:
        """Handles what is no known message of fixed size, or waits where nothing is there.

        Returns:
            A message without fixed layout; None: look again.
        """
        consumer = self._consumer
        if consumer.words[consumer.word]:
            return self._look()
        self._wait_for_data(deadline)
        return None

    def _wait_for_data(self, deadline: int | None) -> None:
        """Waits until there is something to look at.

        Raises:
            TimeoutError, ChannelClosed, PeerLost, LinkFailed: There will be nothing, or not in time.
        """
        if self._down and self._recovery is not None:
            self._recovery.run(PeerLost("link lost"), deadline)
            return
        link, consumer, spin = self._link, self._consumer, self._spin
        link.idle()
        while not self._spin_for_data(deadline):
            try:
                left = self._before_sleep(deadline)
            except (PeerLost, ChannelClosed) as error:
                if self._recovery is None or not self._loses(error):
                    raise
                self._recovery.run(error, deadline)
                return
            if left == READY:
                return
            if not self._may_sleep():
                time.sleep(LOOK_MS / 1e3)  # another thread waits for room, and took the doorbell
                continue
            parked_at = time.monotonic_ns()
            try:
                link.park(left)
                self._drain_control()
            finally:
                self._slept()
            spin.parked_for(time.monotonic_ns() - parked_at)
            if consumer.has_data:
                return

    def acknowledge(self) -> None:
        """Releases and acknowledges what is in hand, without going on to the next message."""
        self._check_open()
        self._check_thread()
        self._release_current()
        self._link.acknowledge()

    def arm(self) -> bool:
        """Prepares for waiting on :meth:`fileno`, where there is an example: asks the bridge to wake this side.

        Returns:
            True: wait now, then call :meth:`disarm`. False: something is there already, do not wait.
        """
        self._check_open()
        self._check_thread()
        self._release_current()
        self._link.acknowledge()  # The caller's event loop keeps no clock for late ones.
        return self._link.arm()

    def disarm(self) -> None:
        """Ends :meth:`arm` and takes the wakeup off the descriptor."""
        self._check_open()
        self._link.lower()
        self._link.take_wakeup()

    # ---- the end

    def close(self, reason: str = "") -> None:
        """Says goodbye and gives everything back; may be called again, and never raises BufferError.

        A message or batch in hand becomes stale and is *not* acknowledged: it goes to the successor. Going on,
        :meth:`acknowledge`, or leaving ``with channel`` without an exception acknowledges it.

        Args:
            reason: For the bridge's log; cut to 120 bytes.
        """
        if self._closed:
            return
        self._check_thread(receives=False)
        try:
            self._farewell(reason)
            drive(parted(self._link.writer, self._link.sock, time.monotonic_ns() + _GOODBYE_NS))
        finally:
            self._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._release_current()
        self.close()
