"""A multi-armed bandit: follows the one of several strategies that has been right most often, and keeps trying others.

Each strategy that publishes ``Signal`` is an arm. A signal is settled by the next one of the same strategy: it was
right if the price went its way meanwhile. Thompson sampling chooses the arm to follow: one draw from the Beta
distribution of each arm's record, and the highest wins. Signals of the chosen strategy are published again under this
worker's name.

What was learned survives a kill, and no signal counts twice::

    [worker.settings]
    state_file = "/var/lib/mycelium/bandit.json"

Delivery is at least once: after a crash the bridge sends again what was not acknowledged. So the state has the sequence
number of the last signal that is counted in it, and it is saved before its signals are acknowledged, which is when the
handler returns. What is published, on the other hand, may be published again; whoever needs it once looks at
``quote_sequence``.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TypedDict

import mycelium
from mycelium.messages import Side, Signal

worker = mycelium.Worker()
decisions = worker.publisher(Signal)
draws = random.Random()  # noqa: S311  # not for secrets


class Arm(TypedDict):
    """What is known of one strategy."""

    sequence: int
    side: int
    price: float
    right: int
    wrong: int


arms: dict[str, Arm] = {}


def state_file() -> Path:
    """Where the arms are kept."""
    return Path(worker.settings.get("state_file", "bandit.json"))


@worker.on_start
def load() -> None:
    """Takes over what a predecessor has saved."""
    arms.clear()
    if state_file().exists():
        arms.update(json.loads(state_file().read_text()))
        worker.health(f"resumed with {len(arms)} arms")


def save() -> None:
    """Replaces the file at once: whoever is killed here leaves the old one or the new one, and never half of it.

    A power cut is another matter: for that, fsync the file before, and its folder after.
    """
    fresh = state_file().with_suffix(".new")
    fresh.write_text(json.dumps(arms))
    os.replace(fresh, state_file())


def settle(arm: Arm, price: float) -> None:
    """Counts whether the arm's last signal was right."""
    if arm["side"] == Side.HOLD or price == arm["price"]:
        return
    if (price > arm["price"]) == (arm["side"] == Side.BUY):
        arm["right"] += 1
    else:
        arm["wrong"] += 1


def choose() -> str:
    """Returns the arm to follow now."""
    return max(arms, key=lambda name: draws.betavariate(1 + arms[name]["right"], 1 + arms[name]["wrong"]))


@worker.on_batch(Signal, limit=256)  # so that the file is written once for many
def on_signals(batch: mycelium.Batch) -> None:
    """Counts signals, and publishes those of the chosen strategy."""
    counted = False
    for signal in batch:
        name = signal.worker
        arm = arms.setdefault(name, Arm(sequence=0, side=int(Side.HOLD), price=0.0, right=0, wrong=0))
        if signal.quote_sequence <= arm["sequence"]:
            continue  # sent again after a crash, and counted already
        settle(arm, signal.price)
        arm["sequence"], arm["side"], arm["price"] = signal.quote_sequence, int(signal.side), signal.price
        counted = True
        if choose() == name:
            decision = signal.copy()
            decision.worker = worker.channel.name[:16]
            decisions.send(decision)
    if counted:
        save()


if __name__ == "__main__":
    worker.run()
