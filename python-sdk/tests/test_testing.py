"""The bridge for unit tests of strategies."""

from __future__ import annotations

import os
from typing import Any

import pytest

import mycelium
from builders import quote, signal
from mycelium import testing
from mycelium.messages import Quote, ReplayMark, Side, Signal


def echo() -> int:
    """A strategy as a plain loop."""
    with mycelium.connect() as channel:
        channel.subscribe(Quote)
        signals = channel.publisher(Signal)
        for message in channel:
            signals.send(signal(message.sequence))
    return 0


@pytest.fixture
def bridge(transport: str) -> Any:
    with testing.Bridge(transport=transport, settings={"window": 20}) as bridge:
        yield bridge


def test_a_channel_gets_what_is_published_and_gives_what_it_publishes(bridge: testing.Bridge, transport: str) -> None:
    channel = bridge.connect(name="alpha")
    assert (channel.transport, channel.name, channel.settings) == (transport, "alpha", {"window": 20})
    channel.subscribe(Quote)
    bridge.publish(quote(1), quote(2))
    assert [channel.recv(timeout=30).sequence for _ in range(2)] == [1, 2]
    publisher = channel.publisher(Signal)
    publisher.send(signal(1))
    publisher.send(signal(2))
    assert bridge.expect(Signal) == signal(1)
    assert bridge.published(Signal) == [signal(2)]
    assert bridge.published(Signal) == []


def test_a_program_runs_until_everything_is_acknowledged(bridge: testing.Bridge) -> None:
    bridge.publish(*map(quote, range(1, 2001)))  # more than the ring holds
    assert bridge.run(echo) == 0
    assert [answer.quote_sequence for answer in bridge.published(Signal)] == list(range(1, 2001))
    assert bridge.unacknowledged == 0
    assert "MYCELIUM_FD" not in os.environ


def test_a_killed_strategy_is_followed_by_one_that_gets_the_rest_again(bridge: testing.Bridge) -> None:
    channel = bridge.connect()
    channel.subscribe(Quote)
    bridge.publish(*map(quote, range(1, 6)))
    publisher = channel.publisher(Signal)
    assert channel.recv(timeout=30).sequence == 1
    channel.acknowledge()
    assert channel.recv(timeout=30).sequence == 2
    publisher.send(signal(2))
    bridge.kill()
    assert channel.closed
    assert bridge.expect(Signal) == signal(2)
    successor = bridge.connect()
    assert successor.epoch == bridge.epoch == 2
    successor.subscribe(Quote)
    assert [successor.recv(timeout=30).sequence for _ in range(4)] == [2, 3, 4, 5]
    successor.publisher(Signal).send(signal(9))
    assert bridge.expect(Signal) == signal(9)


def test_what_a_killed_strategy_does_while_it_unwinds_does_not_count(bridge: testing.Bridge) -> None:
    def fails() -> None:
        with mycelium.connect() as channel:
            channel.subscribe(Quote)
            publisher = channel.publisher(Signal)
            try:
                for message in channel:
                    if message.sequence == 3:
                        bridge.kill()
            finally:
                publisher.send(signal(99))
                channel.acknowledge()

    bridge.publish(*map(quote, range(1, 5)))
    assert bridge.run(fails) == -9
    assert bridge.published(Signal) == []
    assert bridge.unacknowledged >= 2
    assert bridge.run(echo) == 0
    assert [answer.quote_sequence for answer in bridge.published(Signal)][-2:] == [3, 4]


def test_a_shutdown_comes_after_what_was_published(bridge: testing.Bridge) -> None:
    bridge.publish(quote(1), quote(2))
    bridge.shutdown(deadline=3.0, reason="maintenance")
    with bridge.environment(), mycelium.connect() as channel:
        channel.subscribe(Quote)
        assert [message.sequence for message in channel] == [1, 2]
        with pytest.raises(mycelium.ChannelClosed) as caught:
            channel.recv(timeout=5)
        assert caught.value.reason == "maintenance"


def test_a_vanished_bridge_is_peer_lost(bridge: testing.Bridge) -> None:
    channel = bridge.connect()
    bridge.hang_up()
    with pytest.raises(mycelium.PeerLost):
        channel.recv(timeout=30)


