"""``python -m mycelium``, and machines that lack what shared memory needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote
from mycelium import __main__ as program
from mycelium import __version__, _ordering
from mycelium import _control as control
from mycelium.messages import Signal
from test_processes import ROOT

# What another system's Python lacks.
ELSEWHERE = """
import fcntl, os, socket, sys
sys.platform = "darwin"
for name in ("memfd_create", "eventfd", "eventfd_read", "eventfd_write", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL"):
    if hasattr(socket, name):
        delattr(socket, name)
for name in ("F_OFD_SETLK", "F_ADD_SEALS"):
    if hasattr(fcntl, name):
        delattr(fcntl, name)
"""


def elsewhere(folder: Path) -> dict[str, str]:
    """The environment of a process on another system."""
    (folder / "sitecustomize.py").write_text(ELSEWHERE)
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT / 'src'}"}


def test_the_report_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == program.report()
    assert facts["version"] == __version__
    assert (facts["transport"], facts["fallback_code"]) == ("shm", "NONE")
    assert program.main([]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"mycelium    {__version__}\n")
    assert "transport   shared memory" in text


@pytest.mark.parametrize(
    ("switch", "code", "exit_code"),
    [("shm", "DISABLED", 3), ("map", "MAP_FAILED", 3), ("fd-passing", "FD_PASSING", 3), ("membarrier", "NONE", 0)],
)
def test_the_report_says_why_it_would_fall_back(
    switch: str, code: str, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MYCELIUM_DISABLE", switch)
    assert program.main([]) == exit_code
    text = capsys.readouterr().out
    assert (f"MYCELIUM_DISABLE contains {switch} (code {code})" in text) == (exit_code == 3)
    assert ("without membarrier" in text) == (switch == "membarrier")
    assert program.report()["fallback_code"] == code


def test_weak_machines_need_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ordering, "detect", lambda: _ordering.Ordering(barrier=lambda: None))
    assert program.report()["ordering"].startswith("barriers, ")


def test_wrong_arguments_are_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(["--bad"])
    assert caught.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_another_system_says_why_it_takes_the_socket(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mycelium", "--json"]
    done = subprocess.run(command, env=elsewhere(tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    facts = json.loads(done.stdout)
    assert (facts["transport"], facts["fallback_code"], facts["ordering"]) == ("socket", "PLATFORM", "none")
    assert (facts["memfd"], facts["eventfd"], facts["membarrier"]) == (False, False, False)


def test_another_system_works_over_the_socket(bridge: BridgeDouble, tmp_path: Path) -> None:
    fd = bridge.peer_sock.fileno()
    environment = {**elsewhere(tmp_path), "MYCELIUM_FD": str(fd), "MYCELIUM_WORKER": "echo"}
    process = subprocess.Popen([sys.executable, str(ROOT / "examples" / "echo.py")], pass_fds=[fd], env=environment)
    bridge.peer_sock.close()
    wait_until(lambda: control.Advertise.TOPIC_ID in bridge.names(), "the publisher")
    assert not bridge.over_shm
    for number in range(1, 51):
        bridge.send(quote(number))
    assert [it.quote_sequence for it in bridge.take(Signal, 50)] == list(range(1, 51))
    bridge.send_control(control.Shutdown(deadline_ms=10_000, reason="done"))
    assert process.wait(PATIENCE_S) == 0
