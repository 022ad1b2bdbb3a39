"""What happens on a connection besides messages, for programs that want to know.

Pass a function to ``connect(..., on_event=...)``. It is called with one of these records, in the thread (or the event
loop) of the program, from inside a call that receives or waits: never from another thread, and never while a message is
being taken. What happened is counted in ``channel.statistics()`` as well, with or without a function. An exception that
the function raises comes out of that call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

__all__ = ["Disconnected", "Event", "Missed", "Reconnected", "Rejected", "ShuttingDown"]


@dataclass(frozen=True)
class Missed:
    """The bridge dropped frames on their way here, by the policy of the subscription.

    Events of one message that wait to be told are merged into one.

    Attributes:
        message: Name of the message; empty where this side does not know the topic.
        topic_id: Its topic.
        count: Frames missed since the event before.
        total: Frames missed since the link began, those of earlier processes on this link included.
    """

    message: str
    topic_id: int
    count: int
    total: int


@dataclass(frozen=True)
class Rejected:
    """The bridge dropped a frame that this side published.

    Attributes:
        message: Name of the message; empty where this side does not know the topic.
        topic_id: Its topic.
        reason: What the bridge says about the last one.
        count: Frames rejected since the event before.
    """

    message: str
    topic_id: int
    reason: str
    count: int


@dataclass(frozen=True)
class ShuttingDown:
    """The bridge is stopping: handle what is there, then close.

    Attributes:
        reason: Why, as a sentence.
        deadline_s: Seconds until the bridge ends the link by force.
    """

    reason: str
    deadline_s: float


@dataclass(frozen=True)
class Disconnected:
    """The link is lost and is going to be made again (``reconnect=``).

    What the bridge had put into the ring was read before, unless the loss was noticed while sending. What is lost is
    counted as far as it is known: frames that were in the socket or in the bridge are not.

    Attributes:
        reason: What happened, as a sentence.
        frames_unsent: Messages of ours that the bridge had not taken.
        frames_unread: Messages for us that were in the ring and had not been handed out.
    """

    reason: str
    frames_unsent: int
    frames_unread: int


@dataclass(frozen=True)
class Reconnected:
    """The link is there again; subscriptions and publishers are restored, and what was published meanwhile is missed.

    Attributes:
        attempts: How many attempts it took.
        down_s: How long the link was away, in seconds.
        transport: ``"shm"`` or ``"socket"``; it may have changed.
    """

    attempts: int
    down_s: float
    transport: str


Event = Union[Missed, Rejected, ShuttingDown, Disconnected, Reconnected]  # noqa: UP007  # an alias at run time, 3.10
"""Any of the records above."""
