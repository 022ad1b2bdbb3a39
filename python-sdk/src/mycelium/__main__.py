"""``python -m mycelium``: what this installation and this machine can do, and why a link would fall back to the socket.

Exit codes: 0 shared memory can be used, 3 it cannot and every link takes the socket, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import sys
from typing import Any

from . import __version__
from . import _ordering as ordering

__all__ = ["main", "report"]

_SHM_POSSIBLE = 0
_SOCKET_ONLY = 3


def report() -> dict[str, Any]:
    """Returns what ``--json`` prints."""
    here = ordering.detect()
    fd_passing = hasattr(socket, "AF_UNIX") and hasattr(socket.socket, "recvmsg")
    membarrier = ordering.membarrier_registered()
    code, reason = here.problem, here.reason
    if not code and ordering.disabled("shm"):
        code, reason = "DISABLED", "switched off: MYCELIUM_DISABLE contains shm"
    if not code and ordering.disabled("map"):
        code, reason = "MAP_FAILED", "switched off: MYCELIUM_DISABLE contains map"
    if not code and (not fd_passing or ordering.disabled("fd-passing")):
        missing = "this Python cannot receive descriptors" if not fd_passing else "MYCELIUM_DISABLE contains fd-passing"
        code, reason = "FD_PASSING", missing
    return {
        "version": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": ordering.one_thread_at_a_time(),
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memfd": hasattr(os, "memfd_create"),
        "eventfd": hasattr(os, "eventfd_write"),
        "membarrier": membarrier,
        "fd_passing": fd_passing,
        "ordering": _ordering_mode(here, membarrier),
        "transport": "socket" if code else "shm",
        "fallback_code": code or "NONE",
        "fallback_reason": reason,
    }


def _ordering_mode(here: ordering.Ordering, membarrier: bool) -> str:
    if here.problem:
        return "none"
    accesses = "plain" if here.barrier is None else "barriers"
    return f"{accesses}, {'asymmetric' if membarrier else 'fenced'}"


def _as_text(facts: dict[str, Any]) -> str:
    def yes(name: str) -> str:
        return "yes" if facts[name] else "no"

    lines = [
        ("mycelium", facts["version"]),
        ("python", f"{facts['implementation']} {facts['python']}, GIL: {yes('gil')}"),
        ("platform", f"{facts['platform']} {facts['machine']}, usable CPUs: {facts['cpus']}"),
        ("memfd", yes("memfd")),
        ("eventfd", yes("eventfd")),
        ("membarrier", yes("membarrier")),
        ("fd passing", yes("fd_passing")),
        ("ordering", facts["ordering"]),
        ("transport", "shared memory, where the bridge offers it" if facts["transport"] == "shm" else "socket"),
    ]
    if facts["fallback_reason"]:
        lines.append(("because", f"{facts['fallback_reason']} (code {facts['fallback_code']})"))
    elif not facts["membarrier"]:
        lines.append(("note", "without membarrier sleeps are bounded to 1 ms and every send rings the doorbell"))
    return "\n".join(f"{name:<12}{value}" for name, value in lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the report and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mycelium",
        description="What this installation and this machine can do, and why a link would fall back to the socket.",
        epilog="Exit codes: 0 shared memory can be used, 3 it cannot and every link takes the socket.",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    facts = report()
    sys.stdout.write((json.dumps(facts) if options.json else _as_text(facts)) + "\n")
    return _SHM_POSSIBLE if facts["transport"] == "shm" else _SOCKET_ONLY


if __name__ == "__main__":
    sys.exit(main())
