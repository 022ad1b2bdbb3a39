"""The bridge's side of a link under the control of a test, which decides when data moves and what goes wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mycelium
from mycelium import _control as control
from mycelium import _layout as layout
from mycelium import messages
from mycelium._frame import FrameHeader
from mycelium.testing._link import PATIENCE_S, LinkDouble
from mycelium.testing._memory import create_segment
from mycelium.testing._memory import segment_header as header_of

__all__ = ["CAPACITY", "PATIENCE_S", "BridgeDouble", "create_segment", "segment_header", "wait_until"]

CAPACITY = 16384


def wait_until(condition: Callable[[], Any], what: str = "condition") -> None:
    """Waits for a condition, with a watchdog far beyond what it takes."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.0005)


def segment_header(capacities: tuple[int, int] = (CAPACITY, CAPACITY), epoch: int = 1) -> bytearray:
    """A correct segment header for two rings."""
    return header_of(capacities, epoch)


class BridgeDouble(LinkDouble):
    """A link whose answers can be replaced.

    Args:
        answer: Replaces the frames that follow Hello: called with it, returns bytes.
        replies: (request id, topic id) -> code, for requests that are not to succeed.
        silent: Answer nothing.
        before_reply: Called before each answer to a request.
        options: As :class:`mycelium.testing._link.LinkDouble`.

    Attributes:
        control: Topic ids and payloads of the control frames that came.
        report: What answers a ContractsOffer.
    """

    def __init__(
        self,
        *,
        answer: Callable[[control.Hello], bytes] | None = None,
        replies: dict[tuple[int, int], int] | None = None,
        silent: bool = False,
        before_reply: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        self.answer = answer
        self.replies = {} if replies is None else replies
        self.silent = silent
        self.before_reply = before_reply
        self.control: list[tuple[int, bytes]] = []
        self.report: bytes | None = None
        self._reading = threading.Event()
        self._rests = threading.Event()
        self._reading.set()
        self._later = ThreadPoolExecutor(max_workers=1)
        super().__init__(**options)
        self.schema_digest = messages.SCHEMA_DIGEST

    # ---- what a test does

    def connect(self, **options: Any) -> mycelium.Channel:
        """The peer's side, connected."""
        options.setdefault("contracts", messages)
        options.setdefault("timeout", PATIENCE_S)
        return mycelium.Channel(self.peer_sock, **options)

    def send(self, message: Any, timeout: float = PATIENCE_S) -> None:
        """Sends an application message to the peer."""
        self.send_frame(message.HEADER_WORD, message.to_bytes(), timeout)

    def send_later(self, message: Any) -> None:
        """Sends an application message from another thread, as soon as the peer is attached."""
        self._later.submit(self.send, message)

    def send_frame(self, header: int, payload: bytes, timeout: float = PATIENCE_S) -> None:
        """Sends any frame as data."""
        if self.over_shm:
            end = time.monotonic() + timeout
            while not self.put_record(header, payload):
                assert time.monotonic() < end, "the ring stays full"
                time.sleep(0.0002)
        else:
            self.send_raw(header.to_bytes(8, "little") + payload + bytes(-len(payload) % 8))

    def take(self, contract: Any, count: int) -> list[Any]:
        """Waits for published messages and returns owned copies of them."""
        taken = []
        while len(taken) < count:
            wait_until(self._have_data, f"message {len(taken) + 1} of {count}")
            header, payload = self._next()
            assert header.topic_id == contract.TOPIC_ID
            taken.append(contract.from_bytes(payload))
        return taken

    def _have_data(self) -> bool:
        if not self.over_shm:
            return bool(self.received)
        return self.consumer.has_data

    def _next(self) -> tuple[FrameHeader, bytes]:
        if not self.over_shm:
            return self.received.pop(0)
        while True:
            wait_until(lambda: self.consumer.has_data, "the record behind padding")
            record = self.take_record()
            if record is not None:
                return record

    @property
    def acknowledged(self) -> int:
        """Bytes that the peer has acknowledged."""
        wait_until(lambda: self.attached is not None, "Attached")
        return self.released

    @property
    def over_shm(self) -> bool:
        """Which transport the handshake came to."""
        wait_until(lambda: self.attached is not None, "Attached")
        assert self.attached is not None
        return self.attached.transport == control.AttachedTransport.SHM

    def names(self) -> list[int]:
        """Topic ids of the control frames that came."""
        return [topic_id for topic_id, _ in self.control]

    def pause_reading(self) -> None:
        """Lets the socket fill up. From here on nothing more is read."""
        self._rests.clear()
        self._reading.clear()
        os.write(self._stop_w, b"w")
        assert self._rests.wait(PATIENCE_S), "the bridge goes on reading"

    def resume_reading(self) -> None:
        """Ends :meth:`pause_reading`."""
        self._reading.set()

    def close(self) -> None:
        self._reading.set()
        self._later.shutdown()
        super().close()

    def producer_waits(self) -> bool:
        """Whether the peer asked to be woken when there is room."""
        assert self.segment is not None
        ring = self.segment.ring(layout.RING_TO_BRIDGE)
        return bool(ring.views.u64[ring.control + layout.RING_PRODUCER_PARKED_OFFSET // 8])

    def hang_up(self) -> None:
        """Dies without a goodbye."""
        self._reading.set()
        self.end_session()

    # ---- the thread

    def on_command(self, command: bytes) -> bool:
        if not self._reading.is_set():
            self._rests.set()
        self._reading.wait()
        return super().on_command(command)

    def on_control(self, topic_id: int, payload: bytes) -> None:
        self.control.append((topic_id, payload))
        super().on_control(topic_id, payload)
        if topic_id == control.ContractsOffer.TOPIC_ID and self.report is not None:
            self.send_raw(self.report)

    def on_hello(self, hello: control.Hello) -> None:
        if self.answer is not None:
            self.send_raw(self.answer(hello))
        elif not self.silent:
            super().on_hello(hello)

    def on_request(self, request: int, topic_id: int, digest: bytes) -> None:
        if self.silent:
            return
        if self.before_reply is not None:
            self.before_reply()
        code = self.replies.get((request, topic_id), 0)
        reason = f"expected digest differs from {digest[:4].hex()}…" if code else ""
        self.reply(request, topic_id, control.TopicReplyCode(code), reason)
