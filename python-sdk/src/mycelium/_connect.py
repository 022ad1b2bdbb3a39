"""Connecting: from the bridge's environment, or to an address."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import _socket, messages
from ._reconnect import Reconnect, Recovery
from .channel import Channel
from .events import Event
from .exceptions import AddressError

if TYPE_CHECKING:
    import ssl

__all__ = ["connect"]

_TRANSPORTS = ("auto", "shm", "socket")


def connect(
    address: str | None = None,
    *,
    name: str | None = None,
    transport: str = "auto",
    contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = messages,
    timeout: float = 5.0,
    spin_us: int | None = None,
    token: str = "",
    on_event: Callable[[Event], object] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    reconnect: bool | Reconnect = False,
) -> Channel:
    """Connects to a bridge.

    Args:
        address: ``unix:/path`` of a listening bridge; ``tcp:host:port`` or ``tls:host:port``, which rule shared memory
            out; ``fd:N`` for an inherited socket; ``stdio:`` in a worker with that transport. None in a worker: the
            bridge that started this process has left a connected socket (``MYCELIUM_FD``).
        name: Name of the link, unique in the bridge; None takes ``MYCELIUM_WORKER``, or lets the bridge choose.
        transport: ``"auto"`` takes shared memory if possible, ``"shm"`` nothing else, ``"socket"`` the socket.
        contracts: The generated messages module, or several, or message classes. Where they differ from the bridge's,
            the topics whose layouts differ are refused and everything else flows; see
            ``channel.contract_differences``. None: layouts are only compared when they are subscribed or published.
        timeout: Longest time for the handshake, and for each later request, in seconds.
        spin_us: Longest time to spin before sleeping, in microseconds; None takes what the bridge says.
        token: Credential where the bridge asks for one.
        on_event: Called with what happens besides messages; see :mod:`mycelium.events`.
        tls_ca: PEM file with the authorities that may vouch for the bridge of a ``tls:`` address; None takes those of
            the system. The certificate has to name the host of the address.
        ssl_context: Instead, for example with a certificate of this side; it has to check the bridge's by itself.
        reconnect: Whether, and how, a lost link is made again, with its subscriptions and publishers; the first
            connection has to succeed. Messages that were under way are lost, as far as that is known counted in
            ``channel.statistics()`` and told by :class:`mycelium.events.Disconnected`. Only with an address: a bridge
            restarts its workers itself.

    Raises:
        AddressError: There is no address, or a bad one.
        PeerLost: Nobody listens there, or its certificate is not to be trusted.
        HandshakeRefused: The bridge does not accept this peer; SchemaRefused where the contracts differ and the bridge
            insists on the same.
        TransportUnavailable: ``transport="shm"`` and shared memory cannot be used.
        TimeoutError: No answer in time.
    """
    tls = _socket.TlsOptions(tls_ca, ssl_context)
    name, dial = dialer(address, name=name, transport=transport, timeout=timeout, tls=tls)
    plan = reconnect_plan(address, reconnect)
    opening = {"name": name, "token": token, "transport": transport}
    channel = Channel(
        dial(), **opening, contracts=contracts, timeout=timeout, spin_us=spin_us, on_event=on_event
    )  # fmt: skip
    if plan is not None:
        channel._recovery = Recovery(channel, plan, dial, opening)
    return channel


def reconnect_plan(address: str | None, reconnect: bool | Reconnect) -> Reconnect | None:
    """Checks the argument of :func:`connect`; None where a lost link is not made again."""
    if reconnect is False:
        return None
    if address is None or address.startswith(("fd:", "stdio:")):
        raise ValueError(
            f"cannot reconnect: address={address}; an inherited connection cannot be made again, pass the address of a "
            "listening bridge"
        )
    return Reconnect() if reconnect is True else reconnect


def dialer(
    address: str | None, *, name: str | None, transport: str, timeout: float, tls: _socket.TlsOptions
) -> tuple[str, Callable[[], socket.socket]]:
    """Returns the name of the link, and what makes the connection; checks the arguments of :func:`connect`."""
    if transport not in _TRANSPORTS:
        raise ValueError(f"transport not understood: transport={transport!r}, legal: {', '.join(_TRANSPORTS)}")
    if name is None:
        name = os.environ.get("MYCELIUM_WORKER", "")
    return name, _inherited if address is None else partial(_socket.connect, address, timeout, tls)


def _inherited() -> socket.socket:
    """Takes the socket that the bridge left in the environment."""
    text = os.environ.get("MYCELIUM_FD", "")
    if not text.isdecimal():
        raise AddressError(
            f"no bridge to connect to: MYCELIUM_FD={text!r}; start this program as a worker of a bridge, "
            "connect only once there, or pass an address such as unix:/run/mycelium/bridge.sock",
            address=text,
        )
    # The descriptor is used up: neither a second connect() nor a child process may take it again.
    del os.environ["MYCELIUM_FD"]
    return _socket.adopt(int(text))
