"""Coming back after a link was lost: when to try, and everything that has to be made again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from . import _control as control
from ._contracts import Registry
from ._waits import Blocking, Steps, Wait, block, called
from .events import Disconnected, Reconnected
from .exceptions import ChannelError, HandshakeRefused, PeerLost, ProtocolError

if TYPE_CHECKING:
    from ._core import ChannelCore

__all__ = ["Backoff", "Reconnect", "Recovery"]

_log = logging.getLogger("mycelium")
_PASSING = frozenset(
    {control.RefusedCode.NAME_TAKEN, control.RefusedCode.SHUTTING_DOWN, control.RefusedCode.BUSY},
)
"""Refusals that pass by themselves: a bridge that has not noticed the loss yet, one that ends, one that is busy."""


@dataclass(frozen=True)
class Reconnect:
    """How a client of a listening bridge comes back: ``connect(reconnect=Reconnect(...))``, or True for the defaults.

    The pause doubles with every attempt up to ``max_delay``, and each is shortened at random by up to a half, so that
    many clients do not come back at the same instant.

    Attributes:
        first_delay: First pause in seconds.
        max_delay: Longest pause in seconds.
        max_attempts: Attempts until it gives up with :class:`PeerLost`; None for any number.
        deadline: Seconds after the loss until it gives up; None for never.
        after_shutdown: Whether to come back after an orderly shutdown of the bridge, too.
    """

    first_delay: float = 0.05
    max_delay: float = 5.0
    max_attempts: int | None = None
    deadline: float | None = None
    after_shutdown: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.first_delay <= self.max_delay:
            text = f"first_delay={self.first_delay} max_delay={self.max_delay}"
            raise ValueError(f"delays not understood: {text}, legal: 0 < first_delay <= max_delay")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts={self.max_attempts}, legal: 1 or more, or None")
        if self.deadline is not None and self.deadline <= 0:
            raise ValueError(f"deadline={self.deadline}, legal: more than 0, or None")


class Backoff:
    """The pauses of one loss; a value without a clock.

    Args:
        plan: How to come back.
        chance: Returns a number from 0 to 1.

    Attributes:
        attempts: How many pauses were given out.
    """

    def __init__(self, plan: Reconnect, chance: Callable[[], float] = random.random) -> None:
        self._plan = plan
        self._chance = chance
        self._delay = plan.first_delay
        self.attempts = 0

    def pause(self, down_s: float) -> float | None:
        """Returns the seconds before the next attempt, so long after the loss; None: give up."""
        plan = self._plan
        if plan.max_attempts is not None and self.attempts >= plan.max_attempts:
            return None
        pause = self._delay * (1 - self._chance() / 2)
        if plan.deadline is not None:
            if down_s >= plan.deadline:
                return None
            pause = min(pause, plan.deadline - down_s)
        self._delay = min(self._delay * 2, plan.max_delay)
        self.attempts += 1
        return pause


class Recovery:
    """Makes the link of a channel again, as often as it is lost.

    Args:
        channel: The channel.
        plan: How to come back.
        dial: Makes a connection.
        opening: Arguments of the handshake.
    """

    def __init__(self, channel: ChannelCore, plan: Reconnect, dial: Callable[[], Any], opening: dict[str, Any]) -> None:
        self._channel = channel
        self.plan = plan
        self._dial = dial
        self._opening = opening
        self._steps: Steps[None] | None = None
        self._next: Callable[[], Wait | Blocking] | None = None
        self._wait: Wait | None = None
        self._until: int | None = None
        self.final: ChannelError | None = None  # why it gave up

    def steps(self, cause: ChannelError) -> Steps[None]:
        """Tells that the link is lost, tries until there is another one, and restores what was there.

        Raises:
            PeerLost: It gave up.
            HandshakeRefused, ContractMismatch, UnknownTopic: The bridge came back and does not want this side.
        """
        channel, began, reason = self._channel, time.monotonic_ns(), str(cause)
        unsent, unread = channel._lose_link()
        _log.warning(
            "link lost, coming back: link=%s frames_unsent=%d frames_unread=%d reason=%s",
            channel.name, unsent, unread, reason,
        )  # fmt: skip
        channel._tell(Disconnected(reason, unsent, unread))
        backoff = Backoff(self.plan)
        problem: Exception = cause
        while True:
            down = (time.monotonic_ns() - began) / 1e9
            pause = backoff.pause(down)
            if pause is None:
                self.final = PeerLost(
                    f"gave up coming back: attempts={backoff.attempts} down_s={down:.1f} last problem: {problem}"
                )
                raise self.final from problem
            yield Wait(None, 0, pause * 1e3)
            try:
                sock = yield Blocking(self._dial)
                channel._registry = Registry(channel._contracts)
                yield from channel._open_steps(sock, **self._opening)
                yield from channel._restore_steps()
                break
            except HandshakeRefused as error:
                if error.code not in _PASSING:
                    self.final = error
                    raise
                problem = error
            except (PeerLost, ProtocolError, TimeoutError) as error:
                problem = error
            except ChannelError as error:
                self.final = error
                raise
        channel._down = False
        channel._link.producer.abandon()
        down = (time.monotonic_ns() - began) / 1e9
        _log.warning("link is back: link=%s attempts=%d down_s=%.3f", channel.name, backoff.attempts, down)
        channel._tell(Reconnected(backoff.attempts, down, channel.transport))

    def run(self, cause: ChannelError, deadline: int | None) -> None:
        """Runs the steps in this thread until the link is back, or the deadline; the next call goes on from there.

        Raises:
            TimeoutError: The deadline passed; the rest as :meth:`steps`.
        """
        if self.final is not None:
            raise self.final
        if self._steps is None:
            self._steps = self.steps(cause)
            self._next = partial(next, self._steps)
        while True:
            if self._wait is not None:
                self._sleep(self._wait, deadline)
            try:
                step = self._next() if self._next is not None else next(self._steps)
            except StopIteration:
                self._steps = None
                self._channel._deliver()
                return
            except BaseException:
                self._steps = None
                raise
            if isinstance(step, Blocking):
                self._next = called(self._steps, step.function)
                continue
            self._next = partial(next, self._steps)
            self._wait = step
            self._until = None if step.timeout_ms is None else time.monotonic_ns() + int(step.timeout_ms * 1e6)

    def _sleep(self, wait: Wait, deadline: int | None) -> None:
        if self._channel._events:
            self._channel._deliver()
        limits = [limit for limit in (self._until, deadline) if limit is not None]
        left = max(min(limits) - time.monotonic_ns(), 0) / 1e6 if limits else None
        block(Wait(wait.sock, wait.events, left))
        now = time.monotonic_ns()
        if deadline is not None and now >= deadline and (self._until is None or now < self._until):
            raise TimeoutError(f"not connected in time: link={self._channel.name}; the bridge is away")
        self._wait = None

    def end(self) -> None:
        """Gives up whatever is under way; the channel is being closed."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()
