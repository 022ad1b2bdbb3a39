"""What the measuring programs of `make bench-python` have in common: arguments, cores, the clock, the line of JSON."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import tick_messages as contracts

END = 2**64 - 1
"""Number of the message that ends an echo."""
CHECKED = 1000
"""Messages whose every field is compared before anything is timed."""
PATIENCE_S = 60.0
PR_SET_PDEATHSIG = 1
Values = tuple[int, int, float, float]


def arguments(description: str, cases: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("case", choices=cases)
    parser.add_argument("--role", choices=["near", "far"], default="near", help="the side that measures, or its echo")
    parser.add_argument("--address", required=True, help="path of a UNIX socket, or what the case makes of it")
    parser.add_argument("--core", type=int, default=-1, help="core of this process; -1 for any")
    parser.add_argument("--millis", type=int, default=300, help="how long to measure")
    parser.add_argument("--messages", type=int, default=0, help="how many messages to move")
    parser.add_argument("--transport", choices=["shm", "socket"], default="shm")
    parser.add_argument("--spin-us", type=int, default=0)
    given = parser.parse_args()
    # What polls for ever must not outlive the program that started it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return given


def values(sequence: int) -> Values:
    """The four fields of a message."""
    return sequence, sequence + 7, float(sequence), sequence * 0.5


def fields(message: Any) -> Values:
    return message.sequence, message.timestamp_ns, message.bid, message.ask


def tick(sequence: int) -> contracts.Tick:
    number, timestamp_ns, bid, ask = values(sequence)
    return contracts.Tick(sequence=number, timestamp_ns=timestamp_ns, bid=bid, ask=ask)


def check(got: Values, sequence: int) -> None:
    if got != values(sequence):
        raise SystemExit(f"message came back changed: sent={values(sequence)} received={got}")


def pin(core: int) -> None:
    """Keeps this process on one core. To be called once the SDK is connected: on a single core it does not spin."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


def ready() -> None:
    """Tells the program that started this one that the other side may start."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def report(**figures: Any) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")


def missing(reason: object) -> SystemExit:
    """Ends a program that lacks what it is to measure: that is no failure, and no figure either."""
    report(missing=str(reason))
    return SystemExit(0)


def percentiles(trips: list[int]) -> dict[str, int]:
    trips.sort()

    def at(share: float) -> int:
        return trips[min(int(len(trips) * share), len(trips) - 1)]

    named = {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999)}
    return {**named, "max": trips[-1], "count": len(trips)}


def round_trips(exchange: Callable[[int], int], checked: Callable[[int], Values], millis: int) -> None:
    """Measures single round trips and reports them.

    Args:
        exchange: Sends a message of this number, waits for the echo, returns its number.
        checked: The same, but returns every field.
        millis: How long to measure.
    """
    for sequence in range(CHECKED):
        check(checked(sequence), sequence)
    clock = time.perf_counter_ns
    trips: list[int] = []
    add = trips.append
    sequence = 0
    end = clock() + millis * 1_000_000
    start = clock()
    while start < end:
        back = exchange(sequence)
        add(clock() - start)
        if back != sequence:
            raise SystemExit(f"another message came back: sent={sequence} received={back}")
        sequence += 1
        start = clock()
    report(round_trip_ns=percentiles(trips))


async def round_trips_async(
    exchange: Callable[[int], Awaitable[int]], checked: Callable[[int], Awaitable[Values]], millis: int
) -> None:
    """As `round_trips`, in an event loop."""
    for sequence in range(CHECKED):
        check(await checked(sequence), sequence)
    clock = time.perf_counter_ns
    trips: list[int] = []
    add = trips.append
    sequence = 0
    end = clock() + millis * 1_000_000
    start = clock()
    while start < end:
        back = await exchange(sequence)
        add(clock() - start)
        if back != sequence:
            raise SystemExit(f"another message came back: sent={sequence} received={back}")
        sequence += 1
        start = clock()
    report(round_trip_ns=percentiles(trips))
