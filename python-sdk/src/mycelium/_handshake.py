"""The handshake of a peer, as a value: bytes in, bytes and decisions out; no I/O.

``Hello`` goes out; ``Refused``, or ``Welcome`` (with descriptors) and ``Settings``, come in; ``Attached`` goes out.
Where the contracts differ, ``ContractsOffer`` goes out before that and ``ContractsReport`` comes in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from . import _layout as layout
from ._control import (
    Attached,
    AttachedTransport,
    ContractsOffer,
    ContractsReport,
    FallbackCode,
    Hello,
    HelloTransport,
    LinkError,
    Refused,
    RefusedCode,
    Settings,
    Welcome,
    WelcomeTransport,
)
from ._differences import ContractDifference, decode_report
from ._frame import FrameDecoder, FrameHeader, decode_control, encode_frame
from .exceptions import HandshakeRefused, LinkFailed, ProtocolError, SchemaRefused

__all__ = ["SEGMENT_FDS", "Handshake", "truncate"]

SEGMENT_FDS = 3
_ZEROS = bytes(32)


def truncate(text: str, limit: int) -> str:
    """Cuts text to so many bytes of UTF-8, at a character."""
    return text.encode()[:limit].decode(errors="ignore")


class Handshake:
    """One handshake.

    Args:
        name: Link name to ask for; empty lets the bridge choose.
        token: Credential; empty for none.
        transport: ``"auto"``, ``"shm"`` or ``"socket"``.
        schema_digest: Digest of this side's contracts; 32 zeros for none.
        offer: Gives the description of this side's contracts, should the bridge have others.
        membarrier: Whether this process is registered for the heavy fence.
        fd_passing: Whether it can receive descriptors.

    Attributes:
        welcome: The bridge's Welcome once it came.
        settings: The worker's settings once they came.
        fds: Descriptors that came with the Welcome; the caller closes them.
        differences: What the bridge found, where the contracts differ.
    """

    def __init__(
        self,
        *,
        name: str = "",
        token: str = "",
        transport: str = "auto",
        schema_digest: bytes = _ZEROS,
        offer: Callable[[], bytes] = bytes,
        membarrier: bool = False,
        fd_passing: bool = True,
    ) -> None:
        self._name = name
        self._token = token
        self._transport = transport
        self._digest = schema_digest
        self._offer = offer
        self._offered = False
        self._reported = False
        self.differences: tuple[ContractDifference, ...] = ()
        self._membarrier = membarrier
        self._fd_passing = fd_passing
        self._decoder = FrameDecoder()
        self.welcome: Welcome | None = None
        self.settings: dict[str, Any] | None = None
        self.fds: list[int] = []

    def hello(self) -> bytes:
        """Returns the first frame of the peer."""
        wanted = {"auto": HelloTransport.AUTO, "shm": HelloTransport.SHM, "socket": HelloTransport.SOCKET}
        capabilities = layout.CAPABILITY_GAPS
        capabilities |= layout.CAPABILITY_MEMBARRIER if self._membarrier else 0
        capabilities |= layout.CAPABILITY_FD_PASSING if self._fd_passing else 0
        hello = Hello(
            protocol_version=layout.PROTOCOL_VERSION,
            transport=wanted[self._transport],
            capabilities=capabilities,
            pid=os.getpid(),
            schema_digest=self._digest,
            name=self._name,
            token=self._token,
        )
        return encode_frame(Hello.TOPIC_ID, hello.to_bytes())

    @property
    def complete(self) -> bool:
        """Whether everything came that is to come: Welcome and Settings, and the report where contracts differ."""
        return self.settings is not None and (self._reported or not self._differ)

    @property
    def _differ(self) -> bool:
        theirs = _ZEROS if self.welcome is None else bytes(self.welcome.schema_digest)
        return _ZEROS not in (theirs, self._digest) and theirs != self._digest

    def contracts_offer(self) -> bytes:
        """Returns the description of this side's contracts once it is due; otherwise nothing.

        Raises:
            ProtocolError: It is longer than the protocol allows.
        """
        if self.settings is None or self._offered or not self._differ:
            return b""
        self._offered = True
        payload = self._offer()
        if len(payload) > ContractsOffer.MAX_SIZE:
            raise ProtocolError(
                f"description of the contracts too long: len={len(payload)}, legal: 0..={ContractsOffer.MAX_SIZE}; "
                "pass fewer message classes to connect()"
            )
        self._decoder = self._decoder.widened(ContractsReport.MAX_SIZE)
        return encode_frame(ContractsOffer.TOPIC_ID, payload, layout.ENCODING_JSON << layout.FLAG_ENCODING_SHIFT)

    def receive(self, data: bytes, fds: list[int]) -> None:
        """Takes received bytes and descriptors.

        Raises:
            HandshakeRefused: The bridge refused; SchemaRefused where the contracts differ.
            ProtocolError: The bridge sent something else than the protocol says.
        """
        self.fds += fds
        self._decoder.feed(data)
        while not self.complete:
            frame = self._decoder.next_frame()
            if frame is None:
                return
            if self.settings is not None and not self._offered:
                raise ProtocolError(f"handshake out of step: topic_id={frame[0].topic_id} before the offer")
            self._frame(*frame)

    def take_rest(self) -> bytes:
        """Returns the bytes after the handshake, which belong to the channel."""
        return self._decoder.take_rest()

    def attached(self, transport: WelcomeTransport, code: int = 0, reason: str = "") -> bytes:
        """Returns the last frame of the handshake."""
        frame = Attached(
            transport=AttachedTransport[transport.name],
            fallback_code=FallbackCode(code),
            fallback_reason=truncate(reason, 240),
        )
        return encode_frame(Attached.TOPIC_ID, frame.to_bytes())

    def _frame(self, header: FrameHeader, payload: bytes) -> None:
        if header.topic_id == Refused.TOPIC_ID:
            raise self._refusal(decode_control(Refused, payload))
        if header.topic_id == LinkError.TOPIC_ID:
            error = decode_control(LinkError, payload)
            name = getattr(error.code, "name", int(error.code))
            raise LinkFailed(f"bridge ended the link: code={name} {error.message}", code=int(error.code))
        if self.settings is not None:
            if header.topic_id != ContractsReport.TOPIC_ID:
                raise ProtocolError(
                    f"handshake out of step: topic_id={header.topic_id}, expected={ContractsReport.TOPIC_ID}"
                )
            self.differences = decode_report(payload)
            self._reported = True
            return
        expected = Welcome if self.welcome is None else Settings
        if header.topic_id != expected.TOPIC_ID:
            text = f"handshake out of step: topic_id={header.topic_id}, expected={expected.TOPIC_ID} ({expected.NAME})"
            raise ProtocolError(text, topic_id=header.topic_id)
        if self.welcome is None:
            self.welcome = self._checked(decode_control(Welcome, payload))
            return
        try:
            settings = json.loads(payload)
        except ValueError as error:
            raise ProtocolError(f"settings are no JSON: len={len(payload)} error={error}") from error
        if not isinstance(settings, dict):
            raise ProtocolError(f"settings are no JSON object: type={type(settings).__name__}")
        self.settings = settings

    def _checked(self, welcome: Welcome) -> Welcome:
        if welcome.protocol_version != layout.PROTOCOL_VERSION:
            raise ProtocolError(
                f"protocol version differs: bridge={welcome.protocol_version} peer={layout.PROTOCOL_VERSION}; "
                "install the package that belongs to the bridge"
            )
        count = SEGMENT_FDS if welcome.transport == WelcomeTransport.SHM else 0
        if len(self.fds) != count:
            raise ProtocolError(
                f"welcome with the wrong number of descriptors: count={len(self.fds)}, "
                f"expected={count} for transport={WelcomeTransport(welcome.transport).name}"
            )
        return welcome

    def _refusal(self, refused: Refused) -> HandshakeRefused:
        code = int(refused.code)
        if code == RefusedCode.SCHEMA_MISMATCH:
            expected, actual = bytes(refused.expected_digest), bytes(refused.actual_digest)
            text = f"{_mismatch_text(expected, actual)}: {refused.message}"
            return SchemaRefused(text, code=code, expected=expected, actual=actual)
        name = getattr(refused.code, "name", code)
        return HandshakeRefused(f"bridge refused: code={name} {refused.message}", code=code)


def _mismatch_text(expected: bytes, actual: bytes) -> str:
    return (
        f"contracts differ: bridge={expected.hex()} peer={actual.hex()}; "
        "generate both sides from the same contracts file"
    )


def fallback_name(code: int) -> str:
    """Returns the name of a fallback code; its number where it has none."""
    try:
        return FallbackCode(code).name
    except ValueError:
        return str(code)
