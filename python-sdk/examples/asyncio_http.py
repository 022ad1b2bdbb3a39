"""asyncio: answers quotes while limits are fetched over HTTP beside it.

A timer asks a web service for ``{"max_strength": 0.5}`` every few seconds; quotes are answered meanwhile, with the
limits that are known. Without an answer the last limits stay, and the worker's health says so::

    [worker.settings]
    limits_url = "http://127.0.0.1:8080/limits"
    every_s = 5.0
"""

from __future__ import annotations

import asyncio
import json
import urllib.request

import mycelium
from mycelium.messages import Quote, Side, Signal

worker = mycelium.Worker()
signals = worker.async_publisher(Signal)
limits = {"max_strength": 0.0}  # nothing goes out before the limits are known
fetching: set[asyncio.Task[None]] = set()


def fetch(url: str) -> dict[str, float]:
    """Blocks, so it runs in a thread; with an HTTP client for asyncio this would be an ``await``."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"limits_url not understood: limits_url={url!r}; use http://... or https://...")
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # the scheme is checked above
        return {"max_strength": float(json.load(answer)["max_strength"])}


async def refresh() -> None:
    """Fetches the limits again and again, until the worker ends."""
    while True:
        try:
            limits.update(await asyncio.to_thread(fetch, worker.settings["limits_url"]))
            worker.health("limits known")
        except (OSError, LookupError, ValueError) as error:
            worker.health(f"limits unknown: {error}")
        await asyncio.sleep(worker.settings.get("every_s", 5.0))


@worker.on_start
async def start() -> None:
    """Starts fetching beside the messages; a set keeps the task from being collected."""
    fetching.add(asyncio.create_task(refresh()))


@worker.on(Quote)
async def on_quote(quote: Quote) -> None:
    """Answers within the limits."""
    strength = min(1.0, limits["max_strength"])
    if strength > 0:
        await signals.send(
            Signal(
                worker=worker.channel.name[:16],
                quote_sequence=quote.sequence,
                quote_timestamp_ns=quote.timestamp_ns,
                side=Side.HOLD,
                strength=strength,
                price=(quote.bid + quote.ask) / 2,
            )
        )


@worker.on_shutdown
async def stop(left: float) -> None:
    """Ends the fetching."""
    for task in fetching:
        task.cancel()


if __name__ == "__main__":
    worker.run()
