"""Memory ordering: what the SDK assumes of CPython and of the machine, in one place.

**One access, one word.** Head, tail, parked flags and header words are read and written only as ``view[i]`` of a
``memoryview`` cast to ``"Q"`` over 8-byte-aligned memory. CPython moves such an item with one ``memcpy`` of a constant
8 bytes, which compilers turn into one aligned 8-byte load or store; the machine does not tear those.
``struct.pack_into`` is never used on them: it zeroes its target first, and the peer could see that zero.

**The compiler.** Every access is a separate call inside the interpreter, so none is merged, dropped or moved over
another.

**The machine.** x86-64 is TSO: a plain load is an acquire, a plain store is a release. Only a store followed by a load
of something else may be seen swapped. That pair occurs in one place, parking: *store my flag, then look again* against
the peer's *commit, then look at the flag*. The side that parks pays for it with :func:`heavy_fence`
(``membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)``), so the other side needs no fence at all, which Python does not have.
Where that call is missing the link runs FENCED: Python rings the doorbell after every flush and bounds its parks.

**Weaker machines** (aarch64) reorder loads with loads and stores with stores. There :data:`Ordering.barrier` is
``membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)``, a system call that is a full barrier for the calling thread. It runs
after a look that found data, before a commit, and before head is published. Without that call, and on every other
machine, the SDK takes the socket and says why (ORDERING); off Linux it does too (PLATFORM).

Checked on x86-64 Linux with CPython 3.10 to 3.13; ``tests/test_ring.py`` and ``tests/test_handshake.py`` run the code
with barriers, too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "Ordering",
    "detect",
    "disabled",
    "heavy_fence",
    "is_traced",
    "membarrier_registered",
    "one_thread_at_a_time",
]

_MONITORING_TOOLS = range(6)
"""All numbers that ``sys.monitoring`` has for tools."""
_CMD_QUERY = 0
_CMD_GLOBAL_EXPEDITED = 1 << 1
_CMD_REGISTER_GLOBAL_EXPEDITED = 1 << 2
_CMD_PRIVATE_EXPEDITED = 1 << 3
_CMD_REGISTER_PRIVATE_EXPEDITED = 1 << 4
_SYSCALL_NUMBERS = {"x86_64": 324, "amd64": 324, "aarch64": 283, "arm64": 283}
_TSO_MACHINES = frozenset({"x86_64", "amd64"})
_WEAK_MACHINES = frozenset({"aarch64", "arm64"})


class Ordering(NamedTuple):
    """How this process keeps the order of its accesses to shared memory.

    Attributes:
        barrier: None where plain accesses suffice (TSO); otherwise a full barrier for the calling thread.
        problem: Why shared memory cannot be used: ``"PLATFORM"``, ``"ORDERING"``, or empty where it can.
        reason: The same as a sentence.
    """

    barrier: Callable[[], None] | None = None
    problem: str = ""
    reason: str = ""


def one_thread_at_a_time() -> bool:
    """Whether the interpreter runs one thread at a time and changes it at calls and loops only: whether it has a GIL.

    Code between two such places is one step for all other threads and for signal handlers. Where there is no GIL, every
    send takes the long way with its lock.
    """
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def is_traced() -> bool:
    """Whether something may be called between any two lines: a debugger, or what measures coverage.

    Each such call is a place where the interpreter may change threads, so that nothing of several lines is one step any
    more. Then every send takes the long way with its lock, too.
    """
    if sys.gettrace() is not None or threading.gettrace() is not None:
        return True
    monitoring: Any = getattr(sys, "monitoring", None)
    return monitoring is not None and any(monitoring.get_tool(tool) is not None for tool in _MONITORING_TOOLS)


def disabled(what: str) -> bool:
    """Whether the environment switches this mechanism off (``MYCELIUM_DISABLE``, a comma list)."""
    return what in {word.strip() for word in os.environ.get("MYCELIUM_DISABLE", "").split(",")}


def _membarrier(command: int) -> int:
    """Runs the system call; returns -1 where it is missing or refused."""
    number = _SYSCALL_NUMBERS.get(platform.machine().lower())
    if number is None or not sys.platform.startswith("linux"):
        return -1
    try:
        syscall = _syscall_function()
    except (OSError, AttributeError):  # a C library without dlopen or without syscall()
        return -1
    return syscall(number, command, 0, 0)


def _syscall_function() -> Callable[[int, int, int, int], int]:
    function = ctypes.CDLL(None).syscall
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long] * 4
    return function


class _Registration:
    """What this process has registered for; asked of the kernel once, and again after a fork."""

    def __init__(self) -> None:
        self.pid = 0
        self.global_expedited = False
        self.fence: Callable[[], int] | None = None

    def ensure(self) -> None:
        if self.pid == os.getpid():
            return
        self.pid = os.getpid()
        supported = _membarrier(_CMD_QUERY)
        wanted = _CMD_GLOBAL_EXPEDITED | _CMD_REGISTER_GLOBAL_EXPEDITED
        self.global_expedited = (
            supported >= 0 and supported & wanted == wanted and _membarrier(_CMD_REGISTER_GLOBAL_EXPEDITED) == 0
        )
        if self.global_expedited:
            function = _syscall_function()
            number = _SYSCALL_NUMBERS[platform.machine().lower()]
            self.fence = lambda: function(number, _CMD_GLOBAL_EXPEDITED, 0, 0)


_registration = _Registration()


def membarrier_registered() -> bool:
    """Registers this process for the heavy fence, once; False where that is impossible or switched off."""
    if disabled("membarrier"):
        return False
    _registration.ensure()
    return _registration.global_expedited


def heavy_fence() -> None:
    """Orders all earlier accesses of every registered process before all its later ones; one system call.

    Only for channels in ASYMMETRIC mode, for which :func:`membarrier_registered` was true.
    """
    fence = _registration.fence
    if fence is None or fence() != 0:
        raise OSError("membarrier failed: command=GLOBAL_EXPEDITED; set MYCELIUM_DISABLE=membarrier to do without")


def _private_barrier() -> Callable[[], None] | None:
    supported = _membarrier(_CMD_QUERY)
    wanted = _CMD_PRIVATE_EXPEDITED | _CMD_REGISTER_PRIVATE_EXPEDITED
    if supported < 0 or supported & wanted != wanted or _membarrier(_CMD_REGISTER_PRIVATE_EXPEDITED) != 0:
        return None
    function = _syscall_function()
    number = _SYSCALL_NUMBERS[platform.machine().lower()]

    def barrier() -> None:
        if function(number, _CMD_PRIVATE_EXPEDITED, 0, 0) != 0:
            raise OSError("membarrier failed: command=PRIVATE_EXPEDITED; set MYCELIUM_DISABLE=shm to use the socket")

    return barrier


def detect(system: str | None = None, machine: str | None = None) -> Ordering:
    """Finds out whether and how this process may use shared memory.

    Args:
        system: As ``sys.platform``; by default this one.
        machine: As ``platform.machine()``; by default this one.
    """
    system = sys.platform if system is None else system
    machine = (platform.machine() if machine is None else machine).lower()
    if not system.startswith("linux") or not hasattr(os, "eventfd_write"):
        return Ordering(problem="PLATFORM", reason=f"no eventfd or memfd here: platform={system}, need=linux")
    if sys.byteorder != "little" or sys.maxsize < 2**32:
        return Ordering(problem="ORDERING", reason="need a 64-bit little-endian machine for one-access words")
    if machine in _TSO_MACHINES:
        return Ordering()
    if machine in _WEAK_MACHINES:
        barrier = _private_barrier()
        if barrier is not None:
            return Ordering(barrier=barrier)
        return Ordering(problem="ORDERING", reason=f"membarrier PRIVATE_EXPEDITED is missing: machine={machine}")
    return Ordering(problem="ORDERING", reason=f"memory ordering not proven for machine={machine}")
