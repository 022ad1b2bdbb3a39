"""Random sequences of everything that moves messages, over small rings and sockets, against lists as the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

import mycelium
from bridge_double import BridgeDouble
from builders import quote, signal
from mycelium._message import Message
from mycelium.messages import Quote, Signal

RECORD = 8 + Quote.SIZE
assert Signal.SIZE == Quote.SIZE

READING = ("messages", "rows", "columns", "copy", "runs", "hold", "leave")
SENDING: dict[str, Callable[[list[Quote]], Any]] = {"list": list, "iter": iter, "array": Quote.to_array}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("fill"), st.lists(st.booleans(), min_size=1, max_size=30)),
        st.tuples(st.just("recv"), st.none()),
        st.tuples(st.just("batch"), st.tuples(st.integers(1, 60), st.sampled_from(READING))),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("reserve"), st.booleans()),
        st.tuples(st.just("many"), st.tuples(st.integers(0, 80), st.sampled_from(sorted(SENDING)))),
        st.tuples(st.just("take"), st.integers(1, 60)),
    ),
    max_size=80,
)


class Story:
    """A channel, its bridge, and what both have to see."""

    def __init__(self, bridge: BridgeDouble) -> None:
        self.bridge = bridge
        self.channel = bridge.connect(spin_us=0)
        self.publisher = self.channel.publisher(Quote)
        self.shm = bridge.over_shm
        self.number = 0
        self.coming: list[Message] = []
        self.going: list[int] = []
        self.taken = 0  # messages that the channel has taken
        self.held: list[tuple[Any, list[int], int]] = []

    def check(self) -> None:
        for column, sequences, _ in self.held:
            assert column.tolist() == sequences
        if self.shm:
            oldest = min((at for _, _, at in self.held), default=self.taken)
            ring = self.channel._consumer
            assert ring.words[ring._control] <= ring.byte_count
            kept = self.channel.statistics().arrays_held
            assert kept <= len(self.held)
            # What arrays lie over is not given back: the bridge has room for the rest at most.
            assert self.bridge.acknowledged <= ring.byte_count - (self.taken - oldest) * RECORD

    def fill(self, kinds: list[bool]) -> None:
        for is_quote in kinds:
            self.number += 1
            message = quote(self.number) if is_quote else signal(self.number)
            if self.shm and self.bridge.producer.claim(RECORD // 8) < 0:
                return
            if not self.shm and len(self.coming) > 100:
                return
            self.bridge.send(message)
            self.coming.append(message)

    def recv(self, _: None) -> None:
        if not self.coming:
            with pytest.raises(TimeoutError):
                self.channel.recv(timeout=0)
            return
        assert self.channel.recv(timeout=30) == self.coming.pop(0)
        self.taken += 1

    def batch(self, how: tuple[int, str]) -> None:
        limit, form = how
        if not self.coming:
            return
        batch = self.channel.recv_batch(limit, timeout=30)
        count = len(batch)
        assert 1 <= count <= limit
        expected, self.coming = self.coming[:count], self.coming[count:]
        quotes = [message for message in expected if isinstance(message, Quote)]
        signals = [message for message in expected if isinstance(message, Signal)]
        if form == "messages":
            assert list(batch) == expected
        elif form == "rows":
            assert batch.rows(Quote) == [tuple(message.to_dict().values()) for message in quotes]
            assert batch.rows(Signal, "quote_sequence") == [(message.quote_sequence,) for message in signals]
        elif form in ("columns", "copy"):
            assert Quote.from_array(batch.columns(Quote, copy=form == "copy" or None)) == quotes
            assert Signal.from_array(batch.columns(Signal, copy=form == "copy" or None)) == signals
        elif form == "runs":
            runs = batch.column_runs(Quote)
            assert [number for run in runs for number in run["sequence"].tolist()] == [it.sequence for it in quotes]
        elif form == "hold":
            column = batch.columns(Quote)["sequence"]
            view = bool(len(column)) and not column.flags.writeable
            self.held.append((column, [it.sequence for it in quotes], self.taken if view else 1 << 60))
        self.taken += count
        if form != "leave":
            batch.release()

    def drop(self, _: None) -> None:
        if self.held:
            self.held.pop(0)

    def send(self, _: None) -> None:
        self.number += 1
        try:
            self.publisher.send(quote(self.number), timeout=0)
        except mycelium.ChannelFull:
            return
        self.going.append(self.number)

    def reserve(self, commit: bool) -> None:
        self.number += 1
        try:
            with self.publisher.reserve(timeout=0) as message:
                message.symbol = "X"
                message.sequence = self.number
                if not commit:
                    raise KeyError
        except (mycelium.ChannelFull, KeyError):
            return
        self.going.append(self.number)

    def many(self, how: tuple[int, str]) -> None:
        count, form = how
        messages = [quote(self.number + 1 + at) for at in range(count)]
        self.number += count
        try:
            sent = self.publisher.send_many(SENDING[form](messages), timeout=0)
            assert sent == count
        except mycelium.ChannelFull as full:
            sent = full.sent
            assert sent < count
        self.going += [message.sequence for message in messages[:sent]]

    def take(self, count: int) -> None:
        count = min(count, len(self.going))
        assert [message.sequence for message in self.bridge.take(Quote, count)] == self.going[:count]
        del self.going[:count]

    def end(self) -> None:
        self.held.clear()
        self.channel.acknowledge()
        while self.coming:
            self.recv(None)
        self.take(len(self.going))
        counted = self.channel.statistics()
        assert counted.frames_in == self.taken
        assert counted.arrays_held == 0
        self.channel.close()
        if self.shm:
            assert self.bridge.producer.has_room(1)


@pytest.mark.parametrize("transport", ["shm", "socket"])
@given(story=steps)
def test_any_story_is_told_as_it_happened(transport: str, story: list[tuple[str, Any]]) -> None:
    bridge = BridgeDouble(transport=transport, capacity=4096)
    try:
        teller = Story(bridge)
        for name, detail in story:
            note(f"{name} {detail}")
            getattr(teller, name)(detail)
            teller.check()
        teller.end()
    finally:
        bridge.close()


@given(data=st.data())
def test_gathering_finds_what_iterating_finds(data: st.DataObject) -> None:
    """Over rings that both kinds of messages share, at every place of the ring."""
    bridge = BridgeDouble(capacity=8192)
    try:
        teller = Story(bridge)
        for _ in range(data.draw(st.integers(1, 4))):
            teller.fill(data.draw(st.lists(st.booleans(), min_size=1, max_size=110)))
            while teller.coming:
                batch = teller.channel.recv_batch(data.draw(st.integers(1, 120)))
                messages = [message for message in batch if isinstance(message, Quote)]
                gathered = batch.columns(Quote, copy=data.draw(st.sampled_from([None, True])))
                assert gathered["bid"].tolist() == [message.bid for message in messages]
                assert Quote.from_array(gathered) == messages
                assert numpy.array_equal(gathered["ask"], [row[0] for row in batch.rows(Quote, "ask")])
                del teller.coming[: len(batch)]
                teller.taken += len(batch)
                del gathered
        teller.end()
    finally:
        bridge.close()
