"""What comes besides messages: control frames, the events made of them, and answers to requests."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import _control as control
from ._delivery import Delivery, delivery_name
from ._differences import ContractDifference
from ._doorbell import deadline_after
from ._frame import FrameHeader, decode_control, encode_frame
from ._link import Link
from ._waits import Steps, Wait
from .events import Event, Missed, Rejected, ShuttingDown
from .exceptions import (
    ChannelClosed,
    ContractMismatch,
    DeliveryRefused,
    LinkFailed,
    PeerLost,
    ProtocolError,
    UnknownTopic,
)

__all__ = ["Inbox", "layout_digest"]

_log = logging.getLogger("mycelium")
_DELIVERY_REFUSED = (control.TopicReplyCode.BAD_DELIVERY, control.TopicReplyCode.BLOCK_NOT_ALLOWED)
_REQUESTS = {kind.TOPIC_ID: kind.NAME for kind in (control.Subscribe, control.Unsubscribe, control.Advertise)}


class Inbox:
    """The part of a channel that handles control frames; it is a base class of :class:`ChannelCore` only."""

    name: str
    transport: str
    contract_differences: tuple[ContractDifference, ...]
    _link: Link
    _registry: Any

    def __init__(self, *, timeout: float, on_event: Callable[[Event], object] | None) -> None:
        self._timeout = timeout
        self._on_event = on_event
        self._events: list[Event] = []
        self._closed = False
        self._closed_text = "channel is closed"
        self._shutdown: control.Shutdown | None = None
        self._shutdown_at: int | None = None
        self._failure: LinkFailed | None = None
        self._replies: dict[tuple[int, int], control.TopicReply] = {}
        self._rejected: dict[int, int] = {}
        self._missed: dict[int, int] = {}
        self._deliveries: dict[int, Delivery] = {}

    # ---- control frames

    def _ended(self) -> bool:
        return self._shutdown is not None or self._link.eof

    def _handle_control(self, *, ahead: bool) -> None:
        self._link.receive_control(ahead=ahead)
        self._drain_control()

    def _drain_control(self) -> None:
        frames = self._link.control
        while frames:
            try:
                self._on_control(*frames[0])
            except Exception:
                del frames[0]
                raise
            del frames[0]  # last, so that no interrupt loses a frame

    def _on_control(self, header: FrameHeader, payload: bytes) -> None:
        topic_id = header.topic_id
        if topic_id == control.TopicReply.TOPIC_ID:
            self._on_reply(decode_control(control.TopicReply, payload))
        elif topic_id == control.Gap.TOPIC_ID:
            self._on_gap(decode_control(control.Gap, payload))
        elif topic_id == control.Shutdown.TOPIC_ID:
            self._shutdown = decode_control(control.Shutdown, payload)
            self._shutdown_at = time.monotonic_ns() + self._shutdown.deadline_ms * 1_000_000
            self._tell(ShuttingDown(self._shutdown.reason, self._shutdown.deadline_ms / 1e3))
        elif topic_id == control.LinkError.TOPIC_ID:
            error = decode_control(control.LinkError, payload)
            code = int(error.code)
            name = getattr(error.code, "name", code)
            text = f"bridge ended the link: link={self.name} code={name} {error.message}"
            self._failure = LinkFailed(text, code=code)
        else:
            text = f"unexpected control frame: topic_id={topic_id} payload_len={header.payload_len}"
            raise ProtocolError(text, topic_id=topic_id)

    def _on_reply(self, reply: control.TopicReply) -> None:
        if reply.request:
            self._replies[reply.request, reply.topic_id] = reply
            return
        seen = self._rejected.get(reply.topic_id, 0)
        self._rejected[reply.topic_id] = seen + 1
        if not seen:
            _log.warning(
                "bridge dropped a published frame: link=%s topic_id=%d %s", self.name, reply.topic_id, reply.reason
            )
        self._tell(Rejected(self._registry.name(reply.topic_id), reply.topic_id, reply.reason, 1))

    def _on_gap(self, gap: control.Gap) -> None:
        seen = self._missed.get(gap.topic_id, 0)
        self._missed[gap.topic_id] = seen + gap.missed
        if not seen:
            _log.warning(
                "bridge dropped frames for this link: link=%s topic_id=%d missed=%d total=%d; further are only counted",
                self.name,
                gap.topic_id,
                gap.missed,
                gap.total,
            )
        self._tell(Missed(self._registry.name(gap.topic_id), gap.topic_id, gap.missed, gap.total))

    # ---- events

    def _tell(self, event: Event) -> None:
        """Keeps an event for :meth:`_deliver`; there is at most one of each topic, so that they cannot pile up."""
        if self._on_event is None:
            return
        if isinstance(event, (Missed, Rejected)):
            for index, other in enumerate(self._events):
                if isinstance(other, type(event)) and other.topic_id == event.topic_id:
                    self._events[index] = replace(event, count=other.count + event.count)
                    return
        self._events.append(event)

    def _deliver(self) -> None:
        """Calls the program with the events that wait; what it raises comes out here."""
        while self._events and self._on_event is not None:
            self._on_event(self._events.pop(0))

    # ---- whether there is somebody at the other end

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelClosed(self._closed_text)

    def _check_alive(self) -> None:
        """Raises if nothing can come any more; called when nothing is left to read."""
        if self._failure is not None:
            raise self._failure
        if self._shutdown is not None:
            reason = self._shutdown.reason
            raise ChannelClosed(f"bridge has shut down and nothing is left: reason={reason!r}", reason=reason)
        if self._link.eof:
            text = f"bridge hung up without a shutdown: link={self.name} transport={self.transport}; look into its log"
            raise PeerLost(text, link=self.name)

    # ---- requests

    def _refusing(self, topic_id: int) -> tuple[ContractDifference, ...]:
        return tuple(it for it in self.contract_differences if it.refuses(topic_id))

    def _request_steps(self, request: int, contract: type[Any], payload: bytes) -> Steps[None]:
        """Sends a request and waits for its TopicReply; data frames stay where they are."""
        what = f"request={_REQUESTS[request]} message={contract.NAME} topic_id={contract.TOPIC_ID}"
        deadline = deadline_after(self._timeout)
        key = (request, contract.TOPIC_ID)
        self._replies.pop(key, None)
        self._link.writer.write(encode_frame(request, payload))
        while True:
            self._check_open()
            self._handle_control(ahead=True)
            reply = self._replies.pop(key, None)
            if reply is not None:
                break
            if self._failure is not None:
                raise self._failure
            if self._link.eof or self._link.writer.lost:
                text = f"bridge hung up: link={self.name} {what}; look into its log"
                raise PeerLost(text, link=self.name)
            left = 0 if deadline is None else deadline - time.monotonic_ns()
            if left <= 0:
                raise TimeoutError(f"no reply in time: {what} timeout_s={self._timeout}; look into the bridge's log")
            events = select.POLLIN | (select.POLLOUT if self._link.writer.pending else 0)
            yield Wait(self._link.sock, events, left / 1e6)
        code = int(reply.code)
        if code == control.TopicReplyCode.OK:
            if request == control.Subscribe.TOPIC_ID:
                self._subscribed(contract, reply)
            return
        name = getattr(reply.code, "name", code)
        text = f"bridge refused: message={contract.NAME} topic_id={contract.TOPIC_ID} code={name} {reply.reason}"
        if code == control.TopicReplyCode.UNKNOWN_TOPIC:
            raise UnknownTopic(text, topic_id=contract.TOPIC_ID)
        if code in _DELIVERY_REFUSED:
            raise DeliveryRefused(text, topic_id=contract.TOPIC_ID, code=code)
        self._registry.refuse(contract.TOPIC_ID)
        differences = self._refusing(contract.TOPIC_ID)
        offered = self._registry.instead_of(contract)
        remedy = []
        if offered is not None:
            remedy.append(
                f"the bridge was told of {offered.__module__}.{offered.__name__} instead of {contract.__module__}."
                f"{contract.__name__}: pass the module {contract.__module__} as contracts to connect()"
            )
        raise ContractMismatch(
            "; ".join([text, *(it.text for it in differences if it.text not in text), *remedy]),
            topic_id=contract.TOPIC_ID,
            expected=next((it.expected for it in differences), b""),
            actual=layout_digest(contract),
            differences=differences,
        )

    def _subscribed(self, contract: type[Any], reply: control.TopicReply) -> None:
        name = delivery_name(reply.delivery)
        if name is not None:
            self._deliveries[contract.TOPIC_ID] = name
        if reply.reason:
            _log.warning(
                "another delivery than asked for: link=%s message=%s %s", self.name, contract.NAME, reply.reason
            )


def layout_digest(contract: Any) -> bytes:
    """Returns the digest of a message's layout; zeros where it has none."""
    return bytes(getattr(contract, "LAYOUT_DIGEST", bytes(32)))
