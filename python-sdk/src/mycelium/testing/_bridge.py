"""The bridge that unit tests talk to."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import _control as control
from .. import messages
from .._connect import connect
from .._contracts import Registry, is_fixed
from .._delivery import Delivery, delivery_code, delivery_name
from .._dynamic import encode_payload
from .._frame import FrameHeader, header_word
from .._layout import FLAG_ENCODING_SHIFT
from .._worker import Worker
from ..channel import Channel
from ..exceptions import FrameTooLarge
from ._router import Frame, Router

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Bridge", "Killed"]

MessageT = TypeVar("MessageT")
_KILLED = -9
_REFUSALS = tuple(code.name for code in control.TopicReplyCode if code)


class Killed(BaseException):
    """Ends the run of a worker that :meth:`Bridge.kill` killed; no handler catches it."""


class Bridge:
    """One link of a bridge, in memory, for one strategy after the other.

    The strategy does not notice: handshake, rings, doorbells and acknowledgements are the real ones. It runs in the
    thread of the test; the bridge's part runs in a thread of its own, so neither waits for the other.

    Args:
        contracts: The generated module, or several, or message classes, that the bridge knows; None takes every topic.
        settings: What ``channel.settings`` and ``worker.settings`` give.
        subscribe: Messages that the strategy gets without asking, as by ``subscribe`` in the bridge's configuration.
        refuse: Message -> why it is refused, ``"UNKNOWN_TOPIC"`` or ``"LAYOUT_MISMATCH"`` for example.
        transport: ``"shm"``, or ``"socket"`` for a strategy that runs where there is no shared memory.
        ring_capacity: Bytes of each ring, a power of two; small ones are soon full.
        spin_us: How long the strategy spins before it sleeps, in microseconds.
        name: Name of the worker.

    Raises:
        ValueError: An argument is outside of its range; the text says what is legal.
    """

    def __init__(
        self,
        *,
        contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = messages,
        settings: dict[str, Any] | None = None,
        subscribe: Iterable[type[Any]] = (),
        refuse: dict[type[Any], str] | None = None,
        transport: str = "shm",
        ring_capacity: int = 65536,
        spin_us: int = 0,
        name: str = "worker",
    ) -> None:
        if transport not in ("shm", "socket"):
            raise ValueError(f"transport not understood: transport={transport!r}, legal: shm, socket")
        if not 4096 <= ring_capacity <= 1 << 30 or ring_capacity & (ring_capacity - 1):
            raise ValueError(f"ring_capacity={ring_capacity}, legal: a power of two in 4096..={1 << 30}")
        refused = {contract.TOPIC_ID: _refusal(contract, code) for contract, code in (refuse or {}).items()}
        registry = Registry(contracts)
        known = [contract for _, contract in registry.fixed.values()] + list(registry.dynamic.values())
        self._names = {contract.TOPIC_ID: str(contract.NAME) for contract in known}
        self._name = name
        self._running = False
        self._channel: Channel | None = None
        self._link = Router(
            topics=None if contracts is None else {it.TOPIC_ID: bytes(it.LAYOUT_DIGEST) for it in known},
            subscribed=frozenset(contract.TOPIC_ID for contract in subscribe),
            refused=refused,
            policies={it.TOPIC_ID: delivery_code(getattr(it, "DELIVERY", None)) for it in known},
            keyless=frozenset(it.TOPIC_ID for it in known if not (is_fixed(it) and it.KEY)),
            settings=settings,
            transport=transport,
            capacity=ring_capacity,
            spin_us=spin_us,
        )

    # ---- the strategy

    def connect(self, **options: Any) -> Channel:
        """Returns the strategy's end, as :func:`mycelium.connect` gives it to a worker; closed with this bridge.

        Args:
            options: As :func:`mycelium.connect`, but for the address.
        """
        with self.environment():
            self._channel = connect(**options)
        return self._channel

    def run(
        self,
        strategy: Worker | Callable[[], Any],
        *,
        until: Callable[[], bool] | None = None,
        timeout: float = 10.0,
        check: bool = True,
    ) -> int:
        """Runs a strategy in this thread, shuts it down, and returns its exit code.

        Args:
            strategy: A :class:`mycelium.Worker`, or a function that calls ``mycelium.connect()`` as a program does.
            until: When to shut down; None: once everything that was published is handled. Called in the bridge's
                thread.
            timeout: Longest time until that, in seconds.
            check: Raise what the strategy failed with, instead of returning 1.

        Returns:
            The exit code: what the function returned or passed to ``sys.exit``; -9 after :meth:`kill`.

        Raises:
            AssertionError: ``until`` did not come true in time.
        """
        with self.environment():
            self._link.stop_when(until, timeout)
            self._running = True
            try:
                code = strategy._run_in_test(check=check) if isinstance(strategy, Worker) else _exit_code(strategy)
            except Killed:
                code = _KILLED
            finally:
                self._running = False
                self._end_session()
        if self._link.until_problem is not None:
            raise self._link.until_problem
        if self._link.until_missed:
            raise AssertionError(f"condition not met in time: timeout_s={timeout} {self._state()}")
        return code

    @contextlib.contextmanager
    def environment(self) -> Generator[None]:
        """Inside of this block one ``mycelium.connect()`` without an address gets the strategy's end.

        Raises:
            RuntimeError: A channel is connected already.
        """
        if self._running or (self._channel is not None and not self._channel.closed):
            raise RuntimeError("a strategy is connected already; close its channel, or kill() it")
        if self._link.hello is not None or self._link.hung_up.is_set():
            self._end_session()
            self._link.next_session()
        mine = {"MYCELIUM_FD": str(self._link.peer_sock.detach()), "MYCELIUM_WORKER": self._name}
        before = {key: os.environ.get(key) for key in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            if os.environ.get("MYCELIUM_FD") == mine["MYCELIUM_FD"]:
                os.close(int(mine["MYCELIUM_FD"]))  # nobody took it
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value

    # ---- data

    def publish(self, *published: Any) -> None:
        """Publishes messages to the strategy, and does not wait.

        They are delivered in this order as soon as the strategy has subscribed to them and its ring has room; one
        that it has not subscribed to holds up those behind it.

        Raises:
            FrameTooLarge: A message does not fit into the ring.
        """
        self._link.deliver([self._frame(message) for message in published])

    def expect(self, contract: type[MessageT], timeout: float = 5.0) -> MessageT:
        """Returns the next message of this class that the strategy published, as an owned copy.

        Messages of other classes stay for their own call.

        Args:
            contract: The message class.
            timeout: Longest wait in seconds.

        Raises:
            AssertionError: None came in time; the text says what did.
        """
        link, kind = self._link, contract
        topic_id: int = getattr(kind, "TOPIC_ID", 0)
        end = time.monotonic() + timeout
        with link.changed:
            link.settle()
            while True:
                for place, (header, payload) in enumerate(link.taken):
                    if header.topic_id == topic_id:
                        del link.taken[place]
                        return cast(MessageT, self._decode(kind, payload))
                left = end - time.monotonic()
                if left <= 0:
                    name = getattr(kind, "NAME", kind)
                    raise AssertionError(f"not published in time: message={name} timeout_s={timeout} {self._state()}")
                link.changed.wait(left)
                self._check_thread()

    def published(self, contract: type[MessageT]) -> list[MessageT]:
        """Returns all messages of this class that the strategy has published and that were not asked for yet."""
        topic_id: int = getattr(contract, "TOPIC_ID", 0)
        with self._link.changed:
            self._link.settle()
            mine = [payload for header, payload in self._link.taken if header.topic_id == topic_id]
            self._link.taken = [frame for frame in self._link.taken if frame[0].topic_id != topic_id]
        return [self._decode(contract, payload) for payload in mine]

    def delivery(self, contract: type[Any]) -> Delivery | None:
        """Returns the policy with which the strategy has subscribed to a message; None where it has not.

        This bridge drops nothing, whatever the policy; it waits for room.
        """
        return delivery_name(self._link.deliveries.get(contract.TOPIC_ID, 0))

    @property
    def unacknowledged(self) -> int:
        """Messages that were delivered and would be delivered again if the strategy died now."""
        return self._link.unacknowledged

    @property
    def epoch(self) -> int:
        """How often the link was handed to a strategy, from 1."""
        return self._link.epoch

    # ---- what can happen to a strategy

    def kill(self) -> None:
        """Ends the strategy at this instant, as SIGKILL does: it acknowledges nothing more and says no goodbye.

        What it published is there; the next :meth:`connect` or :meth:`run` is its successor and gets again what was
        not acknowledged. Called from a handler inside of :meth:`run` it does not return.
        """
        self._link.kill()
        if self._running:
            raise Killed
        if self._channel is None or self._channel.closed:
            raise RuntimeError("nothing to kill; connect() first, or call this from a handler inside of run()")
        self._end_session()

    def shutdown(self, deadline: float = 5.0, reason: str = "shutdown by the test") -> None:
        """Tells the strategy that the bridge is stopping, after everything that was published.

        Args:
            deadline: What the strategy is told to have left, in seconds; nothing is ended by force.
            reason: A sentence.
        """
        self._link.shut_down(deadline, reason, waits=True)

    def hang_up(self) -> None:
        """Vanishes without a word, as a bridge that was killed."""
        self._link.end_session()

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Takes nothing from the strategy inside of this block, so that its ring, or socket, becomes full."""
        self._link.settle()
        self._link.paused = True
        try:
            yield
        finally:
            self._link.paused = False
            self._link.settle()

    # ---- the end

    def close(self) -> None:
        """Ends the bridge and the channel that :meth:`connect` gave; may be called again."""
        if self._channel is not None:
            self._channel.close()
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- inside

    def _end_session(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._link.hello is not None:
            self._link.hung_up.wait(5.0)  # what was committed before is delivered
        self._check_thread()

    def _check_thread(self) -> None:
        problem = self._link.problem
        if problem is not None:
            raise RuntimeError(f"bridge double failed: error={problem!r}") from problem

    def _frame(self, message: Any) -> Frame:
        kind: Any = type(message)
        payload = message.to_bytes() if is_fixed(kind) else encode_payload(kind, message)
        largest = self._link.max_payload
        if len(payload) > largest:
            text = f"frame too large: message={kind.NAME} payload_len={len(payload)}, legal: 0..={largest}"
            raise FrameTooLarge(f"{text}; enlarge ring_capacity", payload_len=len(payload), max_payload=largest)
        if is_fixed(kind):
            return kind.HEADER_WORD, payload
        return header_word(len(payload), kind.TOPIC_ID, kind.ENCODING << FLAG_ENCODING_SHIFT), payload

    def _decode(self, contract: Any, payload: bytes) -> Any:
        if is_fixed(contract):
            return contract.from_bytes(payload)
        received = contract._received(_views(payload), 0, len(payload))
        return received.copy()

    def _state(self) -> str:
        link = self._link
        taken: list[tuple[FrameHeader, bytes]] = list(link.taken)
        came = Counter(self._name_of(header.topic_id) for header, _ in taken)
        shown = ", ".join(f"{name} x{count}" for name, count in came.items()) or "nothing"
        text = f"published={shown} unacknowledged={self.unacknowledged} undelivered={len(link.backlog)}"
        waiting = ", ".join(map(self._name_of, link.waiting()))
        if link.attached is None:
            return f"{text}; the strategy has not connected"
        return f"{text}; nobody has subscribed to {waiting}" if waiting else text

    def _name_of(self, topic_id: int) -> str:
        return self._names.get(topic_id, f"topic_id={topic_id}")


def _views(payload: bytes) -> Any:
    from .._views import Views

    return Views(payload + bytes(-len(payload) % 8))


def _refusal(contract: type[Any], code: str) -> control.TopicReplyCode:
    if code not in _REFUSALS:
        raise ValueError(f"refusal not understood: message={contract.__name__} code={code!r}, legal: {_REFUSALS}")
    return control.TopicReplyCode[code]


def _exit_code(program: Callable[[], Any]) -> int:
    try:
        code = program()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201  # as the interpreter does
        return 1
    return 0 if code is None else int(code)
