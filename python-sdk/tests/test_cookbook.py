"""Every recipe of docs/python/cookbook.md is a whole program, and is run as one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mycelium import testing
from mycelium.messages import Quote, Signal

PAGE = Path(__file__).parents[2] / "docs" / "python" / "cookbook.md"
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```python\n(?P<source>.*?)^```", re.MULTILINE | re.DOTALL)
WORKER = re.compile(r"gives (\d+) signals to (\d+) quotes")
RECIPES = [
    pytest.param(it["mark"] or "", it["source"], id=str(number))
    for number, it in enumerate(BLOCK.finditer(PAGE.read_text()))
]


def place(source: str) -> Any:
    """The recipe compiled, with the page's own line numbers in a traceback."""
    before = PAGE.read_text().partition(source)[0]
    return compile("\n" * before.count("\n") + source, str(PAGE), "exec")


def quote(sequence: int) -> Quote:
    """One that all recipes understand."""
    return Quote(symbol="EUR/USD", sequence=sequence, bid=1.1 + sequence / 1e4, ask=1.2 + sequence / 1e4, volume=1.0)


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 10


@pytest.mark.parametrize(("mark", "source"), RECIPES)
def test_recipe(mark: str, source: str, mycelium_bridge: testing.Bridge) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    if mark == "a test":
        exec(place(source), scope)
        tests = [value for name, value in scope.items() if name.startswith("test_")]
        assert tests
        for test in tests:
            test(mycelium_bridge)
        return
    expected = WORKER.fullmatch(mark)
    assert expected is not None, f"a recipe says what it gives: {mark!r}"
    count, quotes = map(int, expected.groups())
    mycelium_bridge.publish(*map(quote, range(1, quotes + 1)))
    assert mycelium_bridge.run(lambda: exec(place(source), scope)) == 0
    for _ in range(count):
        mycelium_bridge.expect(Signal)
    assert mycelium_bridge.published(Signal) == []
