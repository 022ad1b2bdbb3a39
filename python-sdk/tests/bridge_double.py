"""Plays the bridge's side of a channel in the tests, with the real ring ends.

A thread answers the handshake and the requests; the test itself writes and reads data, so that it decides when.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mycelium
from mycelium import _control as control
from mycelium import _layout as layout
from mycelium import _ordering, messages
from mycelium._doorbell import Doorbell
from mycelium._frame import FrameHeader, encode_frame, parse_header, record_len
from mycelium._ring import Consumer, Producer
from mycelium._segment import Segment

CAPACITY = 16384
PATIENCE_S = 30.0
_REQUESTS = (control.Subscribe, control.Unsubscribe, control.Advertise)


def wait_until(condition: Callable[[], Any], what: str = "condition") -> None:
    """Waits for a condition, with a watchdog far beyond what it takes."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.0005)


def segment_header(capacities: tuple[int, int] = (CAPACITY, CAPACITY), epoch: int = 1) -> bytearray:
    """A correct segment header for two rings."""
    header = bytearray(layout.SEGMENT_HEADER_LEN)
    offset = layout.SEGMENT_HEADER_LEN
    for number, capacity in enumerate(capacities):
        at = layout.SEGMENT_RINGS_OFFSET + number * layout.RING_DESCRIPTOR_LEN
        struct.pack_into("<QQQQ", header, at, offset, offset + layout.RING_CONTROL_LEN, capacity, 0)
        offset += layout.RING_CONTROL_LEN + capacity
    fixed = (layout.SEGMENT_MAGIC, layout.SEGMENT_LAYOUT_VERSION, layout.RING_COUNT, offset, epoch)
    struct.pack_into("<QIIQQ", header, 0, *fixed)
    return header


def create_segment(header: bytes | bytearray, *, length: int | None = None, seals: int | None = None) -> int:
    """A sealed memfd that starts with this header; returns its descriptor."""
    fd = os.memfd_create("mycelium-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    total = struct.unpack_from("<Q", header, layout.SEGMENT_TOTAL_LEN_OFFSET)[0] if length is None else length
    os.ftruncate(fd, total)
    os.pwrite(fd, bytes(header)[:total], 0)
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if seals is None else seals
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, wanted)
    return fd


