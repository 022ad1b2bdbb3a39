"""The examples, as somebody would test them who has copied one."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote, signal
from mycelium import _control as control
from mycelium import testing
from mycelium.messages import Quote, Side, Signal

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """A fresh copy of an example, as a process of its own would have it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def at(price: float, sequence: int, symbol: str = "EUR/USD") -> Quote:
    return Quote(symbol=symbol, sequence=sequence, timestamp_ns=sequence, bid=price - 1e-5, ask=price + 1e-5)


def of(worker: str, sequence: int, side: Side, price: float) -> Signal:
    return Signal(worker=worker, quote_sequence=sequence, side=side, price=price)


def test_echo_answers_every_quote(transport: str) -> None:
    with testing.Bridge(transport=transport, name="echo") as bridge:
        bridge.publish(*map(quote, range(1, 101)))
        argv, sys.argv = sys.argv, ["echo.py"]
        try:
            assert bridge.run(load("echo").main) == 0
        finally:
            sys.argv = argv
        answers = bridge.published(Signal)
        assert [answer.quote_sequence for answer in answers] == list(range(1, 101))
        assert answers[0].price == pytest.approx((quote(1).bid + quote(1).ask) / 2)


def test_momentum_follows_each_instrument(transport: str) -> None:
    rising = [at(1.1 + n * 1e-4, n) for n in range(1, 60)]
    falling = [at(150 - n * 1e-2, n, "USD/JPY") for n in range(1, 60)]
    with testing.Bridge(transport=transport, settings={"fast": 4, "slow": 16}, name="momentum") as bridge:
        for pair in zip(rising, falling):
            bridge.publish(*pair)
        assert bridge.run(load("momentum").worker) == 0
        answers = bridge.published(Signal)
        assert [(answer.side, answer.price > 2) for answer in answers] == [(Side.BUY, False), (Side.SELL, True)]
        assert {answer.worker for answer in answers} == {"momentum"}
        assert all(0 < answer.strength <= 1 for answer in answers)


def test_mean_reversion_says_what_a_loop_would_say(transport: str) -> None:
    pytest.importorskip("numpy")
    window, enter = 32, 1.2
    prices = [1.1 + 1e-3 * math.sin(n * n) for n in range(600)]
    expected, side = [], Side.HOLD
    for n in range(window, len(prices)):
        past = prices[n - window : n]
        mean = sum(past) / window
        deviation = math.sqrt(sum((it - mean) ** 2 for it in past) / window)
        now = Side.HOLD
        if abs(prices[n] - mean) > enter * deviation:
            now = Side.SELL if prices[n] > mean else Side.BUY
        if now is not side:
            expected.append((n, now))
        side = now
    assert len(expected) > 3
    with testing.Bridge(transport=transport, settings={"window": window, "enter": enter}) as bridge:
        for n, price in enumerate(prices):
            bridge.publish(at(price, n), at(9.0, n, "OTHER"))
        assert bridge.run(load("mean_reversion").worker) == 0
        assert [(answer.quote_sequence, answer.side) for answer in bridge.published(Signal)] == expected


def bandit_bridge(transport: str, folder: Path) -> testing.Bridge:
    return testing.Bridge(transport=transport, settings={"state_file": str(folder / "state.json")}, name="bandit")


def test_the_bandit_follows_who_is_right(transport: str, tmp_path: Path) -> None:
    with bandit_bridge(transport, tmp_path) as bridge:
        for n in range(1, 301):
            price = 1.0 + n * 1e-3  # it rises, so one of them is always right
            bridge.publish(of("right", n, Side.BUY, price), of("wrong", n, Side.SELL, price))
        assert bridge.run(load("bandit").worker) == 0
        arms = json.loads((tmp_path / "state.json").read_text())
        assert (arms["right"]["right"], arms["right"]["wrong"]) == (299, 0)
        assert (arms["wrong"]["right"], arms["wrong"]["wrong"]) == (0, 299)
        followed = [decision.side for decision in bridge.published(Signal)]
        assert followed[-100:].count(Side.BUY) >= 95