def test_a_paused_bridge_lets_the_ring_become_full(transport: str) -> None:
    with testing.Bridge(transport=transport, ring_capacity=4096) as bridge:
        channel = bridge.connect()
        publisher = channel.publisher(Signal)
        with bridge.paused():
            sent = 0
            with pytest.raises(mycelium.ChannelFull) as caught:
                for sent in range(100_000):
                    publisher.send(signal(sent), timeout=0)
            assert caught.value.needed == 8 + Signal.SIZE
        channel.publisher(ReplayMark)  # An answer comes after everything before it.
        assert [answer.quote_sequence for answer in bridge.published(Signal)] == list(range(sent))


def test_topics_can_be_refused(transport: str) -> None:
    refuse = {Quote: "UNKNOWN_TOPIC", Signal: "LAYOUT_MISMATCH"}
    with testing.Bridge(transport=transport, refuse=refuse) as bridge:
        channel = bridge.connect()
        with pytest.raises(mycelium.UnknownTopic):
            channel.subscribe(Quote)
        with pytest.raises(mycelium.ContractMismatch):
            channel.publisher(Signal)
    with testing.Bridge(transport=transport, contracts=[Quote]) as bridge:
        channel = bridge.connect()
        channel.subscribe(Quote)
        with pytest.raises(mycelium.UnknownTopic):
            channel.publisher(Signal)


def test_configured_subscriptions_need_no_asking(transport: str) -> None:
    with testing.Bridge(transport=transport, subscribe=[Quote]) as bridge:
        bridge.publish(quote(1))
        assert bridge.connect().recv(timeout=30) == quote(1)


def test_failures_tell_what_there_is(bridge: testing.Bridge) -> None:
    with pytest.raises(AssertionError, match=r"published=nothing .*the strategy has not connected"):
        bridge.expect(Signal, timeout=0)
    channel = bridge.connect()
    bridge.publish(quote(1))
    channel.publisher(ReplayMark).send(ReplayMark(phase=1, action=1, mode=1, worker=""))
    with pytest.raises(AssertionError, match=r"message=Signal .*ReplayMark x1 .*nobody has subscribed to Quote"):
        bridge.expect(Signal, timeout=0.2)
    with pytest.raises(RuntimeError, match="a strategy is connected already"):
        bridge.connect()
    channel.close()
    with pytest.raises(AssertionError, match=r"condition not met in time: timeout_s=0.05"):
        bridge.run(echo, until=lambda: False, timeout=0.05)
    with pytest.raises(KeyError):
        bridge.run(echo, until=lambda: {}["missing"])
    with pytest.raises(RuntimeError, match="nothing to kill"):
        bridge.kill()


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="transport='tcp', legal: shm, socket"):
        testing.Bridge(transport="tcp")
    with pytest.raises(ValueError, match="ring_capacity=5000, legal: a power of two"):
        testing.Bridge(ring_capacity=5000)
    with pytest.raises(ValueError, match="message=Quote code='NO'"):
        testing.Bridge(refuse={Quote: "NO"})
    with testing.Bridge(ring_capacity=4096, contracts=None) as bridge, pytest.raises(mycelium.FrameTooLarge):
        bridge.publish(_huge())


def _huge() -> Any:
    class Text(mycelium.DynamicMessage):
        NAME = "Text"
        TOPIC_ID = 1500
        ENCODING = 3
        MAX_SIZE = 5000
        LOG_PAYLOAD = True

    return Text(bytes(5000))


def test_exit_codes_are_those_of_a_process(bridge: testing.Bridge) -> None:
    def exits(code: Any) -> Any:
        def program() -> None:
            mycelium.connect().close()
            raise SystemExit(code)

        return program

    assert bridge.run(exits(None)) == 0
    assert bridge.run(exits(3)) == 3
    assert bridge.run(exits("a reason")) == 1
    assert bridge.run(lambda: None) == 0  # did not even connect


@pytest.mark.mycelium_bridge(settings={"side": "BUY"})
def test_the_fixture_takes_its_arguments_from_a_mark(mycelium_bridge: testing.Bridge) -> None:
    channel = mycelium_bridge.connect()
    assert Side[channel.settings["side"]] is Side.BUY
