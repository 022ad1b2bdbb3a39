"""Subscriptions that choose what happens to messages for which there is no room."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble
from builders import quote
from mycelium import _control as control
from mycelium import testing
from mycelium._delivery import delivery_code, delivery_name
from mycelium.messages import Quote, ReplayMark, Signal
from test_aio import open_channel, run
from test_reconnect import SOON, address, listener

__all__ = ["listener"]

MakeBridge = Callable[..., BridgeDouble]
POLICIES: tuple[mycelium.Delivery, ...] = ("block", "drop_newest", "drop_oldest", "conflate")


def asked(bridge: BridgeDouble) -> list[tuple[int, int]]:
    """Topic and policy of every Subscribe that came."""
    frames = [
        control.Subscribe.from_bytes(data) for topic, data in bridge.control if topic == control.Subscribe.TOPIC_ID
    ]
    return [(frame.topic_id, frame.delivery) for frame in frames]


def test_names_and_numbers_are_those_of_the_control_frames() -> None:
    assert [delivery_code(name).name.lower() for name in POLICIES] == list(POLICIES)
    assert [delivery_name(delivery_code(name)) for name in POLICIES] == list(POLICIES)
    assert {delivery_code(None), *map(delivery_code, POLICIES)} == set(control.Delivery)
    assert delivery_name(0) is None and delivery_name(9) is None


@pytest.mark.parametrize("wrong", ["", "DROP_OLDEST", "default", "oldest", 3])
def test_other_words_are_refused_before_anything_is_asked(bridge: BridgeDouble, wrong: Any) -> None:
    with bridge.connect() as channel:
        with pytest.raises(ValueError, match=r"delivery not understood: .*legal: block, drop_newest, drop_oldest, con"):
            channel.subscribe(Quote, delivery=wrong)
        assert asked(bridge) == []
    with pytest.raises(ValueError, match="delivery not understood"):
        mycelium.Worker().on(Quote, delivery=wrong)


def test_a_channel_asks_for_its_policy_and_knows_what_it_got(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport)
    with bridge.connect() as channel:
        assert channel.delivery(Quote) is None
        for name in POLICIES:
            channel.subscribe(Quote, ReplayMark, delivery=name)
            assert channel.delivery(Quote) == channel.delivery(ReplayMark) == name
        channel.subscribe(Signal)
        channel.unsubscribe(Quote)
        assert channel.delivery(Quote) is None
        expected = [(topic, number) for number in (1, 2, 3, 4) for topic in (Quote.TOPIC_ID, ReplayMark.TOPIC_ID)]
        assert asked(bridge) == [*expected, (Signal.TOPIC_ID, 0)]


def test_an_async_channel_asks_likewise(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport)

    async def main() -> None:
        async with await open_channel(bridge) as channel:
            await channel.subscribe(Quote, delivery="conflate")
            assert channel.delivery(Quote) == "conflate"

    run(main())
    assert asked(bridge) == [(Quote.TOPIC_ID, control.Delivery.CONFLATE)]


@pytest.mark.parametrize("code", [control.TopicReplyCode.BAD_DELIVERY, control.TopicReplyCode.BLOCK_NOT_ALLOWED])
def test_a_refusal_leaves_the_subscription_as_it_was(
    make_bridge: MakeBridge, transport: str, code: control.TopicReplyCode
) -> None:
    bridge = make_bridge(transport=transport)
    with bridge.connect() as channel:
        channel.subscribe(Quote, delivery="drop_oldest")
        bridge.replies[control.Subscribe.TOPIC_ID, Quote.TOPIC_ID] = code
        with pytest.raises(mycelium.DeliveryRefused) as refused:
            channel.subscribe(Quote, delivery="block")
        assert (refused.value.topic_id, refused.value.code, refused.value.name) == (Quote.TOPIC_ID, code, code.name)
        assert channel.delivery(Quote) == "drop_oldest"
        bridge.send(quote(1))
        assert channel.recv(timeout=30) == quote(1)


def test_what_the_bridge_decides_otherwise_is_told(bridge: BridgeDouble, caplog: pytest.LogCaptureFixture) -> None:
    def decide(request: int, topic_id: int, digest: bytes) -> None:
        bridge.asked = control.Delivery.DROP_OLDEST
        bridge.reply(request, topic_id, control.TopicReplyCode.OK, "the configuration decides")

    bridge.on_request = decide  # type: ignore[method-assign]
    with bridge.connect() as channel, caplog.at_level(logging.WARNING, "mycelium"):
        channel.subscribe(Quote, delivery="conflate")
        assert channel.delivery(Quote) == "drop_oldest"
    assert "another delivery than asked for: link=link-7 message=Quote the configuration decides" in caplog.text


def test_the_policy_is_asked_for_again_on_another_link(
    make_bridge: MakeBridge, transport: str, listener: socket.socket
) -> None:
    first = make_bridge(transport=transport, listener=listener)
    with mycelium.connect(address(listener), name="alpha", reconnect=SOON) as channel:
        channel.subscribe(Quote, delivery="conflate")
        first.send(quote(1))
        assert channel.recv(timeout=30) == quote(1)
        first.hang_up()
        second = make_bridge(transport=transport, listener=listener)
        second.send_later(quote(2))
        assert channel.recv(timeout=30) == quote(2)
        assert asked(first) == asked(second) == [(Quote.TOPIC_ID, control.Delivery.CONFLATE)]
        assert channel.delivery(Quote) == "conflate"


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_worker_asks_for_the_policies_of_its_handlers(transport: str, kind: str) -> None:
    worker = mycelium.Worker()
    seen: list[Any] = []

    if kind == "plain":

        @worker.on(Quote, delivery="conflate")
        def on_quote(message: Quote) -> None:
            seen.append(worker.channel.delivery(Quote))
            seen.append(worker.channel.delivery(Signal))
    else:

        @worker.on(Quote, delivery="conflate")
        async def on_quote_later(message: Quote) -> None:
            seen.append(worker.channel.delivery(Quote))
            seen.append(worker.channel.delivery(Signal))

    @worker.on(Signal)
    def on_signal(message: Signal) -> None:
        raise AssertionError("none comes")

    with testing.Bridge(transport=transport) as bridge:
        bridge.publish(quote(1))
        assert bridge.run(worker) == 0
        assert seen == ["conflate", Signal.DELIVERY]


def test_the_double_tells_what_a_strategy_asked_for_and_refuses_what_cannot_be(transport: str) -> None:
    with testing.Bridge(transport=transport) as bridge:
        channel = bridge.connect()
        assert bridge.delivery(Quote) is None
        channel.subscribe(Quote, delivery="conflate")
        channel.subscribe(Signal)
        assert (bridge.delivery(Quote), bridge.delivery(Signal)) == ("conflate", Signal.DELIVERY)
        with pytest.raises(mycelium.DeliveryRefused, match=r"message=Signal .*asked=conflate key=none"):
            channel.subscribe(Signal, delivery="conflate")
        assert bridge.delivery(Signal) == Signal.DELIVERY
        channel.unsubscribe(Quote)
        assert bridge.delivery(Quote) is None
