"""The counters of a channel."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LinkCounts", "LostCounts", "Statistics"]


class LinkCounts(NamedTuple):
    """What a link counts, as far as it is part of :class:`Statistics`."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    parks: int = 0
    wakeups_sent: int = 0
    wakeups_received: int = 0


class LostCounts(NamedTuple):
    """How often a link was lost, and the frames that are known to have been lost with it."""

    disconnects: int = 0
    frames: int = 0


class Statistics(NamedTuple):
    """Counters of one channel since it was connected.

    Attributes:
        frames_in: Messages received. A running ``for`` loop adds its own now and then, at the latest when it waits.
        bytes_in: Bytes of records received, padding included.
        frames_out: Messages sent.
        bytes_out: Bytes of records sent, padding included.
        frames_skipped: Frames that came and whose topic no known message has.
        frames_rejected: Notices of the bridge that it dropped a frame of ours.
        frames_missed: Frames of subscribed topics that the bridge dropped on their way here, by the policy of the
            subscription, as far as it has told.
        parks: How often this side went to sleep.
        wakeups_sent: How often this side rang the bridge's doorbell.
        wakeups_received: How often something ended a sleep of this side.
        disconnects: How often the link was lost and made again (``reconnect=``).
        frames_lost: Messages that are known to have been lost with links: ours that the bridge had not taken from the
            ring, and those for us that had not been handed out.
        arrays_held: Released batches that arrays still lie over, now; see :meth:`mycelium.Batch.columns`.
        bytes_held: Bytes of those batches.
    """

    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    frames_skipped: int
    frames_rejected: int
    frames_missed: int
    parks: int
    wakeups_sent: int
    wakeups_received: int
    disconnects: int
    frames_lost: int
    arrays_held: int
    bytes_held: int
