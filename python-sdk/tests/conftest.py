"""What all tests share: a clean environment, and a bridge to talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge_double import BridgeDouble


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
