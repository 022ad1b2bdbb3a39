"""The worker of `make bench-bridge`: sends probes back, or counts them and tells how long they were on their way."""

from __future__ import annotations

import os
import time

import probe_messages as contracts
from probe_messages import Ask, Delay, Probe, Seen

import mycelium
from mycelium import Channel

BATCH = 4096


def echo(channel: Channel) -> None:
    probes = channel.publisher(Probe)
    for probe in channel:
        probes.send(probe)


def count(channel: Channel) -> None:
    worker, pid = channel.settings["worker"], os.getpid()
    answers, late = channel.publisher(Seen), channel.publisher(Delay)
    clock = time.monotonic_ns
    probes, total = 0, 0
    delays: list[int] = []
    for batch in channel.batches(BATCH):
        now = clock()
        for sequence, kind, sent_ns in batch.rows(Probe, "sequence", "kind", "timestamp_ns"):
            probes += 1
            total += sequence
            if kind:
                delays.append(now - sent_ns)
        for (number,) in batch.rows(Ask, "number"):
            answers.send(Seen(worker=worker, pid=pid, number=number, count=probes, sum=total, delays=len(delays)))
            for ns in delays:
                late.send(Delay(worker=worker, ns=ns))
            probes, total = 0, 0
            delays.clear()


def main() -> None:
    with mycelium.connect(contracts=contracts) as channel:
        {"echo": echo, "count": count}[channel.settings["case"]](channel)


main()
