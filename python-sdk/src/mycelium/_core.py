"""The core of a channel: its state, the control frames, and all waiting; the public class is in ``channel.py``."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from . import _control as control
from . import _layout as layout
from ._batch import Batch
from ._contracts import Registry
from ._differences import ContractDifference
from ._doorbell import SpinBudget, deadline_after
from ._dynamic import DynamicMessage
from ._establish import establish
from ._frame import FrameHeader, decode_control, encode_frame, header_word, record_len
from ._handshake import fallback_name
from ._link import Link
from ._message import STALE, Message
from .exceptions import (
    ChannelClosed,
    ChannelFull,
    ContractMismatch,
    FrameTooLarge,
    LinkFailed,
    PeerLost,
    ProtocolError,
    UnknownTopic,
)

__all__ = ["ChannelCore"]

_log = logging.getLogger("mycelium")
_SPIN_ROUND = range(64)


class ChannelCore:
    """State and waiting of a channel."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str = "",
        token: str = "",
        transport: str = "auto",
        contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = None,
        timeout: float = 5.0,
        spin_us: int | None = None,
    ) -> None:
        self._closed = False
        self._current: Any = None  # what the user holds: a message or a batch
        self._reserved = False
        self._shutdown: control.Shutdown | None = None
        self._shutdown_at: int | None = None
        self._failure: LinkFailed | None = None
        self._replies: dict[tuple[int, int], control.TopicReply] = {}
        self._skipped: dict[int, int] = {}
        self._rejected: dict[int, int] = {}
        self._missed: dict[int, int] = {}
        self._timeout = timeout
        self._registry = Registry(contracts)
        try:
            made = establish(
                sock,
                name=name,
                token=token,
                transport=transport,
                schema_digest=self._registry.schema_digest,
                offer=self._registry.offer,
                timeout=timeout,
                held=self._held,
            )
        except BaseException:
            sock.close()
            raise
        self._link: Link = made.link
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
        self._spin = SpinBudget(welcome.spin_us if spin_us is None else spin_us)
        self._registry.forget_longer_than(welcome.max_payload)
        self._largest_in: int = welcome.max_payload
        self.contract_differences = made.differences
        for difference in made.differences:
            if not difference.compatible:
                self._registry.refuse(difference.topic_id)
                self._registry.refuse(difference.peer_topic_id or 0)
        self._fixed = self._registry.fixed

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

    def _unusual(self, deadline: int | None) -> DynamicMessage | None:
        """Handles a header word that is not the one of a known message of fixed size, or waits if there is none.

        Returns:
            A message without fixed layout; None: look again.
        """
        consumer = self._consumer
        word = consumer.word
        value = consumer.words[word]
        if value == 0:
            self._wait_for_data(deadline)
            return None
        header = consumer.inspect(value)
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
        consumer.cross(word, word + record_len(header.payload_len) // 8)
        contract = self._registry.dynamic.get(header.topic_id)
        message: DynamicMessage | None = None
        if contract is not None and header.encoding == contract.ENCODING and header.payload_len <= contract.MAX_SIZE:
            message = contract._received(consumer.views, word + 1, header.payload_len)
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
        self._current = message
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

    def _refusing(self, topic_id: int) -> tuple[ContractDifference, ...]:
        return tuple(it for it in self.contract_differences if it.refuses(topic_id))

    # ---- waiting

    def _deadline(self, timeout: float | None) -> int | None:
        return deadline_after(timeout)

    def _left_ms(self, deadline: int | None) -> float | None:
        """Milliseconds until the deadline; 0 once it has passed, None for never."""
        return None if deadline is None else max(deadline - time.monotonic_ns(), 0) / 1e6

    def _wait_for_data(self, deadline: int | None) -> None:
        """Waits until there is something to look at.

        Raises:
            TimeoutError, ChannelClosed, PeerLost, LinkFailed: There will be nothing, or not in time.
        """
        link, consumer, spin = self._link, self._consumer, self._spin
        link.idle()
        if self._left_ms(deadline) == 0:
            self._handle_control(ahead=False)
            if consumer.has_data:
                return
            self._check_alive()
            raise TimeoutError("no message in time")
        while True:
            if spin.current_ns:
                if link.spin(spin.current_ns):
                    spin.succeeded()
                    return
                spin.failed()
            if self._ended():
                self._handle_control(ahead=False)
            if consumer.has_data:
                return
            self._check_alive()
            left = self._left_ms(deadline)
            if left == 0:
                raise TimeoutError("no message in time")
            parked_at = time.monotonic_ns()
            link.park(left)
            spin.parked_for(time.monotonic_ns() - parked_at)
            self._drain_control()
            if consumer.has_data:
                return

    def _claim(self, count: int, deadline: int | None) -> int:
        """Makes room for a record of so many words, waiting if need be; returns its word."""
        self._check_open()
        if self._reserved:
            raise RuntimeError("a reservation is open on this channel; leave its block before sending")
        link = self._link
        producer = link.producer
        payload_len = count * 8 - 8
        if payload_len > (self.max_payload + 7) & ~7:
            text = f"frame too large: payload_len={payload_len}, legal: 0..={self.max_payload}; enlarge ring_capacity"
            raise FrameTooLarge(text, payload_len=payload_len, max_payload=self.max_payload)
        while True:
            word = producer.claim(count)
            if word >= 0:
                return word
            if self._left_ms(deadline) != 0 and self._spin_for_room(count):
                continue
            left = self._left_while_blocked(deadline)
            if left == 0:
                text = f"no room in time: link={self.name} needed={count * 8} free={producer.free}"
                raise ChannelFull(
                    f"{text}; send again later or enlarge ring_capacity", needed=count * 8, free=producer.free
                )
            link.park_for_room(count, left)

    def _left_while_blocked(self, deadline: int | None) -> float | None:
        """Milliseconds that a blocked sender may go on waiting, once the socket has been looked at.

        Raises:
            PeerLost, LinkFailed: Nothing will ever be taken.
            ChannelClosed: The time that the bridge's shutdown leaves is over.
        """
        link = self._link
        self._handle_control(ahead=True)
        if self._failure is not None:
            raise self._failure
        if link.eof or link.writer.lost:
            raise PeerLost(f"bridge hung up: link={self.name} transport={self.transport}")
        left = self._left_ms(deadline)
        ending = self._left_ms(self._shutdown_at)
        if self._shutdown is None or ending is None:
            return left
        if ending == 0:
            raise ChannelClosed("bridge is shutting down and takes nothing more", reason=self._shutdown.reason)
        return ending if left is None else min(left, ending)

    def _spin_for_room(self, count: int) -> bool:
        if self.transport != "shm":
            return False
        has_room = self._link.producer.has_room
        end = time.monotonic_ns() + self._spin.current_ns
        while time.monotonic_ns() < end:
            for _ in _SPIN_ROUND:
                if has_room(count):
                    return True
        return False

    def _flush(self, deadline: int | None) -> None:
        """Waits until the socket has taken the rest of a frame that it took in part (socket transport only)."""
        link = self._link
        while link.writer.pending:
            left = self._left_while_blocked(deadline)
            if left == 0:
                return
            link.park_for_room(0, left)

    # ---- control frames

    def _ended(self) -> bool:
        return self._shutdown is not None or self._link.eof

    def _handle_control(self, *, ahead: bool) -> None:
        self._link.receive_control(ahead=ahead)
        self._drain_control()

    def _drain_control(self) -> None:
        frames = self._link.control
        while frames:
            self._on_control(*frames.popleft())

    def _on_control(self, header: FrameHeader, payload: bytes) -> None:
        topic_id = header.topic_id
        if topic_id == control.TopicReply.TOPIC_ID:
            reply = decode_control(control.TopicReply, payload)
            if reply.request:
                self._replies[reply.request, reply.topic_id] = reply
                return
            seen = self._rejected.get(reply.topic_id, 0)
            self._rejected[reply.topic_id] = seen + 1
            if not seen:
                _log.warning(
                    "bridge dropped a published frame: link=%s topic_id=%d %s", self.name, reply.topic_id, reply.reason
                )
        elif topic_id == control.Gap.TOPIC_ID:
            self._on_gap(decode_control(control.Gap, payload))
        elif topic_id == control.Shutdown.TOPIC_ID:
            self._shutdown = decode_control(control.Shutdown, payload)
            self._shutdown_at = time.monotonic_ns() + self._shutdown.deadline_ms * 1_000_000
        elif topic_id == control.LinkError.TOPIC_ID:
            error = decode_control(control.LinkError, payload)
            code = int(error.code)
            self._failure = LinkFailed(
                f"bridge ended the link: link={self.name} code={code} {error.message}", code=code
            )
        else:
            raise ProtocolError(f"unexpected control frame: topic_id={topic_id} payload_len={header.payload_len}")

    def _on_gap(self, gap: control.Gap) -> None:
        seen = self._missed.get(gap.topic_id, 0)
        self._missed[gap.topic_id] = seen + gap.missed
        if not seen:
            _log.warning(
                "bridge dropped frames for this link: link=%s topic_id=%d missed=%d total=%d; further are only counted",
                self.name,
                gap.topic_id,
                gap.missed,
                gap.total,
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelClosed

    def _check_alive(self) -> None:
        """Raises if nothing can come any more; called when nothing is left to read."""
        if self._failure is not None:
            raise self._failure
        if self._shutdown is not None:
            raise ChannelClosed("bridge has shut down and nothing is left", reason=self._shutdown.reason)
        if self._link.eof:
            raise PeerLost(f"bridge hung up without a shutdown: link={self.name} transport={self.transport}")

    def _request(self, request: int, contract: type[Any], payload: bytes) -> None:
        """Sends a request and waits for its TopicReply; data frames stay where they are."""
        self._check_open()
        deadline = deadline_after(self._timeout)
        key = (request, contract.TOPIC_ID)
        self._replies.pop(key, None)
        self._link.writer.write(encode_frame(request, payload))
        while True:
            self._handle_control(ahead=True)
            reply = self._replies.pop(key, None)
            if reply is not None:
                break
            if self._failure is not None:
                raise self._failure
            if self._link.eof or self._link.writer.lost:
                raise PeerLost(f"bridge hung up: request={request} topic_id={contract.TOPIC_ID}")
            left = self._left_ms(deadline)
            if not left:
                text = f"no reply in time: request={request} topic_id={contract.TOPIC_ID} timeout_s={self._timeout}"
                raise TimeoutError(text)
            self._link.wait_control(left)
        code = int(reply.code)
        if code == control.TopicReplyCode.OK:
            return
        text = f"bridge refused: message={contract.NAME} topic_id={contract.TOPIC_ID} code={code} {reply.reason}"
        if code == control.TopicReplyCode.UNKNOWN_TOPIC:
            raise UnknownTopic(text, topic_id=contract.TOPIC_ID)
        self._registry.refuse(contract.TOPIC_ID)
        differences = self._refusing(contract.TOPIC_ID)
        raise ContractMismatch(
            "; ".join([text, *(it.text for it in differences if it.text not in text)]),
            topic_id=contract.TOPIC_ID,
            expected=next((it.expected for it in differences), b""),
            actual=layout_digest(contract),
            differences=differences,
        )


def layout_digest(contract: Any) -> bytes:
    """Returns the digest of a message's layout; zeros where it has none."""
    return bytes(getattr(contract, "LAYOUT_DIGEST", bytes(32)))
