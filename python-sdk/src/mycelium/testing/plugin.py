"""The fixture for pytest, which finds it by itself where this package is installed.

::

    def test_it_answers(mycelium_bridge):
        mycelium_bridge.publish(Quote(symbol="EUR/USD"))
        mycelium_bridge.run(worker)
        assert mycelium_bridge.expect(Signal).side is Side.HOLD

    @pytest.mark.mycelium_bridge(settings={"window": 20}, transport="socket")   # arguments of testing.Bridge
    def test_it_answers_over_the_socket(mycelium_bridge): ...
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._bridge import Bridge

__all__ = ["mycelium_bridge"]


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line("markers", "mycelium_bridge(**options): arguments of mycelium.testing.Bridge")


@pytest.fixture
def mycelium_bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """A bridge in memory, closed after the test."""
    marker = request.node.get_closest_marker("mycelium_bridge")
    with Bridge(**({} if marker is None else marker.kwargs)) as bridge:
        yield bridge
