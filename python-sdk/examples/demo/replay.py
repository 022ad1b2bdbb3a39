"""A worker's part in a verified replay: run a strategy, and count and sum up what arrives.

The publisher marks the begin and the end of each phase inside its stream of quotes with a ``ReplayMark``; the worker
answers each mark with a ``ReplayReport`` of what it saw. Publisher and worker compute everything on their own, so any
lost, repeated, swapped or garbled quote shows.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import sys
import zlib
from typing import NamedTuple, Protocol

import mycelium
from mycelium.messages import Action, Mode, Quote, ReplayMark, ReplayReport, Side, Signal

__all__ = ["Decision", "Strategy", "main"]


class Decision(NamedTuple):
    """What a strategy concludes from one quote.

    Attributes:
        at: Which of the quotes that were handed over.
        side: What to do.
        strength: Conviction from 0 to 1.
    """

    at: int
    side: Side
    strength: float


class Strategy(Protocol):
    """What a strategy has to offer."""

    def decide(self, bids: list[float], asks: list[float], *, every: bool) -> list[Decision]:
        """Takes quotes in their order and returns its decisions: on ``every`` quote, or only where the side changes."""
        ...


class Audit:
    """Counts and sums of one phase."""

    def __init__(self) -> None:
        self.quotes = 0
        self.out_of_order = 0
        self.missing = 0
        self.bid_sum = 0.0
        self.ask_sum = 0.0
        self.quote_checksum = 0
        self.signals = 0
        self.signal_checksum = 0
        self._expected = 1

    def add(self, sequences: list[int], bids: list[float], asks: list[float], frames: bytes) -> None:
        """Adds quotes in the order received, and the bytes of their frames."""
        self.quotes += len(sequences)
        self.quote_checksum = zlib.crc32(frames, self.quote_checksum)
        # One addition after the other, as the publisher does it: the order matters for a float sum.
        self.bid_sum = functools.reduce(operator.add, bids, self.bid_sum)
        self.ask_sum = functools.reduce(operator.add, asks, self.ask_sum)
        following = self._expected + len(sequences)
        if sequences != list(range(self._expected, following)):
            for before, sequence in itertools.pairwise([self._expected - 1, *sequences]):
                self.out_of_order += sequence <= before
                self.missing += max(0, sequence - before - 1)
            following = sequences[-1] + 1
        self._expected = following

    def add_one(self, sequence: int, bid: float, ask: float, frame: bytes) -> None:
        """The same for one quote, in a fraction of the time."""
        self.quotes += 1
        self.quote_checksum = zlib.crc32(frame, self.quote_checksum)
        self.bid_sum += bid
        self.ask_sum += ask
        if sequence != self._expected:
            self.out_of_order += sequence < self._expected
            self.missing += max(0, sequence - self._expected)
        self._expected = sequence + 1


class ReplayWorker:
    """Feeds a strategy from a channel and answers with signals and reports."""

    def __init__(self, channel: mycelium.Channel, strategy: Strategy) -> None:
        self._channel = channel
        self._strategy = strategy
        self._name = channel.name[:16]
        self._signals = channel.publisher(Signal)
        self._reports = channel.publisher(ReplayReport)
        # Built once and filled again and again: setting the numbers costs less than building a message.
        self._drafts = [Signal(worker=self._name, side=Side.HOLD)]
        self._audit = Audit()
        # A successor that takes over in the middle of a phase has not seen its mark: it answers every quote.
        self._mode = Mode.RESUME if channel.epoch > 1 else Mode.STREAM

    def run(self) -> None:
        """Works until the bridge shuts down."""
        self._channel.subscribe(Quote, ReplayMark)
        try:
            while True:
                if self._mode is Mode.STREAM:
                    self._take_batch()
                else:
                    self._take(self._channel.recv())
        except mycelium.ChannelClosed:
            pass

    def _take_batch(self) -> None:
        """Takes many quotes at once: as columns, which costs a fraction of an object per quote."""
        with self._channel.recv_batch(limit=1024) as batch:
            sequences = batch.column(Quote, "sequence")
            if len(sequences) < len(batch):  # A mark is among them: what comes before it belongs to another phase.
                for message in batch:
                    self._take(message)
                return
            bids, asks = batch.column(Quote, "bid"), batch.column(Quote, "ask")
            decisions = self._strategy.decide(bids, asks, every=False)
            if decisions:
                times = batch.column(Quote, "timestamp_ns")
                self._answer(decisions, sequences, times, bids, asks)
            self._audit.add(sequences, bids, asks, batch.to_bytes())

    def _take(self, message: object) -> None:
        """Takes one message, with the shortest way to the answer."""
        if isinstance(message, Quote):
            sequence, bid, ask = message.sequence, message.bid, message.ask
            decisions = self._strategy.decide([bid], [ask], every=self._mode is not Mode.STREAM)
            if decisions:
                self._answer(decisions, [sequence], [message.timestamp_ns], [bid], [ask])
            self._audit.add_one(sequence, bid, ask, _frame(message))
        elif isinstance(message, ReplayMark):
            self._on_mark(message)

    def _answer(
        self, decisions: list[Decision], sequences: list[int], times: list[int], bids: list[float], asks: list[float]
    ) -> None:
        """Sends a signal for each decision, all in a row, so that the bridge has to be woken at most once."""
        drafts = self._drafts
        while len(drafts) < len(decisions):
            drafts.append(drafts[0].copy())
        for signal, (at, side, strength) in zip(drafts, decisions):
            signal.quote_sequence = sequences[at]
            signal.quote_timestamp_ns = times[at]
            signal.price = (bids[at] + asks[at]) / 2
            signal.side = side
            signal.strength = strength
        send = self._signals.send
        sent = drafts[: len(decisions)]
        for signal in sent:
            send(signal)
        audit = self._audit
        audit.signals += len(sent)
        audit.signal_checksum = zlib.crc32(b"".join(map(_frame, sent)), audit.signal_checksum)

    def _on_mark(self, mark: ReplayMark) -> None:
        takes_part = mark.worker in ("", self._name)
        if mark.action is Action.BEGIN:
            self._audit = Audit()
            self._mode = mark.mode
            if not takes_part:
                self._channel.unsubscribe(Quote)
        elif not takes_part:
            self._channel.subscribe(Quote)
        audit = self._audit
        report = ReplayReport(
            worker=self._name,
            phase=mark.phase,
            action=mark.action,
            quotes=audit.quotes,
            out_of_order=audit.out_of_order,
            missing=audit.missing,
            bid_sum=audit.bid_sum,
            ask_sum=audit.ask_sum,
            quote_checksum=audit.quote_checksum,
            signals=audit.signals,
            signal_checksum=audit.signal_checksum,
        )
        if mark.action is Action.END:
            self._mode = Mode.STREAM
        self._reports.send(report)


def _frame(message: Quote | Signal) -> bytes:
    return message.HEADER_WORD.to_bytes(8, "little") + message.to_bytes()


def main(strategy: Strategy) -> None:
    """Runs a strategy as a worker of a bridge, and exits the process with a code that tells."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        with mycelium.connect() as channel:
            ReplayWorker(channel, strategy).run()
    except mycelium.ChannelError as error:
        logging.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
