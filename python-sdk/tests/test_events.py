"""What the program hears besides messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from mycelium import _control as control
from mycelium import events
from test_aio import open_channel, run


def send_notices(bridge: BridgeDouble) -> None:
    """Two gaps and two rejections of one topic each, a gap of an unknown topic, and a shutdown."""
    cause = control.Cause.DROP_OLDEST
    bridge.send_control(control.Gap(topic_id=1001, cause=cause, missed=3, total=10))
    bridge.send_control(control.Gap(topic_id=40_000, cause=cause, missed=1, total=1))
    bridge.send_control(control.Gap(topic_id=1001, cause=cause, missed=2, total=12))
    code = control.TopicReplyCode.WRONG_SIZE
    for size in (1, 2):
        bridge.send_control(control.TopicReply(request=0, topic_id=1002, code=code, reason=f"size={size} expected=72"))
    bridge.send_control(control.Shutdown(deadline_ms=1500, reason="maintenance"))


EXPECTED = [
    events.Missed("Quote", 1001, 5, 12),
    events.Missed("", 40_000, 1, 1),
    events.Rejected("Signal", 1002, "size=2 expected=72", 2),
    events.ShuttingDown("maintenance", 1.5),
]


def merged(heard: list[Any]) -> list[Any]:
    """The events as they are where everything came in one piece, which the socket does not promise."""
    counts: dict[Any, int] = {}
    last: dict[Any, Any] = {}
    for event in heard:
        key = (type(event), getattr(event, "topic_id", 0))
        counts[key] = counts.get(key, 0) + getattr(event, "count", 0)
        last[key] = event
    return [type(it)(**{**vars(it), **({"count": counts[key]} if counts[key] else {})}) for key, it in last.items()]


def test_events_come_inside_of_a_receiving_call(bridge: BridgeDouble) -> None:
    heard: list[events.Event] = []
    with bridge.connect(on_event=heard.append) as channel:
        send_notices(bridge)
        with pytest.raises(mycelium.ChannelClosed):
            channel.recv(timeout=30)
        assert merged(heard) == EXPECTED
        assert channel.statistics().frames_missed == 6
        assert channel.statistics().frames_rejected == 2


def test_events_come_inside_of_an_awaited_call(bridge: BridgeDouble) -> None:
    heard: list[events.Event] = []

    async def main() -> None:
        async with await open_channel(bridge, on_event=heard.append) as channel:
            receiving = asyncio.ensure_future(channel.recv())
            await asyncio.sleep(0)
            send_notices(bridge)
            with pytest.raises(mycelium.ChannelClosed):
                await receiving

    run(main())
    assert merged(heard) == EXPECTED


def test_an_exception_of_the_function_comes_out_of_the_call_and_harms_nothing(bridge: BridgeDouble) -> None:
    def refuse(event: events.Event) -> None:
        raise KeyError(type(event).__name__)

    with bridge.connect(on_event=refuse) as channel:
        bridge.send_control(control.Gap(topic_id=1001, cause=control.Cause.CONFLATE, missed=3, total=3))
        with pytest.raises(KeyError, match="Missed"):
            channel.recv(timeout=30)
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0)


def test_without_a_function_events_are_only_counted(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        send_notices(bridge)
        with pytest.raises(mycelium.ChannelClosed):
            channel.recv(timeout=30)
        assert channel._events == []
        assert channel.statistics().frames_missed == 6


def test_an_event_that_waits_is_told_by_the_next_call(bridge: BridgeDouble) -> None:
    heard: list[events.Event] = []
    with bridge.connect(on_event=heard.append) as channel:
        bridge.send_control(control.Gap(topic_id=1001, cause=control.Cause.CONFLATE, missed=1, total=1))

        def look() -> bool:
            with pytest.raises(TimeoutError):
                channel.recv(timeout=0)
            return bool(heard)

        wait_until(look, "the event")
        assert heard == [events.Missed("Quote", 1001, 1, 1)]
