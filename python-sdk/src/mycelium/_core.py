"""The core of a channel: taking, and everything that happens while nothing is there; the subclasses do the sleeping.

A wait is always the same: look, handle what came besides data, and say how long to sleep
(:meth:`ChannelCore._before_sleep`, :meth:`ChannelCore._blocked`). :class:`mycelium.Channel` sleeps in a system call,
:class:`mycelium.aio.AsyncChannel` in a future; nothing else differs.
"""

from __future__ import annotations

import logging
import os
import socket
import weakref
from collections.abc import Callable, Iterable
from threading import Lock
from types import ModuleType
from typing import Any

from . import _control as control
from . import _layout as layout
from ._batch import Batch, Run, find_run
from ._contracts import Registry
from ._delivery import Delivery, delivery_code
from ._differences import ContractDifference
from ._doorbell import SpinBudget
from ._dynamic import DynamicMessage
from ._establish import establish
from ._frame import FrameHeader, encode_frame, header_word, record_len
from ._handshake import fallback_name, truncate
from ._inbox import layout_digest
from ._link import Link
from ._message import STALE, Message
from ._outbox import Outbox
from ._statistics import LinkCounts, LostCounts, Statistics
from ._waits import Steps
from .events import Event
from .exceptions import ChannelClosed

__all__ = ["ChannelCore"]

_log = logging.getLogger("mycelium")
_new = object.__new__
_GOODBYE_NS = 1_000_000_000
_REASON_LEN = 120
READY = -1.0
"""Instead of a time to sleep: there is something, do not."""


