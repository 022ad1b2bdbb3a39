"""From a connected socket to a working link: the handshake's I/O, mapping the segment, and falling back."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _ordering as ordering
from ._control import FallbackCode, Fencing, Welcome, WelcomeTransport
from ._differences import ContractDifference
from ._doorbell import Doorbell
from ._handshake import Handshake, fallback_name
from ._link import Link, ShmLink, StreamLink, close_fds
from ._segment import Segment
from ._socket import SocketWriter, receive_with_fds
from ._waits import Steps, flushed, ready
from .exceptions import PeerLost, ProtocolError, SegmentCorrupt, TransportUnavailable

__all__ = ["Established", "establish"]

_log = logging.getLogger("mycelium")
_RECEIVE_LEN = 65536


class Established(NamedTuple):
    """What the handshake came to."""

    link: Link
    welcome: Welcome
    settings: dict[str, Any]
    fallback_code: int
    fallback_reason: str
    fencing: str
    differences: tuple[ContractDifference, ...]


class _Unusable(Exception):
    """Shared memory was offered and cannot be used here."""

    def __init__(self, code: FallbackCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def establish(
    sock: socket.socket,
    *,
    name: str,
    token: str,
    transport: str,
    schema_digest: bytes,
    offer: Callable[[], bytes],
    timeout: float,
    held: Callable[[], int | None],
) -> Steps[Established]:
    """Runs the handshake on a connected socket.

    Raises:
        HandshakeRefused: The bridge does not accept.
        TransportUnavailable: ``transport="shm"`` and shared memory cannot be used.
        PeerLost: The bridge hung up.
        TimeoutError: The bridge does not answer in time.
    """
    sock.setblocking(False)
    deadline = time.monotonic_ns() + int(timeout * 1e9)
    here = ordering.detect()
    fd_passing = not here.problem and hasattr(socket.socket, "recvmsg") and not ordering.disabled("fd-passing")
    if transport == "shm" and here.problem:
        raise TransportUnavailable(f"shared memory is demanded: {here.reason}", code=int(FallbackCode[here.problem]))
    if sock.family != socket.AF_UNIX:
        fd_passing = False
        if transport == "shm":
            text = "shared memory is demanded: a stream over tcp carries no file descriptors; connect to unix:/path"
            raise TransportUnavailable(text, code=int(FallbackCode.REMOTE))
    handshake = Handshake(
        name=name,
        token=token,
        transport=transport,
        schema_digest=schema_digest,
        offer=offer,
        membarrier=not here.problem and ordering.membarrier_registered(),
        fd_passing=fd_passing,
    )
    writer = SocketWriter(sock)
    link: Link | None = None
    try:
        writer.write(handshake.hello())
        yield from _receive(sock, handshake, writer, deadline, timeout)
        welcome, settings = handshake.welcome, handshake.settings
        if welcome is None or settings is None:
            raise ProtocolError("handshake ended without welcome and settings")
        code, reason = int(welcome.fallback_code), welcome.fallback_reason
        rest = handshake.take_rest()
        if welcome.transport == WelcomeTransport.SHM:
            try:
                link = _map(sock, welcome, handshake.fds, here, rest, held)
            except _Unusable as problem:
                code, reason = int(problem.code), str(problem)
        elif here.problem:
            code, reason = int(FallbackCode[here.problem]), here.reason
        if link is None and transport == "shm":
            raise TransportUnavailable(f"shared memory is demanded: {reason}", code=code)
        if link is None:
            link = StreamLink(sock, largest=welcome.max_payload, ack_window=welcome.ack_window, held=held, rest=rest)
            writer.write(handshake.attached(WelcomeTransport.SOCKET, code, reason))
        else:
            writer.write(handshake.attached(WelcomeTransport.SHM))
        if not (yield from flushed(writer, sock, deadline)) or writer.lost:
            raise PeerLost("bridge hung up during the handshake; look into its log")
    except BaseException:
        if link is not None:
            link.close()
        raise
    finally:
        close_fds(handshake.fds)
    if link.transport == "socket" and code not in (FallbackCode.NONE, FallbackCode.REQUESTED):
        _log.warning("falling back to the socket: link=%s code=%s reason=%s", welcome.name, fallback_name(code), reason)
    fencing = Fencing(welcome.fencing).name.lower()
    _tell_differences(welcome.name, handshake.differences)
    return Established(link, welcome, settings, code, reason, fencing, handshake.differences)


def _tell_differences(link: str, differences: tuple[ContractDifference, ...]) -> None:
    """One warning if there is a message that does not flow; the others do no harm."""
    refused = "; ".join(it.text for it in differences if not it.compatible)
    if refused:
        _log.warning(
            "contracts differ (bridge -> this side), these topics are refused and the others flow: link=%s %s",
            link,
            refused,
        )
    harmless = "; ".join(it.text for it in differences if it.compatible)
    if harmless:
        _log.info("contracts differ (bridge -> this side) without harm: link=%s %s", link, harmless)


def _receive(
    sock: socket.socket, handshake: Handshake, writer: SocketWriter, deadline: int, timeout: float
) -> Steps[None]:
    while not handshake.complete:
        writer.write(handshake.contracts_offer())
        if not (yield from flushed(writer, sock, deadline)):
            raise PeerLost("bridge hung up during the handshake: sent=hello; look into its log")
        try:
            data, fds = receive_with_fds(sock, _RECEIVE_LEN)
        except BlockingIOError:
            try:
                yield from ready(sock, select.POLLIN, deadline)
            except TimeoutError as error:
                text = f"handshake not answered in time: timeout_s={timeout}; is the other end a bridge?"
                raise TimeoutError(text) from error
            continue
        if not data:
            raise PeerLost("bridge hung up during the handshake: received=nothing more; look into its log")
        handshake.receive(data, fds)


def _map(
    sock: socket.socket,
    welcome: Welcome,
    fds: list[int],
    here: ordering.Ordering,
    rest: bytes,
    held: Callable[[], int | None],
) -> ShmLink:
    """Maps the offered segment; takes the doorbells out of ``fds`` where it succeeds."""
    if ordering.disabled("shm"):
        raise _Unusable(FallbackCode.DISABLED, "switched off: MYCELIUM_DISABLE contains shm")
    if here.problem:
        raise _Unusable(FallbackCode[here.problem], here.reason)
    fenced = welcome.fencing == Fencing.FENCED
    if not fenced and not ordering.membarrier_registered():
        raise ProtocolError("welcome with fencing=ASYMMETRIC to a peer without membarrier")
    try:
        if ordering.disabled("map"):
            raise OSError("switched off: MYCELIUM_DISABLE contains map")
        segment = Segment.open(fds[0])
    except OSError as error:
        raise _Unusable(FallbackCode.MAP_FAILED, f"segment cannot be mapped: error={error}") from error
    except SegmentCorrupt as error:
        raise _Unusable(FallbackCode.SEGMENT_INVALID, str(error)) from error
    own, peer = Doorbell(fds.pop()), Doorbell(fds.pop())
    try:
        segment.claim_peer_ends(fds[0])
        return ShmLink(
            sock,
            segment,
            own,
            peer,
            fenced=fenced,
            barrier=here.barrier,
            largest=welcome.max_payload,
            held=held,
            rest=rest,
        )
    except BaseException as error:
        segment.close()
        own.close()
        peer.close()
        if isinstance(error, SegmentCorrupt):
            raise _Unusable(FallbackCode.SEGMENT_INVALID, str(error)) from error
        raise
