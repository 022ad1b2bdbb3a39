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
from typing import Protocol

import mycelium
from mycelium.messages import Action, Mode, Quote, ReplayMark, ReplayReport, Side, Signal

__all__ = ["Decision", "Row", "Strategy", "main"]

Row = tuple[int, int, float, float]
"""sequence, timestamp_ns, bid, ask: the columns that a strategy needs."""

Decision = tuple[int, int, float, Side, float]
"""quote_sequence, quote_timestamp_ns, price, side, strength."""

_COLUMNS = ("sequence", "timestamp_ns", "bid", "ask")
_sequence_of = operator.itemgetter(0)
_bid_of = operator.itemgetter(2)
_ask_of = operator.itemgetter(3)


class Strategy(Protocol):
    """What a strategy has to offer."""

    def decide(self, rows: list[Row], *, every: bool) -> list[Decision]:
        """Takes quotes in their order and returns its decisions: on ``every`` quote, or only when the side changes."""
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

    def add(self, rows: list[Row], frames: bytes) -> None:
        """Adds quotes in the order received, and the bytes of their frames."""
        self.quotes += len(rows)
        self.quote_checksum = zlib.crc32(frames, self.quote_checksum)
        # One addition after the other, as the publisher does it: the order matters for a float sum.
        self.bid_sum = functools.reduce(operator.add, map(_bid_of, rows), self.bid_sum)
        self.ask_sum = functools.reduce(operator.add, map(_ask_of, rows), self.ask_sum)
        sequences = list(map(_sequence_of, rows))
        following = self._expected + len(rows)
        if sequences != list(range(self._expected, following)):
            for before, sequence in itertools.pairwise([self._expected - 1, *sequences]):
                self.out_of_order += sequence <= before
                self.missing += max(0, sequence - before - 1)
            following = sequences[-1] + 1
        self._expected = following


class ReplayWorker:
    """Feeds a strategy from a channel and answers with signals and reports."""

    def __init__(self, channel: mycelium.Channel, strategy: Strategy) -> None:
        self._channel = channel
        self._strategy = strategy
        self._name = channel.name[:16]
        self._signals = channel.publisher(Signal)
        self._reports = channel.publisher(ReplayReport)
        self._signal = Signal(worker=self._name, side=Side.HOLD)
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
                    self._take_one()
        except mycelium.ChannelClosed:
            pass

    def _take_batch(self) -> None:
        """Many quotes at once: as rows, which costs a fraction of an object per quote."""
        with self._channel.recv_batch(limit=2048) as batch:
            rows = batch.rows(Quote, *_COLUMNS)
            if len(rows) == len(batch):
                self._take_rows(rows, batch.to_bytes())
            else:
                for message in batch:
                    self._take(message)

    def _take_one(self) -> None:
        """One quote at a time, with the shortest way to the answer."""
        self._take(self._channel.recv())

    def _take(self, message: object) -> None:
        if isinstance(message, Quote):
            row = (message.sequence, message.timestamp_ns, message.bid, message.ask)
            for decision in self._strategy.decide([row], every=self._mode is not Mode.STREAM):
                self._send(decision)
            self._audit.add([row], Quote.HEADER_WORD.to_bytes(8, "little") + message.to_bytes())
        elif isinstance(message, ReplayMark):
            self._on_mark(message)

    def _take_rows(self, rows: list[Row], frames: bytes) -> None:
        for decision in self._strategy.decide(rows, every=False):
            self._send(decision)
        self._audit.add(rows, frames)

    def _send(self, decision: Decision) -> None:
        signal = self._signal
        signal.quote_sequence, signal.quote_timestamp_ns, signal.price, signal.side, signal.strength = decision
        self._signals.send(signal)
        self._audit.signals += 1
        frame = Signal.HEADER_WORD.to_bytes(8, "little") + signal.to_bytes()
        self._audit.signal_checksum = zlib.crc32(frame, self._audit.signal_checksum)

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