def test_the_bandit_counts_no_signal_twice_when_it_is_killed(transport: str, tmp_path: Path) -> None:
    with bandit_bridge(transport, tmp_path) as bridge:
        for n in range(1, 501):
            bridge.publish(of("right", n, Side.BUY, 1.0 + n * 1e-3))
        # Killed before the state is saved, after it is saved and before the acknowledgement, and in the middle.
        for kind in ("before", "after", "middle"):
            module = load("bandit")
            dies_in_save(module, bridge, kind)
            assert bridge.run(module.worker) == -9
        assert bridge.run(load("bandit").worker) == 0
        assert bridge.epoch == 4
        arms = json.loads((tmp_path / "state.json").read_text())
        assert (arms["right"]["sequence"], arms["right"]["right"], arms["right"]["wrong"]) == (500, 499, 0)
        decisions = {decision.quote_sequence for decision in bridge.published(Signal)}
        assert decisions == set(range(1, 501))  # at least once each


def dies_in_save(module: ModuleType, bridge: testing.Bridge, kind: str) -> None:
    save = module.save

    def killed() -> None:
        if kind == "middle":
            module.state_file().with_suffix(".new").write_text('{"right": {"sequ')
        elif kind == "after":
            save()
        bridge.kill()

    module.save = killed  # type: ignore[attr-defined]


@pytest.fixture
def limits_url() -> Iterator[str]:
    class Limits(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"max_strength": 0.25}')

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Limits) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/limits"
        server.shutdown()
        thread.join()


def test_asyncio_answers_with_the_limits_of_the_service(transport: str, limits_url: str) -> None:
    with testing.Bridge(transport=transport, settings={"limits_url": limits_url}) as bridge:
        module = load("asyncio_http")
        answers: list[Signal] = []
        published = 0

        def answered() -> bool:
            nonlocal published
            if not bridge.unacknowledged:  # A quote that comes before the limits are known is not answered.
                published += 1
                bridge.publish(quote(published))
            answers.extend(bridge.published(Signal))
            return len(answers) >= 3

        assert bridge.run(module.worker, until=answered) == 0
        assert {answer.strength for answer in answers} == {0.25}
        assert module.worker.statistics().failed == 0


@pytest.mark.parametrize(
    ("url", "told"),
    [("http://127.0.0.1:1/", "limits unknown"), ("file:///etc/passwd", "limits_url not understood")],
)
def test_asyncio_goes_on_where_the_service_does_not_answer(transport: str, url: str, told: str) -> None:
    with testing.Bridge(transport=transport, settings={"limits_url": url, "every_s": 60}) as bridge:
        worker = load("asyncio_http").worker
        bridge.publish(quote(1))
        assert bridge.run(worker, until=lambda: told in worker.statistics().state) == 0
        assert bridge.published(Signal) == []


def test_a_remote_client_prints_signals_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bridge = BridgeDouble(listener=listener, transport="socket")
        address = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        environment = {**os.environ, "MYCELIUM_TOKEN": "a token of some length"}
        command = [sys.executable, str(EXAMPLES / "remote_client.py"), address]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        wait_until(lambda: control.Subscribe.TOPIC_ID in bridge.names(), "the subscription")
        bridge.send(signal(7))
        bridge.send_control(control.Shutdown(deadline_ms=10_000, reason="done"))
        stdout, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert stdout.splitlines() == ["connected: link=link-7 transport=socket", "7 w BUY 0.875"]
        assert bridge.hello is not None
        assert bridge.hello.token == "a token of some length"
        bridge.close()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "usage: remote_client.py tcp:host:port"),
        (["tcp:nowhere"], 1, "AddressError: address not understood: address='tcp:nowhere'"),
        (["tcp:127.0.0.1:1"], 1, "PeerLost: cannot connect: address=tcp:127.0.0.1:1"),
    ],
)
def test_a_remote_client_says_what_is_wrong(arguments: list[str], code: int, told: str) -> None:
    command = [sys.executable, str(EXAMPLES / "remote_client.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert told in done.stderr


def test_the_worker_of_the_readme_passes_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = (EXAMPLES.parent / "README.md").read_text().split("```python\n")[1:]
    programs = [block.partition("```")[0] for block in blocks]
    strategy = next(program for program in programs if "worker = mycelium.Worker()" in program)
    test = next(program for program in programs if "def test_it_answers" in program)
    module = ModuleType("my_strategy")
    exec(strategy, vars(module))
    monkeypatch.setitem(sys.modules, "my_strategy", module)
    names: dict[str, Any] = {}
    exec(test, names)
    with testing.Bridge() as bridge:
        names["test_it_answers"](bridge)
        assert bridge.epoch == 1
    assert module.worker.statistics().handled == 1
