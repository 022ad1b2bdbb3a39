"""The usual shape of a worker: functions that are called with messages, at times, and at the beginning and the end."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from ._contracts import is_contract
from ._delivery import delivery_code
from ._timers import Timer
from ._worker_blocking import run_blocking
from ._worker_publisher import AsyncWorkerPublisher, WorkerPublisher
from .exceptions import ChannelClosed, ChannelError, LinkFailed, PeerLost

if TYPE_CHECKING:
    from ._core import ChannelCore
    from ._delivery import Delivery
    from .events import Event

__all__ = ["Worker", "WorkerStatistics"]

MessageT = TypeVar("MessageT")
PublisherT = TypeVar("PublisherT", bound="WorkerPublisher[Any] | AsyncWorkerPublisher[Any]")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_log = logging.getLogger("mycelium.worker")
_FORMAT = "%(levelname)s %(name)s: %(message)s"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_MODES = ("exit", "skip")


class WorkerStatistics(NamedTuple):
    """Counters of one worker since its start; those of its connection are ``worker.channel.statistics()``.

    Attributes:
        state: What :meth:`Worker.health` said last, or ``"new"``, ``"running"``, ``"draining"``, ``"stopped"``,
            ``"failed"``.
        handled: Messages that a handler took without an exception.
        failed: Exceptions of handlers and timers.
        unhandled: Messages that came and that no handler is for.
        timer_runs: Runs of all timers.
        timer_misses: Runs of timers that were left out because something took too long.
    """

    state: str
    handled: int
    failed: int
    unhandled: int
    timer_runs: int
    timer_misses: int


class _Handler(NamedTuple):
    function: Callable[..., Any]
    on_error: str
    limit: int  # most messages of a batch; 0 for one message at a time
    delivery: Delivery | None


class Worker:
    """Calls functions with the messages that come, and at times; ends when the bridge shuts down.

    ::

        worker = mycelium.Worker()
        signals = worker.publisher(Signal)

        @worker.on(Quote)
        def answer(quote):
            signals.send(Signal(worker="mine", side=Side.HOLD, price=quote.bid))

        if __name__ == "__main__":
            worker.run()

    Everything runs in one thread, one function after the other; there is no helper thread, and waiting is sleeping. A
    message is valid until its handler returns (``message.copy()`` keeps it), and is acknowledged after that. A handler
    that raises ends the process with exit code 1, its message not acknowledged: the bridge starts a successor, which
    gets it again. With ``on_error="skip"`` the message is acknowledged, counted and logged instead.

    Where one of the functions is an ``async def``, or there is an :meth:`async_publisher`, the whole worker runs in an
    event loop, over :mod:`mycelium.aio`. Messages are still handled one after the other, each until its handler is
    done; timers run beside them whenever a handler awaits. Plain functions are called as they are, and must not block.

    Args:
        contracts: As for :func:`mycelium.connect`; None: the classes of the handlers and publishers.
        on_error: ``"exit"`` or ``"skip"``, for handlers and timers that do not say themselves.
        name: Name of the link; None takes ``MYCELIUM_WORKER``.

    Raises:
        ValueError: ``on_error`` is something else.
    """

    def __init__(
        self,
        *,
        contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = None,
        on_error: str = "exit",
        name: str | None = None,
    ) -> None:
        self._contracts = contracts
        self._on_error = _mode(on_error)
        self._name = name
        self._handlers: dict[type[Any], _Handler] = {}
        self._timers: list[Timer] = []
        self._starts: list[Callable[[], Any]] = []
        self._shutdowns: list[Callable[[float], Any]] = []
        self._events: list[Callable[[Event], Any]] = []
        self._publishers: list[WorkerPublisher[Any] | AsyncWorkerPublisher[Any]] = []
        self._channel: ChannelCore | None = None
        self._state = "new"
        self._stopping = False
        self._told: BaseException | None = None
        self._handled = self._failed = self._timer_runs = 0
        self._unhandled: dict[type[Any], int] = {}

    # ---- what is called when

    def on(
        self, *contracts: type[Any], on_error: str | None = None, delivery: Delivery | None = None
    ) -> Callable[[FunctionT], FunctionT]:
        """Calls the function with every message of these classes; the worker subscribes to them.

        Args:
            contracts: Message classes; each has one handler.
            on_error: What an exception does: ``"exit"`` or ``"skip"``; None as the worker.
            delivery: As :meth:`Channel.subscribe`.

        Raises:
            ValueError: A class has a handler already, or there is no such policy.
            TypeError: It is no generated message class.
        """
        return self._registration(contracts, on_error, delivery, limit=0)

    def on_batch(
        self,
        *contracts: type[Any],
        limit: int = 1024,
        on_error: str | None = None,
        delivery: Delivery | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Calls the function with a :class:`mycelium.Batch` of all messages of one class that are there in a row.

        The batch is valid until the handler returns, and acknowledged as a whole. A worker with such a handler takes
        the messages of its other handlers in batches too: one call each, but acknowledged together.

        Args:
            contracts: Message classes.
            limit: Most messages of one batch.
            on_error: As :meth:`on`.
            delivery: As :meth:`Channel.subscribe`.

        Raises:
            ValueError: A class has a handler already, the limit is below 1, or there is no such policy.
            TypeError: It is no generated message class.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}, legal: 1 or more")
        return self._registration(contracts, on_error, delivery, limit=limit)

    def _registration(
        self, contracts: tuple[type[Any], ...], on_error: str | None, delivery: Delivery | None, *, limit: int
    ) -> Callable[[FunctionT], FunctionT]:
        mode = self._on_error if on_error is None else _mode(on_error)
        delivery_code(delivery)
        if not contracts:
            raise TypeError("no message class given; write @worker.on(Quote)")
        for contract in contracts:
            if not is_contract(contract):
                raise TypeError(f"not a message class: {contract!r}; use a class of the generated messages module")
            before = self._handlers.get(contract)
            if before is not None:
                name = _name(before.function)
                raise ValueError(f"second handler for a message: message={contract.NAME} handler={name}; use one")

        def register(function: FunctionT) -> FunctionT:
            for contract in contracts:
                self._handlers[contract] = _Handler(function, mode, limit, delivery)
            return function

        return register

    def every(self, seconds: float) -> Callable[[FunctionT], FunctionT]:
        """Calls the function at this period, first one period after the start; without drift.

        It runs between two messages. A run that is late by whole periods happens once, and the others are counted as
        misses.

        Raises:
            ValueError: The period is below a millisecond.
        """

        def register(function: FunctionT) -> FunctionT:
            self._timers.append(Timer(seconds, function))
            return function

        return register

    def on_start(self, function: FunctionT) -> FunctionT:
        """Calls the function once the worker is connected, before it subscribes: settings and publishers are there."""
        self._starts.append(function)
        return function

    def on_shutdown(self, function: FunctionT) -> FunctionT:
        """Calls the function after the last message, with the seconds that the bridge leaves until it uses force.

        Publishing still works. It is called after a shutdown, after :meth:`stop` and after Ctrl-C (both with infinity),
        and not after an exception.
        """
        self._shutdowns.append(function)
        return function

    def on_event(self, function: FunctionT) -> FunctionT:
        """Calls the function with what happens besides messages: a record of :mod:`mycelium.events`.

        It is a plain function, and an exception in it ends the worker.

        Raises:
            TypeError: It is an ``async def``.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"event handler is async: handler={_name(function)}; make it a plain function")
        self._events.append(function)
        return function

    def publisher(self, contract: type[MessageT]) -> WorkerPublisher[MessageT]:
        """Returns a publisher for plain functions; asked for before the worker runs, it works once it does."""
        return self._add_publisher(WorkerPublisher(_checked(contract)))

    def async_publisher(self, contract: type[MessageT]) -> AsyncWorkerPublisher[MessageT]:
        """Returns a publisher whose ``send`` is awaited; makes the worker run in an event loop."""
        return self._add_publisher(AsyncWorkerPublisher(_checked(contract)))

    def _add_publisher(self, publisher: PublisherT) -> PublisherT:
        if self._channel is not None:
            name = getattr(publisher.contract, "NAME", "")
            raise RuntimeError(f"worker runs already: message={name}; ask for publishers before worker.run()")
        self._publishers.append(publisher)
        return publisher

    # ---- what functions ask for

    @property
    def channel(self) -> ChannelCore:
        """The connection: a :class:`mycelium.Channel`, or an ``AsyncChannel`` where the worker is async.

        Raises:
            RuntimeError: The worker does not run.
        """
        if self._channel is None:
            raise RuntimeError("worker is not connected; use this in a handler or in @worker.on_start")
        return self._channel

    @property
    def settings(self) -> dict[str, Any]:
        """The worker's settings from the bridge's configuration.

        Raises:
            RuntimeError: The worker does not run.
        """
        return self.channel.settings

    def health(self, state: str) -> None:
        """Says how the worker is, in a few words: for the log, where the state changes, and :meth:`statistics`."""
        if state != self._state:
            self._state = state
            _log.info("worker state: %s", state)

    def stop(self) -> None:
        """Ends the run with exit code 0 once the running function has returned."""
        self._stopping = True

    def statistics(self) -> WorkerStatistics:
        """Returns the counters."""
        return WorkerStatistics(
            state=self._state,
            handled=self._handled,
            failed=self._failed,
            unhandled=sum(self._unhandled.values()),
            timer_runs=self._timer_runs,
            timer_misses=sum(timer.missed for timer in self._timers),
        )

    # ---- running

    def run(self, address: str | None = None, **options: Any) -> NoReturn:
        """Connects, works until the bridge shuts down, and ends the process.

        The exit code is 0 after a shutdown or :meth:`stop`, 1 after an exception or where the bridge is lost, and 130
        after Ctrl-C. Logging is set up (to stderr, which the bridge puts into its log) where the program has not done
        so; its level is the setting ``log_level``, by default ``"INFO"``.

        Args:
            address: As :func:`mycelium.connect`; None for a worker that the bridge has started.
            options: Further arguments of :func:`mycelium.connect`.
        """
        own_logging = not logging.getLogger().handlers
        if own_logging:
            logging.basicConfig(level=logging.INFO, format=_FORMAT)
        sys.exit(self._main(address, options, own_logging=own_logging, check=False))

    def _run_in_test(self, *, check: bool) -> int:
        return self._main(None, {}, own_logging=False, check=check)

    def _main(self, address: str | None, options: dict[str, Any], *, own_logging: bool, check: bool) -> int:
        self._stopping = False
        self._told = None
        self._own_logging = own_logging
        options = {"contracts": self._contracts or self._classes(), "name": self._name, **options}
        if self._events:
            options["on_event"] = self._on_event
        try:
            if self._is_async():
                from ._worker_async import run

                run(self, address, options)
            else:
                run_blocking(self, address, options)
            self.health("stopped")
        except KeyboardInterrupt:
            self.health("stopped")
            return 130
        except Exception as error:
            self._state = "failed"
            if error is not self._told:
                _log.error("worker failed: error=%s: %s", type(error).__name__, error, exc_info=_unexpected(error))
            if check:
                raise
            return 1
        finally:
            _log.info("worker ended: %s", self.statistics())
        return 0

    def _is_async(self) -> bool:
        functions = [it.function for it in self._handlers.values()] + [it.function for it in self._timers]
        functions += [*self._starts, *self._shutdowns]
        publishers = any(isinstance(it, AsyncWorkerPublisher) for it in self._publishers)
        return publishers or any(map(inspect.iscoroutinefunction, functions))

    def _connected(self, channel: ChannelCore) -> None:
        self._channel = channel
        if self._own_logging:
            _set_level(channel.settings.get("log_level", "INFO"))

    def _on_event(self, event: Event) -> None:
        for function in self._events:
            self._call(function, event)

    def _classes(self) -> list[type[Any]]:
        return list(dict.fromkeys([*self._handlers, *(it.contract for it in self._publishers)]))

    def _subscriptions(self) -> list[tuple[Delivery | None, list[type[Any]]]]:
        """What to subscribe to, by policy."""
        wanted: dict[Delivery | None, list[type[Any]]] = {}
        for contract, handler in self._handlers.items():
            wanted.setdefault(handler.delivery, []).append(contract)
        return list(wanted.items())

    def _start_timers(self) -> None:
        now = time.monotonic_ns()
        for timer in self._timers:
            timer.start(now)

    def _largest_batch(self) -> int:
        """Most messages of a batch; 0 where no handler takes batches."""
        return max((handler.limit for handler in self._handlers.values()), default=0)

    def _call(self, function: Callable[..., Any], *arguments: Any, on_error: str = "exit") -> None:
        try:
            function(*arguments)
        except Exception as error:
            self._on_exception(error, function, on_error)

    def _no_handler(self, message: Any) -> None:
        kind = type(message)
        seen = self._unhandled.get(kind, 0)
        self._unhandled[kind] = seen + 1
        if not seen:
            _log.warning(
                "no handler for a message: message=%s topic_id=%d; add @worker.on(%s), or take it out of subscribe in "
                "the bridge's configuration",
                kind.NAME,
                kind.TOPIC_ID,
                kind.__name__,
            )

    def _on_exception(self, error: Exception, function: Callable[..., Any], on_error: str, message: Any = None) -> None:
        """Logs and counts; raises again unless the message is to be skipped."""
        self._failed += 1
        skips = on_error == "skip" and not isinstance(error, (PeerLost, LinkFailed, ChannelClosed))
        what = "" if message is None else f" message={_shown(message)}"
        if message is None:
            fate = "goes on" if skips else "the worker exits"
        else:
            fate = "skipped: it is acknowledged" if skips else "it is not acknowledged and comes again after a restart"
        _log.error("handler failed: handler=%s%s; %s", _name(function), what, fate, exc_info=error)
        if not skips:
            self._told = error
            raise error


def _checked(contract: type[MessageT]) -> type[MessageT]:
    if not is_contract(contract):
        raise TypeError(f"not a message class: {contract!r}; use a class of the generated messages module")
    return contract


def _mode(on_error: str) -> str:
    if on_error not in _MODES:
        raise ValueError(f"on_error not understood: on_error={on_error!r}, legal: {', '.join(_MODES)}")
    return on_error


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _shown(message: Any) -> str:
    """A message or batch for the log; the payload only where its contract allows that."""
    contract = getattr(type(message), "TOPIC_ID", None)
    return repr(message) if contract is None else f"{message!r} topic_id={contract}"


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, (ChannelError, TimeoutError)) else error


def _set_level(level: Any) -> None:
    if str(level).upper() not in _LEVELS:
        raise ValueError(f"log level not understood: log_level={level!r}, legal: {', '.join(_LEVELS)}")
    logging.getLogger().setLevel(str(level).upper())
