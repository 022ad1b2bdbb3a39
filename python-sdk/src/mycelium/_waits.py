"""Waits as data: what takes time is a generator that says what it waits for, and a driver does the waiting.

Connecting, handshakes, requests and reconnecting are written once, as :data:`Steps`. :func:`drive` runs them in a
thread; ``aio.py`` runs the same ones in an event loop. Receiving and sending have no generators: their waits are single
steps that return how long to sleep.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ._socket import SocketWriter

__all__ = ["Blocking", "Steps", "Wait", "block", "called", "drive", "flushed", "parted", "ready"]

T = TypeVar("T")
_RECEIVE_LEN = 65536


class Wait(NamedTuple):
    """What to wait for; it may end early, and whoever waits looks again.

    Attributes:
        sock: The socket; None where only time has to pass.
        events: ``select.POLLIN``, ``select.POLLOUT`` or both.
        timeout_ms: Longest wait in milliseconds; None for ever.
    """

    sock: socket.socket | None
    events: int
    timeout_ms: float | None


class Blocking(NamedTuple):
    """A call that blocks, such as connecting; its result is sent back into the generator.

    Attributes:
        function: What to call.
    """

    function: Callable[[], Any]


Steps = Generator["Wait | Blocking", Any, T]
"""A procedure that waits by yielding."""


def ready(sock: socket.socket, events: int, deadline: int) -> Steps[None]:
    """Waits for a socket; the caller has tried already, and tries again.

    Raises:
        TimeoutError: The deadline (on the clock of :func:`time.monotonic_ns`) has passed.
    """
    left = deadline - time.monotonic_ns()
    if left <= 0:
        raise TimeoutError("bridge did not answer in time")
    yield Wait(sock, events, left / 1e6)


def flushed(writer: SocketWriter, sock: socket.socket, deadline: int) -> Steps[bool]:
    """Sends what is pending, waiting up to the deadline; True when nothing is left."""
    try:
        while not writer.flush():
            yield from ready(sock, select.POLLOUT, deadline)
    except TimeoutError:
        pass
    return not writer.pending


def parted(writer: SocketWriter, sock: socket.socket, deadline: int) -> Steps[None]:
    """Sends what is pending. Over the network also says that this was all, and waits until the bridge has closed.

    A connection that is closed with something unread is reset, and what was sent last may be lost with it.
    """
    if not (yield from flushed(writer, sock, deadline)) or sock.family == socket.AF_UNIX or writer.lost:
        return
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        more = True
        while more:
            try:
                more = bool(sock.recv(_RECEIVE_LEN))
            except (BlockingIOError, InterruptedError):
                yield from ready(sock, select.POLLIN, deadline)


def block(wait: Wait) -> None:
    """Waits in this thread."""
    poller = select.poll()
    if wait.sock is not None:
        poller.register(wait.sock, wait.events)
    poller.poll(wait.timeout_ms)


def drive(steps: Steps[T]) -> T:
    """Runs a procedure in this thread, and returns what it returns."""
    resume: Callable[[], Wait | Blocking] = partial(next, steps)
    try:
        while True:
            step = resume()
            resume = called(steps, step.function) if isinstance(step, Blocking) else partial(next, steps)
            if isinstance(step, Wait):
                block(step)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the generator returned
    finally:
        steps.close()


def called(steps: Steps[Any], function: Callable[[], Any]) -> Callable[[], Wait | Blocking]:
    """Makes a blocking call; returns how the generator goes on with its outcome."""
    try:
        return partial(steps.send, function())
    except Exception as error:  # the generator's to handle
        return partial(steps.throw, error)