class BridgeDouble:
    """One link of a bridge.

    Args:
        transport: What is offered to a peer that does not ask for the socket.
        fenced: FENCED mode.
        answer: Replaces the frames that follow Hello: called with it, returns bytes.
        replies: (request id, topic id) -> code, for requests that are not to succeed.
        segment_fd: A segment to offer instead of a fresh one (a duplicate is used).
        listener: Accept the connection there instead of making a pair.
    """

    def __init__(
        self,
        *,
        transport: str = "shm",
        fenced: bool = False,
        capacity: int = CAPACITY,
        spin_us: int = 20,
        ack_window: int = 65536,
        settings: dict[str, Any] | None = None,
        answer: Callable[[control.Hello], bytes] | None = None,
        replies: dict[tuple[int, int], int] | None = None,
        segment_fd: int | None = None,
        silent: bool = False,
        before_reply: Callable[[], None] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.sock, self.peer_sock = socket.socketpair()
        self._listener = listener
        self.offer = transport
        self.fenced = fenced
        self.spin_us = spin_us
        self.ack_window = ack_window
        self.settings = {} if settings is None else settings
        self.schema_digest = messages.SCHEMA_DIGEST
        self.report: bytes | None = None
        self.answer = answer
        self.replies = {} if replies is None else replies
        self.silent = silent
        self.before_reply = before_reply
        fd = create_segment(segment_header((capacity, capacity))) if segment_fd is None else os.dup(segment_fd)
        self.segment_fd = fd
        self.segment: Segment | None = None
        self.own_bell = Doorbell(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.peer_bell = Doorbell(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.capacity = capacity
        self.notified = 0
        self.hello: control.Hello | None = None
        self.attached: control.Attached | None = None
        self.control: list[tuple[int, bytes]] = []
        self.received: list[tuple[FrameHeader, bytes]] = []
        self.acked = 0
        self.hung_up = threading.Event()
        self.problem: BaseException | None = None
        self._lock = threading.Lock()
        self._stop_r, self._stop_w = os.pipe()
        self._inbox = bytearray()
        self._later = ThreadPoolExecutor(max_workers=1)
        self._reading = threading.Event()
        self._reading.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

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
            count = record_len(len(payload)) // 8
            while (word := self.producer.claim(count)) < 0:
                assert time.monotonic() < end, "the ring stays full"
                time.sleep(0.0002)
            self.producer.views.raw[word * 8 + 8 : word * 8 + 8 + len(payload)] = payload
            self.producer.commit(word, word + count, header)
        else:
            self.send_raw(struct.pack("<Q", header) + payload + bytes(-len(payload) % 8))

    def send_control(self, message: Any) -> None:
        """Sends a control frame."""
        self.send_raw(encode_frame(message.TOPIC_ID, message.to_bytes()))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes on the socket."""
        with self._lock:
            view = memoryview(data)
            while view:
                try:
                    view = view[self.sock.send(view) :]
                except BlockingIOError:
                    select.select([], [self.sock], [], PATIENCE_S)

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
            word = self.consumer.word
            header = self.consumer.inspect(self.consumer.words[word])
            if header is not None:
                break
        payload = bytes(self.consumer.views.raw[word * 8 + 8 : word * 8 + 8 + header.payload_len])
        self.consumer.cross(word, word + record_len(header.payload_len) // 8)
        self.consumer.publish(self.consumer.word)
        return header, payload

    @property
    def acknowledged(self) -> int:
        """Bytes that the peer has acknowledged."""
        if self.over_shm:
            assert self.segment is not None
            ring = self.segment.ring(layout.RING_TO_PEER)
            return int(ring.views.u64[ring.control + layout.RING_HEAD_OFFSET // 8])
        return self.acked

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
        """Lets the socket fill up."""
        self._reading.clear()
        os.write(self._stop_w, b"w")

    def resume_reading(self) -> None:
        """Ends :meth:`pause_reading`."""
        self._reading.set()

    def hang_up(self) -> None:
        """Dies without a goodbye."""
        self._reading.set()
        os.write(self._stop_w, b"x")
        self._thread.join(PATIENCE_S)
        self.sock.close()

    def close(self) -> None:
        """Ends the bridge and gives everything back."""
        if self._stop_w >= 0:
            self._later.shutdown()
            self.hang_up()
            for fd in (self._stop_r, self._stop_w, self.segment_fd):
                os.close(fd)
            self._stop_w = -1
            self.peer_sock.close()
            self.own_bell.close()
            self.peer_bell.close()
            if self.segment is not None:
                self.segment.close()
        assert self.problem is None, f"the bridge's thread failed: {self.problem!r}"

    # ---- the thread

    def _run(self) -> None:
        try:
            if self._listener is not None:
                self.sock.close()
                self.sock, _ = self._listener.accept()
            self.sock.setblocking(False)
            while True:
                ready, _, _ = select.select([self.sock, self._stop_r], [], [])
                if self._stop_r in ready:
                    if os.read(self._stop_r, 1) == b"x":
                        return
                    self._reading.wait()
                    continue
                try:
                    data = self.sock.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    self.hung_up.set()
                    return
                self._inbox += data
                self._frames()
        except BaseException as problem:  # shown by close()
            self.problem = problem

    def _frames(self) -> None:
        while len(self._inbox) >= 8:
            header = parse_header(int.from_bytes(self._inbox[:8], "little"))
            length = record_len(header.payload_len)
            if len(self._inbox) < length:
                return
            payload = bytes(self._inbox[8 : 8 + header.payload_len])
            del self._inbox[:length]
            if header.topic_id > layout.CORE_TOPIC_MAX:
                self.received.append((header, payload))
            else:
                self._on_control(header.topic_id, payload)

    def _on_control(self, topic_id: int, payload: bytes) -> None:
        self.control.append((topic_id, payload))
        if topic_id == control.Hello.TOPIC_ID:
            hello = control.Hello.from_bytes(payload)
            self.hello = hello
            if self.answer is not None:
                self.send_raw(self.answer(hello))
            elif not self.silent:
                self._welcome(hello)
        elif topic_id == control.ContractsOffer.TOPIC_ID:
            if self.report is not None:
                self.send_raw(self.report)
        elif topic_id == control.Attached.TOPIC_ID:
            self._attach(control.Attached.from_bytes(payload))
        elif topic_id == control.Ack.TOPIC_ID:
            self.acked = control.Ack.from_bytes(payload).bytes
        elif topic_id in [request.TOPIC_ID for request in _REQUESTS] and not self.silent:
            if self.before_reply is not None:
                self.before_reply()
            topic = int.from_bytes(payload[:2], "little")
            code = self.replies.get((topic_id, topic), 0)
            reason = f"expected digest differs from {payload[2:6].hex()}…" if code else ""
            reply = control.TopicReply(
                request=topic_id, topic_id=topic, code=control.TopicReplyCode(code), reason=reason
            )
            self.send_control(reply)

    def welcome_frame(self, hello: control.Hello, **changes: Any) -> control.Welcome:
        """The Welcome that suits this Hello."""
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
            "fallback_reason": "" if offered else f"not offered: {code.name}",
            "link_id": 7,
            "spin_us": self.spin_us,
            "max_payload": self.capacity // 4 - 8,
            "ack_window": self.ack_window,
            "epoch": 1,
            "schema_digest": self.schema_digest,
            "name": hello.name or "link-7",
        }
        values.update(changes)
        return control.Welcome(**values)

    def _welcome(self, hello: control.Hello) -> None:
        welcome = self.welcome_frame(hello)
        settings = json.dumps(self.settings).encode()
        flags = layout.ENCODING_JSON << layout.FLAG_ENCODING_SHIFT
        frames = encode_frame(welcome.TOPIC_ID, welcome.to_bytes())
        fds = []
        if welcome.transport == control.WelcomeTransport.SHM:
            fds = [self.segment_fd, self.own_bell.fileno(), self.peer_bell.fileno()]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.sock.sendmsg([frames], rights) == len(frames)
        self.send_raw(encode_frame(control.Settings.TOPIC_ID, settings, flags))

    def _attach(self, attached: control.Attached) -> None:
        if attached.transport == control.AttachedTransport.SHM:
            assert self.hello is not None
            _ordering.membarrier_registered()
            self.segment = Segment.open(self.segment_fd)
            largest = self.capacity // 4 - 8
            to_peer = self.segment.ring(layout.RING_TO_PEER)
            to_bridge = self.segment.ring(layout.RING_TO_BRIDGE)
            self.producer = Producer(to_peer, max_payload=largest, notify=self._notify)
            self.consumer = Consumer(to_bridge, max_payload=largest, notify=self._notify)
        self.attached = attached

    def _notify(self) -> None:
        self.notified += 1
        self.peer_bell.notify()