class ChannelCore(Outbox):
    """State of a channel, and its steps that do not wait."""

    def __init__(
        self,
        *,
        contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = None,
        timeout: float = 5.0,
        spin_us: int | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        super().__init__(timeout=timeout, on_event=on_event)
        self._current: Any = None  # what the user holds: a message or a batch
        self._skipped: dict[int, int] = {}
        self._spin_us = spin_us
        self._established = False
        self._inherited = False  # by the child of a fork
        self._contracts: Any = contracts if contracts is None or isinstance(contracts, ModuleType) else list(contracts)
        self._registry = Registry(self._contracts)
        self._wanted: dict[tuple[int, int], tuple[type[Any], bytes]] = {}  # requests to make again on another link
        self._publishers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._left: list[tuple[Link, Any]] = []  # lost links, each with what the user holds of it
        self._left_sums = LinkCounts()
        self._lost_counts = LostCounts()

    def _open_steps(
        self, sock: socket.socket, *, name: str = "", token: str = "", transport: str = "auto"
    ) -> Steps[None]:
        """Runs the handshake on a connected socket, which is closed if that fails."""
        try:
            made = yield from establish(
                sock,
                name=name,
                token=token,
                transport=transport,
                schema_digest=self._registry.schema_digest,
                offer=self._registry.offer,
                timeout=self._timeout,
                held=self._held,
            )
        except BaseException:
            sock.close()
            raise
        if self._established:
            self._leave_link(made.link)
        self._link = made.link
        self._consumer: Any = made.link.consumer
        welcome = made.welcome
        self.name: str = welcome.name
        self.transport: str = made.link.transport
        self.fallback_code = fallback_name(made.fallback_code)
        self.fallback_reason = made.fallback_reason
        self.settings = made.settings
        self.epoch: int = welcome.epoch
        self.fencing = made.fencing
        self.max_payload: int = made.link.max_payload
        self._spin = SpinBudget(welcome.spin_us if self._spin_us is None else self._spin_us)
        self._registry.forget_longer_than(welcome.max_payload)
        self._largest_in: int = welcome.max_payload
        self.contract_differences: tuple[ContractDifference, ...] = made.differences
        for difference in made.differences:
            if not difference.compatible:
                self._registry.refuse(difference.topic_id)
                self._registry.refuse(difference.peer_topic_id or 0)
        self._fixed = self._registry.fixed
        self._established = True
        self._link.receiver = self._owner
        _channels.add(self)

    # ---- losing a link and having another one

    def _lose_link(self) -> tuple[int, int]:
        """Stops sending over the lost link; returns the frames that are known to be unsent and unread."""
        link = self._link
        self._down = True
        self._reserved = None
        link.producer.shut = True
        link.producer.limit = -1
        unsent, unread = link.left_behind()
        lost = self._lost_counts
        self._lost_counts = lost._replace(disconnects=lost.disconnects + 1, frames=lost.frames + unsent + unread)
        if not link.eof:
            link.writer.write(encode_frame(control.Goodbye.TOPIC_ID, control.Goodbye().to_bytes()))
        return unsent, unread

    def _leave_link(self, successor: Link) -> None:
        """Goes over to another link. What the user holds stays valid until the next step."""
        old, self._left_sums = self._link, self._sums()
        self._left.append((old, self._current))
        self._current = None
        self._shutdown = self._shutdown_at = self._failure = None
        self._replies.clear()
        successor.producer.shut = True  # until everything is restored
        successor.producer.limit = -1
        for publisher in list(self._publishers):
            publisher._go_over(successor.producer, successor.max_payload)

    def _forget_left(self) -> None:
        """Closes lost links, now that nothing of them is in the user's hands any more."""
        while self._left:
            link, held = self._left.pop()
            self._current, current = held, self._current
            self._release_current()
            self._current = current
            link.consumer.detach_arrays()
            link.close()

    def _restore_steps(self) -> Steps[None]:
        for (request, _), (contract, payload) in list(self._wanted.items()):
            yield from self._request_steps(request, contract, payload)
            self._registry.add(contract)
        self._registry.forget_longer_than(self._largest_in)

    # ---- what the user holds

    def _held(self) -> int | None:
        current = self._current
        return None if current is None else current._word - 1

    def _forget(self, batch: Batch) -> None:
        if self._current is batch:
            self._current = None

    def _release_current(self) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        if isinstance(current, Batch):
            current.release()
        elif isinstance(current, Message):
            current._views = STALE
        else:
            current._release()

    # ---- frames that are not the usual ones

    def _take(self) -> Any:
        """Takes the next message if it is of a known class and of fixed size; None: :meth:`_look` at what is there."""
        consumer = self._consumer
        while True:
            word = consumer.word
            entry = self._fixed.get(consumer.words[word])
            if entry is None:
                return None
            count, contract = entry
            next_word = word + count
            message: Any = _new(contract)
            message._views = consumer.views
            message._word = word + 1
            # In hand before it is taken: what a signal handler interrupts is not acknowledged without having been seen.
            self._current = message
            if next_word < consumer.limit:
                consumer.word = next_word
            elif consumer.cross(word, next_word) < 0:
                self._current = None
                return None
            consumer.frames += 1
            return message

    def _take_batch(self, limit: int, one_class: bool = False) -> Batch | None:
        """Takes what is there, up to so many messages; None: :meth:`_look` at what is there."""
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
            if length > 1 and consumer.barrier is not None:
                # A header may have been looked at before the one in front of it, and be left over from another lap.
                consumer.barrier()
                length = find_run(words, header, word, end, count, length)
            if word + count * length > end:
                if not runs:
                    consumer.cross(word, word + count)  # hides an incomplete frame, or tells what is corrupt
                break
            runs.append(Run(contract, word, count, length))
            word += count * length
            limit -= length
            if one_class:
                break
        if not runs:
            return None
        batch = self._current = Batch(self, consumer.views, first, runs)
        if word < consumer.limit:
            consumer.word = word
        else:
            consumer.cross(first, word)
        consumer.frames += sum(run.length for run in runs)
        return batch

    def _look(self) -> DynamicMessage | None:
        """Handles a header word that is not 0 and not the one of a known message of fixed size.

        Returns:
            A message without fixed layout; None: look again.
        """
        consumer = self._consumer
        word = consumer.word
        value = consumer.words[word]
        header = consumer.inspect(value) if value else None
        if header is None:
            return None
        if header.topic_id <= layout.CORE_TOPIC_MAX:
            payload = consumer.payload(word, header)
            consumer.skip_control(header)
            self._on_control(header, payload)
            return None
        return self._unknown(word, header)

    def _unknown(self, word: int, header: FrameHeader) -> DynamicMessage | None:
        """Takes a message without fixed layout, or skips what no known message has."""
        consumer = self._consumer
        value = header_word(header.payload_len, header.topic_id, header.flags & layout.FLAG_ENCODING_MASK)
        if value in self._fixed:
            # A known message with flags of a later version, which are ignored: known from here on.
            self._fixed[header_word(*header)] = self._fixed[value]
            return None
        contract = self._registry.dynamic.get(header.topic_id)
        message: DynamicMessage | None = None
        if contract is not None and header.encoding == contract.ENCODING and header.payload_len <= contract.MAX_SIZE:
            message = self._current = contract._received(consumer.views, word + 1, header.payload_len)
        consumer.cross(word, word + record_len(header.payload_len) // 8)
        if message is not None:
            consumer.frames += 1
        else:
            seen = self._skipped.get(header.topic_id, 0)
            self._skipped[header.topic_id] = seen + 1
            if not seen:
                _log.warning(
                    "skipping frames: link=%s topic_id=%d payload_len=%d flags=%#x; %s",
                    self.name,
                    header.topic_id,
                    header.payload_len,
                    header.flags,
                    self._why_skipped(contract, header),
                )
        return message

    def _why_skipped(self, contract: type[DynamicMessage] | None, header: FrameHeader) -> str:
        if contract is not None:
            return (
                f"they do not fit {contract.NAME}: encoding expected={contract.ENCODING} actual={header.encoding}, "
                f"payload_len legal: 0..={contract.MAX_SIZE}"
            )
        for difference in self._refusing(header.topic_id):
            return f"the layouts of both sides differ: {difference.text}"
        return "no known message has this header; pass its module as contracts to connect()"

    # ---- waiting

    def _spin_for_data(self, deadline: int | None) -> bool:
        """Spins for as long as it has paid lately; whether there is something now."""
        spin = self._spin
        if not spin.current_ns or self._left_ms(deadline) == 0:
            return False
        if self._link.spin(spin.current_ns):
            spin.succeeded()
            return True
        spin.failed()
        return False

    def _before_sleep(self, deadline: int | None) -> float | None:
        """Looks at everything before a sleep: the socket where the end is near, the deadline, data that came meanwhile.

        Returns:
            :data:`READY`; or the longest sleep in milliseconds, None for any.

        Raises:
            TimeoutError, ChannelClosed, PeerLost, LinkFailed: There will be nothing, or not in time.
        """
        left = self._left_ms(deadline)
        if self._ended() or left == 0 or self._link.unhandled:
            self._handle_control(ahead=False)
        if self._events:
            self._deliver()
        if self._left and self._current is None:
            self._forget_left()
        if self._consumer.has_data:
            return READY
        self._check_alive()
        if left == 0:
            raise TimeoutError("no message in time")
        return left

    # ---- topics

    def _subscribe_steps(self, contracts: tuple[type[Any], ...], delivery: Delivery | None) -> Steps[None]:
        code = delivery_code(delivery)
        self._check_open()
        self._check_thread(receives=False)
        for contract in contracts:
            self._registry.check(contract)
            request = control.Subscribe(
                topic_id=contract.TOPIC_ID, layout_digest=layout_digest(contract), delivery=code
            )
            yield from self._want_steps(control.Subscribe.TOPIC_ID, contract, request.to_bytes())
            # No frame has been looked at meanwhile, so none was taken for an unknown one.
            self._registry.add(contract)
            self._registry.forget_longer_than(self._largest_in)

    def _want_steps(self, request: int, contract: type[Any], payload: bytes) -> Steps[None]:
        """Makes a request that is made again on the next link."""
        yield from self._request_steps(request, contract, payload)
        self._wanted[request, contract.TOPIC_ID] = (contract, payload)

    def _unsubscribe_steps(self, contracts: tuple[type[Any], ...]) -> Steps[None]:
        self._check_open()
        self._check_thread(receives=False)
        for contract in contracts:
            self._wanted.pop((control.Subscribe.TOPIC_ID, contract.TOPIC_ID), None)
            self._deliveries.pop(contract.TOPIC_ID, None)
            request = control.Unsubscribe(topic_id=contract.TOPIC_ID)
            yield from self._request_steps(control.Unsubscribe.TOPIC_ID, contract, request.to_bytes())

    def _advertise_steps(self, contract: type[Any]) -> Steps[None]:
        self._check_thread(receives=False)
        request = control.Advertise(topic_id=contract.TOPIC_ID, layout_digest=layout_digest(contract))
        yield from self._want_steps(control.Advertise.TOPIC_ID, contract, request.to_bytes())
        self._registry.add(contract)
        self._registry.forget_longer_than(self._largest_in)

    # ---- what both kinds of channel offer

    def delivery(self, contract: type[Any]) -> Delivery | None:
        """Returns the policy of a subscription as the bridge last told it; None where there is no subscription.

        A worker's configuration may name another policy than :meth:`subscribe` asked for. Topics that the bridge
        delivers without being asked are not known here.
        """
        return self._deliveries.get(contract.TOPIC_ID)

    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
        return self._closed

    def fileno(self) -> int:
        """Returns a descriptor to wait on with ``select`` and the like; -1 once the channel is closed.

        It becomes readable for messages after :meth:`Channel.arm`, and for shutdown and hang-up at any time. Several
        channels and other descriptors in one loop::

            with selectors.DefaultSelector() as selector:
                for channel in channels:
                    selector.register(channel, selectors.EVENT_READ)
                while True:
                    armed = [channel.arm() for channel in channels]
                    selector.select(None if all(armed) else 0)
                    for channel in channels:
                        channel.disarm()
                        with contextlib.suppress(TimeoutError):
                            while True:
                                handle(channel.recv(timeout=0))

        Where ``channel.fencing`` is ``"fenced"``, wait for 1 ms at most.
        """
        return -1 if self._closed else self._link.fileno()

    def statistics(self) -> Statistics:
        """Returns the counters; they are still there after :meth:`close`."""
        if self._closed:
            return self._last_statistics
        arrays_held, bytes_held = self._consumer.pins.held()
        lost = self._lost_counts
        return Statistics(
            **self._sums()._asdict(),
            frames_skipped=sum(self._skipped.values()),
            frames_rejected=sum(self._rejected.values()),
            frames_missed=sum(self._missed.values()),
            arrays_held=arrays_held,
            bytes_held=bytes_held,
            disconnects=lost.disconnects,
            frames_lost=lost.frames,
        )

    def _sums(self) -> LinkCounts:
        """What the links have counted, those that were lost included."""
        link, consumer, producer = self._link, self._consumer, self._link.producer
        now = (
            consumer.frames,
            consumer.byte_count,
            producer.frames,
            producer.byte_count,
            link.parks,
            link.wakeups_sent,
            link.wakeups_received,
        )
        return LinkCounts(*map(sum, zip(now, self._left_sums)))

    def _farewell(self, reason: str) -> None:
        """Marks the channel closed, acknowledges what is released, and writes a goodbye without waiting."""
        self._last_statistics = self.statistics()
        self._closed = True
        link = self._link
        self._consumer.detach_arrays()
        link.acknowledge()
        if not link.eof:
            goodbye = control.Goodbye(reason=truncate(reason, _REASON_LEN))
            link.writer.write(encode_frame(control.Goodbye.TOPIC_ID, goodbye.to_bytes()))

    def _give_back(self) -> None:
        """Makes everything in hand stale and gives everything back."""
        if self._recovery is not None:
            self._recovery.end()
        self._release_current()
        self._forget_left()
        self._link.producer.limit = -1  # Every later send takes the long way, which finds the channel closed.
        self._link.close()

    def _forked(self) -> None:
        """In the child of a fork: the connection stays the parent's; the copies of descriptors and memory go."""
        if self._closed:
            return
        self._closed_text = (
            f"connection was inherited by a fork: link={self.name} pid={os.getpid()}; it belongs to the parent, "
            "connect again in this process"
        )
        self._last_statistics = self.statistics()
        self._closed = self._inherited = True
        self._gate = Lock()  # another thread of the parent may have held it
        self._in_gate = 0
        self._reserved = None
        self._give_back()

    def _check_not_forked(self) -> None:
        if self._inherited:
            raise ChannelClosed(self._closed_text)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<mycelium.{type(self).__name__} name={self.name!r} transport={self.transport} {state}>"


_channels: weakref.WeakSet[ChannelCore] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for channel in list(_channels):
        channel._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
