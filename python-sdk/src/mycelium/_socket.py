"""The socket of a channel: addresses, connecting, bytes with file descriptors, and unsent bytes."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import time

from .exceptions import AddressError, PeerLost

__all__ = ["SocketWriter", "adopt", "connect", "receive_with_fds", "wait_for"]

_FDS_MAX = 16
_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


_FORMS = "use unix:/path, /path, tcp:host:port or tcp:[ipv6]:port"


def parse_address(address: str) -> str | tuple[str, int]:
    """Returns the path of ``unix:/path`` or of a plain path, or host and port of ``tcp:host:port``.

    Raises:
        AddressError: The address is empty or of another kind.
    """
    scheme, colon, rest = address.partition(":")
    if colon and scheme == "tcp":
        return _parse_tcp(address, rest)
    path = rest if colon and scheme == "unix" else address
    if not path or (colon and scheme != "unix" and "/" not in scheme):
        raise AddressError(f"address not understood: address={address!r}; {_FORMS}", address=address)
    if len(os.fsencode(path)) > 107:
        raise AddressError(f"socket path too long: len={len(os.fsencode(path))}, legal: 1..=107", address=address)
    return path


def _parse_tcp(address: str, rest: str) -> tuple[str, int]:
    host, _, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not name or (":" in name and not bracketed):
        raise AddressError(f"address not understood: address={address!r} host={host!r}; {_FORMS}", address=address)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        text = f"address not understood: address={address!r} port={port!r}, legal: 1..=65535; {_FORMS}"
        raise AddressError(text, address=address)
    return name, int(port)


def connect(address: str, timeout: float) -> socket.socket:
    """Connects to a listening bridge.

    Raises:
        AddressError: The address is not understood.
        PeerLost: Nobody listens there.
        TimeoutError: The bridge does not accept in time.
    """
    place = parse_address(address)
    try:
        sock = _connect_unix(place, timeout) if isinstance(place, str) else _connect_tcp(place, timeout)
    except (TimeoutError, BlockingIOError) as error:
        raise TimeoutError(f"bridge does not accept: address={address} timeout_s={timeout}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PeerLost(f"cannot connect: address={address} error={reason!r}; is the bridge running?") from error
    sock.setblocking(False)
    return sock


def _connect_unix(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_tcp(place: tuple[str, int], timeout: float) -> socket.socket:
    sock = socket.create_connection(place, timeout)
    # Small frames go out at once; a peer that vanished without a word is found by probes.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def adopt(fd: int) -> socket.socket:
    """Takes over an inherited, connected socket.

    Raises:
        AddressError: The descriptor is not a socket.
    """
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except (OSError, OverflowError, ValueError) as error:
        text = f"inherited descriptor is no socket: fd={fd} error={error}; start this program as a bridge worker"
        raise AddressError(text, address=f"fd:{fd}") from error
    sock.setblocking(False)
    return sock


def receive_with_fds(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receives once, descriptors included; the caller owns them. Empty bytes mean that the peer hung up.

    Raises:
        BlockingIOError: Nothing is there.
        PeerLost: The connection is broken.
    """
    item = array.array("i").itemsize
    try:
        data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(_FDS_MAX * item), _CMSG_CLOEXEC)
    except ConnectionError:
        return b"", []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % item])
    return data, fds.tolist()


def wait_for(sock: socket.socket, events: int, deadline: int) -> None:
    """Waits for the socket.

    Args:
        sock: What to wait for.
        events: ``select.POLLIN`` or ``select.POLLOUT``.
        deadline: On the clock of :func:`time.monotonic_ns`.

    Raises:
        TimeoutError: The deadline passed.
    """
    poller = select.poll()
    poller.register(sock, events)
    left = deadline - time.monotonic_ns()
    if not poller.poll(max(left, 0) / 1e6) and left <= 0:
        raise TimeoutError("bridge did not answer in time")


class SocketWriter:
    """Writes to a non-blocking socket and keeps what it does not take, in order.

    Attributes:
        pending: Bytes that the socket has not taken yet.
        lost: Whether the peer is gone; nothing is written any more.
    """

    __slots__ = ("_sock", "lost", "pending")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.pending = bytearray()
        self.lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends, or keeps, all of the data; never blocks."""
        if self.pending:
            self.pending += data
            self.flush()
            return
        sent = self._send(data)
        if sent < len(data) and not self.lost:
            self.pending += data[sent:]

    def flush(self) -> bool:
        """Sends what is pending; True when nothing is left. Never blocks."""
        while self.pending and not self.lost:
            sent = self._send(self.pending)
            if not sent:
                return False
            del self.pending[:sent]
        return True

    def flush_until(self, deadline: int) -> bool:
        """Sends what is pending, waiting up to the deadline; True when nothing is left."""
        with contextlib.suppress(TimeoutError):
            while not self.flush():
                wait_for(self._sock, select.POLLOUT, deadline)
        return not self.pending

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._sock.send(data, getattr(socket, "MSG_NOSIGNAL", 0))
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.lost = True
            self.pending.clear()
            return 0
