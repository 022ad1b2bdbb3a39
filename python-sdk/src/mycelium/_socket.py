"""The socket of a channel: addresses, connecting, bytes with file descriptors, and unsent bytes."""

from __future__ import annotations

import array
import os
import socket
import sys
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, cast

from .exceptions import AddressError, PeerLost

if TYPE_CHECKING:
    import ssl

__all__ = ["SocketWriter", "TlsOptions", "adopt", "connect", "receive_with_fds"]

_FDS_MAX = 16
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


_FORMS = "use unix:/path, /path, tcp:host:port, tcp:[ipv6]:port, tls:host:port, fd:N or stdio:"
_PATH_MAX = 107


class Address(NamedTuple):
    """Where a bridge is.

    Attributes:
        kind: ``"unix"``, ``"tcp"``, ``"tls"``, ``"fd"`` or ``"stdio"``.
        path: Of a UNIX socket.
        host: Name or address, without brackets.
        number: The port, or the descriptor.
    """

    kind: str
    path: str = ""
    host: str = ""
    number: int = 0


class TlsOptions(NamedTuple):
    """What a ``tls:`` address needs.

    Attributes:
        ca: PEM file with the authorities to trust; None for those of the system.
        context: Instead of one that is made from ``ca``.
    """

    ca: str | os.PathLike[str] | None = None
    context: ssl.SSLContext | None = None


def parse_address(address: str) -> Address:
    """Reads ``unix:/path``, a plain path, ``tcp:host:port``, ``tls:host:port``, ``fd:N`` or ``stdio:``.

    Raises:
        AddressError: The address is empty or of another kind.
    """
    scheme, colon, rest = address.partition(":")
    if colon and scheme in ("tcp", "tls"):
        return _parse_host(address, scheme, rest)
    if colon and scheme == "fd":
        if rest.isascii() and rest.isdigit() and 2 < int(rest) < 1 << 31:
            return Address("fd", number=int(rest))
        text = f"address not understood: address={address!r} descriptor={rest!r}, legal: 3..=2147483647; {_FORMS}"
        raise AddressError(text, address=address)
    if address == "stdio:":
        return Address("stdio")
    path = rest if colon and scheme == "unix" else address
    # A colon is legal in a file name.
    if not path or (colon and scheme != "unix" and "/" not in scheme):
        raise AddressError(f"address not understood: address={address!r}; {_FORMS}", address=address)
    if len(os.fsencode(path)) > _PATH_MAX:
        text = f"socket path too long: len={len(os.fsencode(path))}, legal: 1..={_PATH_MAX}; use a shorter one"
        raise AddressError(text, address=address)
    return Address("unix", path=path)


def _parse_host(address: str, scheme: str, rest: str) -> Address:
    host, _, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not name or (":" in name and not bracketed):
        raise AddressError(f"address not understood: address={address!r} host={host!r}; {_FORMS}", address=address)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        text = f"address not understood: address={address!r} port={port!r}, legal: 1..=65535; {_FORMS}"
        raise AddressError(text, address=address)
    return Address(scheme, host=name, number=int(port))


def connect(address: str, timeout: float, tls: TlsOptions = TlsOptions()) -> socket.socket:  # noqa: B008  # immutable
    """Connects to a bridge.

    Raises:
        AddressError: The address is not understood.
        PeerLost: Nobody listens there, or its certificate is not to be trusted.
        TimeoutError: The bridge does not accept in time.
    """
    place = parse_address(address)
    try:
        sock = _open(place, timeout, tls)
    except (TimeoutError, BlockingIOError) as error:
        raise TimeoutError(f"bridge does not accept: address={address} timeout_s={timeout}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "is the bridge running?"
        if place.kind == "tls" and type(error).__module__ == "ssl":
            reason = getattr(error, "verify_message", "") or str(error)
            remedy = "name the authority of its certificate in tls_ca, and the host as the certificate does"
        text = f"cannot connect: address={address} error={reason!r}; {remedy}"
        raise PeerLost(text, address=address) from error
    sock.setblocking(False)
    return sock


def _open(place: Address, timeout: float, tls: TlsOptions) -> socket.socket:
    if place.kind == "unix":
        return _connect_unix(place.path, timeout)
    if place.kind == "fd":
        return adopt(place.number)
    if place.kind == "stdio":
        return _adopt_stdio()
    sock = _connect_tcp((place.host, place.number), timeout)
    if place.kind == "tcp":
        return sock
    from ._tls import wrap  # costs some milliseconds, and a Python without OpenSSL does all else

    # It has those methods of a socket that the links use.
    return cast("socket.socket", wrap(sock, place.host, tls.ca, tls.context))


def _adopt_stdio() -> socket.socket:
    """Takes over standard input, which the bridge has made a connected socket, and standard output with it.

    What the program prints goes to standard error from here on, so that it cannot get into the stream.
    """
    fd = os.dup(0)
    try:
        sock = adopt(fd)
    except AddressError:
        os.close(fd)
        text = 'standard input is no socket: address=stdio:; start this program as a worker with transport = "stdio"'
        raise AddressError(text, address="stdio:") from None
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
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
        PeerLost: The bridge refused the certificate of this side, or misses one.
    """
    item = array.array("i").itemsize
    if sock.family != socket.AF_UNIX:
        try:
            return sock.recv(size), []
        except ConnectionError:
            return b"", []
        except OSError as error:
            if type(error).__module__ != "ssl" or isinstance(error, BlockingIOError):
                raise
            # In TLS 1.3 the bridge looks at the certificate of this side after this side's handshake is over.
            text = (
                f"bridge refused the connection: error={error.reason!r}; "  # type: ignore[attr-defined]
                "give ssl_context a certificate of an authority that the bridge trusts"
            )
            raise PeerLost(text) from error
    try:
        data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(_FDS_MAX * item), _CMSG_CLOEXEC)
    except ConnectionError:
        return b"", []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % item])
    return data, fds.tolist()


class SocketWriter:
    """Writes to a non-blocking socket and keeps what it does not take, in order. Any thread may write.

    Everything goes through :attr:`pending`, and how much the socket took is stored by the same call into C that sends:
    so a signal handler that raises can come before or after, but not between the two.

    Attributes:
        lock: For whoever adds to :attr:`pending` directly, and then calls :meth:`flush`.
        pending: Bytes that the socket has not taken yet.
        lost: Whether the peer is gone; nothing is written any more.
    """

    __slots__ = ("_sock", "_taken", "lock", "lost", "pending")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._taken: list[int] = []
        self.lock = RLock()
        self.pending = bytearray()
        self.lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends, or keeps, all of the data; never blocks."""
        with self.lock:
            if not self.lost:
                self.pending += data
                self.flush()

    def flush(self) -> bool:
        """Sends what is pending; True when nothing is left. Never blocks."""
        with self.lock:
            while not self.lost:
                self._settle()
                if not self.pending:
                    return True
                if not self._send():
                    return False
            self.pending.clear()
            return True

    def _settle(self) -> None:
        """Forgets the bytes that the socket took; contains no call, so it happens as a whole."""
        taken = self._taken
        if taken:
            del self.pending[: taken[0]]
            del taken[0]

    def _send(self) -> bool:
        try:
            self._taken.extend(map(self._sock.send, (self.pending,), (_NO_SIGNAL,)))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.lost = True
        except BaseException:
            # Over TLS nobody knows how far an interrupted call came; a plain socket is as described above.
            self.lost = not isinstance(self._sock, socket.socket)
            raise
        return True
