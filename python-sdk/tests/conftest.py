"""What all tests share: a clean environment, and a bridge to talk to."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from bridge_double import BridgeDouble

pytest_plugins = ["mycelium.testing.plugin"]

# How long an example takes says something about the machine and nothing about the code.
settings.register_profile(
    "machine-may-be-busy",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=25,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],  # explaining a failure takes minutes on older interpreters
)
settings.load_profile("machine-may-be-busy")

# A run in the background of a shell ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Chooses the seed before the plugin looks for one, so that every run can be repeated."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.getrandbits(32))


def pytest_report_header(config: pytest.Config) -> str:
    """Says how this run is repeated."""
    return f"random messages: --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says it again beside the failures, which is all that a quiet run shows."""
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"to repeat: --hypothesis-seed={config.option.hypothesis_seed}")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the switches of the surrounding shell out."""
    for name in ("MYCELIUM_FD", "MYCELIUM_WORKER", "MYCELIUM_DISABLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["shm", "socket"])
def transport(request: pytest.FixtureRequest) -> str:
    """Both transports, one after the other."""
    return str(request.param)


@pytest.fixture
def make_bridge() -> Iterator[Callable[..., BridgeDouble]]:
    """Makes bridges that are closed at the end."""
    made: list[BridgeDouble] = []

    def make(**options: object) -> BridgeDouble:
        made.append(BridgeDouble(**options))
        return made[-1]

    yield make
    for bridge in made:
        bridge.close()


@pytest.fixture
def bridge(make_bridge: Callable[..., BridgeDouble], transport: str) -> BridgeDouble:
    """A bridge that offers the transport."""
    return make_bridge(transport=transport)
