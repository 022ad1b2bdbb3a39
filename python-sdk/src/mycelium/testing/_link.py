"""The bridge's side of one link, with the real ring ends and the real handshake.

A thread answers the handshake and the requests. Moving data is left to whoever uses this class; ``Router`` does it as
a bridge would.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import threading
from typing import Any

from .. import _control as control
from .. import _layout as layout
from .. import _ordering
from .._doorbell import Doorbell
from .._frame import FrameHeader, encode_frame, parse_header, record_len
from .._ring import Consumer, Producer
from .._segment import Segment
from ._memory import create_segment, segment_header

__all__ = ["PATIENCE_S", "LinkDouble"]

PATIENCE_S = 30.0
"""Longest wait for something that is bound to happen at once, in seconds."""
_RECEIVE_LEN = 65536
_REQUESTS: dict[int, Any] = {
    kind.TOPIC_ID: kind for kind in (control.Subscribe, control.Unsubscribe, control.Advertise)
}


class LinkDouble:
    """One link: its memory lives until :meth:`close`, and peers come and go.

    Args:
        transport: ``"shm"`` or ``"socket"``: what is offered to a peer that does not ask for the socket.
        fenced: FENCED mode.
        capacity: Bytes of each ring, a power of two.
        spin_us: What the peer is told, in microseconds.
        ack_window: What the peer is told, in bytes.
        settings: The worker's settings.
        segment_fd: A segment to offer instead of a fresh one (a duplicate is used).
        listener: Accept the connection there instead of making a pair.

    Attributes:
        hello: The peer's first frame.
        attached: The peer's last frame of the handshake, once it came.
        received: Frames that came over the socket and are not taken.
        acked: Bytes that the peer acknowledged over the socket.
        hung_up: Set once the peer is gone.
        problem: What the thread failed with.
        notified: How often the peer's doorbell was rung.
    """

    producer: Producer
    consumer: Consumer

    def __init__(
        self,
        *,
        transport: str = "shm",
        fenced: bool = False,
        capacity: int = 16384,
        spin_us: int = 20,
        ack_window: int = 65536,
        settings: dict[str, Any] | None = None,
        segment_fd: int | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.offer = transport
        self.fenced = fenced
        self.capacity = capacity
        self.spin_us = spin_us
        self.ack_window = ack_window
        self.settings = {} if settings is None else settings
        self.schema_digest = bytes(32)
        self.epoch = 0
        self.asked = control.Delivery.DEFAULT
        self.segment: Segment | None = None
        self.notified = 0
        self.problem: BaseException | None = None
        self.received: list[tuple[FrameHeader, bytes]] = []
        self._listener = listener
        self._sending = threading.Lock()
        self._closed = False
        self.segment_fd = -1
        if transport == "shm":
            fresh = segment_fd is None
            self.segment_fd = create_segment(segment_header((capacity, capacity))) if fresh else os.dup(segment_fd or 0)
            self.own_bell = Doorbell(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self.peer_bell = Doorbell(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._stop_r, self._stop_w = os.pipe()
        self.start_session()

    # ---- sessions: one peer after the other

    def start_session(self) -> None:
        """Makes a fresh connection for a peer to take: :attr:`peer_sock`."""
        self.epoch += 1
        if self.segment is not None:
            self.segment.views.u64[layout.SEGMENT_EPOCH_OFFSET // 8] = self.epoch
        self.sock, self.peer_sock = socket.socketpair()
        self.sock.setblocking(False)
        self.hello: control.Hello | None = None
        self.attached: control.Attached | None = None
        self.acked = 0
        self.hung_up = threading.Event()
        self._inbox = bytearray()
        self._thread = threading.Thread(target=self._run, name="mycelium-testing-bridge", daemon=True)
        self._thread.start()

    def end_session(self) -> None:
        """Hangs up without a goodbye, and ends the thread."""
        if self._thread.is_alive():
            os.write(self._stop_w, b"x")
            self._thread.join(PATIENCE_S)
        while select.select([self._stop_r], [], [], 0)[0]:
            os.read(self._stop_r, 64)
        self.hung_up.set()
        self.sock.close()

    def close(self) -> None:
        """Ends the link and gives everything back; may be called again.

        Raises:
            RuntimeError: The thread failed meanwhile.
        """
        if not self._closed:
            self._closed = True
            self.end_session()
            self.peer_sock.close()
            for fd in (self._stop_r, self._stop_w, self.segment_fd):
                if fd >= 0:
                    os.close(fd)
            if self.segment_fd >= 0:
                self.own_bell.close()
                self.peer_bell.close()
            if self.segment is not None:
                self.segment.close()
        problem, self.problem = self.problem, None
        if problem is not None:
            raise RuntimeError(f"bridge double failed: error={problem!r}") from problem

    # ---- sending

    def send_control(self, message: Any) -> None:
        """Sends a control frame."""
        self.send_raw(encode_frame(message.TOPIC_ID, message.to_bytes()))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes on the socket; waits until it has taken them."""
        with self._sending:
            view = memoryview(data)
            while view:
                try:
                    view = view[self.sock.send(view) :]
                except BlockingIOError:
                    select.select([], [self.sock], [], PATIENCE_S)

    # ---- the thread

    def _run(self) -> None:
        try:
            if self._listener is not None:
                self.sock.close()
                self.sock, _ = self._listener.accept()
                self.sock.setblocking(False)
            while True:
                readers, writers, timeout = self.before_sleep()
                ready, _, _ = select.select([self._stop_r, *readers], writers, [], timeout)
                if self._stop_r in ready and not self.on_command(os.read(self._stop_r, 1)):
                    return
                if not self.turn():
                    self.hung_up.set()
                    self.on_hang_up()
                    return
        except BaseException as problem:  # told by close()
            self.problem = problem
            self.on_hang_up()

    def before_sleep(self) -> tuple[list[Any], list[Any], float | None]:
        """What the thread sleeps on: readable, writable, and for how long in seconds."""
        return [self.sock], [], None

    def on_command(self, command: bytes) -> bool:
        """Handles a byte of :attr:`_stop_w`; False ends the thread."""
        return command != b"x"

    def on_hang_up(self) -> None:
        """Called in the thread when the peer is gone, or the thread is at its end."""

    def turn(self) -> bool:
        """Takes what the socket has; False once the peer has hung up."""
        while True:
            try:
                data = self.sock.recv(_RECEIVE_LEN)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                return False
            self._inbox += data
            self._frames()

    def _frames(self) -> None:
        while len(self._inbox) >= layout.FRAME_HEADER_LEN:
            header = parse_header(int.from_bytes(self._inbox[:8], "little"))
            length = record_len(header.payload_len)
            if len(self._inbox) < length:
                return
            payload = bytes(self._inbox[8 : 8 + header.payload_len])
            del self._inbox[:length]
            if header.topic_id > layout.CORE_TOPIC_MAX:
                self.received.append((header, payload))
            else:
                self.on_control(header.topic_id, payload)

    # ---- control frames

    def on_control(self, topic_id: int, payload: bytes) -> None:
        """Handles a control frame of the peer."""
        if topic_id == control.Hello.TOPIC_ID:
            self.hello = control.Hello.from_bytes(payload)
            self.on_hello(self.hello)
        elif topic_id == control.Attached.TOPIC_ID:
            self._attach(control.Attached.from_bytes(payload))
        elif topic_id == control.Ack.TOPIC_ID:
            self.acked = control.Ack.from_bytes(payload).bytes
        elif topic_id in _REQUESTS:
            request = _REQUESTS[topic_id].from_bytes(payload)
            digest = bytes(getattr(request, "layout_digest", b""))
            self.asked = getattr(request, "delivery", control.Delivery.DEFAULT)
            self.on_request(topic_id, request.topic_id, digest)

    def on_request(self, request: int, topic_id: int, digest: bytes) -> None:
        """Answers Subscribe, Unsubscribe or Advertise: yes. :attr:`asked` is the policy that a Subscribe asks for."""
        self.reply(request, topic_id, control.TopicReplyCode.OK)

    def reply(self, request: int, topic_id: int, code: control.TopicReplyCode, reason: str = "") -> None:
        """Sends a TopicReply, which grants the policy that was asked for."""
        granted = self.asked if code == control.TopicReplyCode.OK else control.Delivery.DEFAULT
        self.send_control(
            control.TopicReply(request=request, topic_id=topic_id, code=code, delivery=granted, reason=reason)
        )

    def welcome_frame(self, hello: control.Hello, **changes: Any) -> control.Welcome:
        """Returns the Welcome that suits this Hello."""
        wants_socket = hello.transport == control.HelloTransport.SOCKET
        can_pass = bool(hello.capabilities & layout.CAPABILITY_FD_PASSING)
        offered = self.offer == "shm" and can_pass and not wants_socket
        membarrier = bool(hello.capabilities & layout.CAPABILITY_MEMBARRIER) and not self.fenced
        code = control.FallbackCode.NONE
        if not offered:
            code = control.FallbackCode.REQUESTED if wants_socket or can_pass else control.FallbackCode.FD_PASSING
        values: dict[str, Any] = {
            "protocol_version": layout.PROTOCOL_VERSION,
            "transport": control.WelcomeTransport.SHM if offered else control.WelcomeTransport.SOCKET,
            "fencing": control.Fencing.ASYMMETRIC if membarrier else control.Fencing.FENCED,
            "fallback_code": code,
            "fallback_reason": "" if offered else f"the double offers the socket: code={code.name}",
            "link_id": 7,
            "spin_us": self.spin_us,
            "max_payload": self.max_payload,
            "ack_window": self.ack_window,
            "epoch": self.epoch,
            "schema_digest": self.schema_digest,
            "name": hello.name or "link-7",
        }
        values.update(changes)
        return control.Welcome(**values)

    @property
    def max_payload(self) -> int:
        """Longest payload of this link, in bytes."""
        return self.capacity // layout.RING_RECORD_DIVISOR - layout.FRAME_HEADER_LEN

    def on_hello(self, hello: control.Hello) -> None:
        """Answers Hello with Welcome, descriptors included, and Settings."""
        welcome = self.welcome_frame(hello)
        settings = json.dumps(self.settings).encode()
        flags = layout.ENCODING_JSON << layout.FLAG_ENCODING_SHIFT
        frames = encode_frame(welcome.TOPIC_ID, welcome.to_bytes())
        fds = []
        if welcome.transport == control.WelcomeTransport.SHM:
            fds = [self.segment_fd, self.own_bell.fileno(), self.peer_bell.fileno()]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.sock.sendmsg([frames], rights)
        if sent != len(frames):
            raise RuntimeError(f"welcome cut short: sent={sent} len={len(frames)}")
        self.send_raw(encode_frame(control.Settings.TOPIC_ID, settings, flags))

    def _attach(self, attached: control.Attached) -> None:
        if attached.transport == control.AttachedTransport.SHM and self.segment is None:
            _ordering.membarrier_registered()
            self.segment = Segment.open(self.segment_fd)
            to_peer = self.segment.ring(layout.RING_TO_PEER)
            to_bridge = self.segment.ring(layout.RING_TO_BRIDGE)
            self.producer = Producer(to_peer, max_payload=self.max_payload, notify=self.notify_peer)
            self.consumer = Consumer(to_bridge, max_payload=self.max_payload, notify=self.notify_peer)
        self.attached = attached

    def notify_peer(self) -> None:
        """Rings the peer's doorbell."""
        self.notified += 1
        self.peer_bell.notify()

    # ---- the ring ends

    def take_record(self) -> tuple[FrameHeader, bytes] | None:
        """Takes the next record of the peer's ring and releases it; None where there is none."""
        consumer = self.consumer
        while (word := consumer.words[consumer.word]) != 0:
            header = consumer.inspect(word)
            if header is None:
                continue
            at = consumer.word
            payload = bytes(consumer.views.raw[at * 8 + 8 : at * 8 + 8 + header.payload_len])
            consumer.cross(at, at + record_len(header.payload_len) // 8)
            consumer.publish(consumer.word)
            return header, payload
        return None

    def put_record(self, header: int, payload: bytes) -> bool:
        """Writes a record into the ring to the peer; False where there is no room."""
        producer = self.producer
        count = record_len(len(payload)) // 8
        word = producer.claim(count)
        if word < 0:
            return False
        producer.views.raw[word * 8 + 8 : word * 8 + 8 + len(payload)] = payload
        producer.commit(word, word + count, header)
        return True

    @property
    def peer_sleeps(self) -> bool:
        """Whether the peer sleeps until a record comes; not known over the socket."""
        if self.segment is None:
            return False
        ring = self.segment.ring(layout.RING_TO_PEER)
        return bool(ring.views.u64[ring.control + layout.RING_CONSUMER_PARKED_OFFSET // 8])

    @property
    def released(self) -> int:
        """Bytes that the peer has acknowledged: of the ring since it was made, or on this connection."""
        if self.segment is None:
            return self.acked
        ring = self.segment.ring(layout.RING_TO_PEER)
        return int(ring.views.u64[ring.control + layout.RING_HEAD_OFFSET // 8])
