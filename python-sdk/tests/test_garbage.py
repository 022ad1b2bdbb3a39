"""A peer that writes anything at all: only the errors that are meant for it, no hang, no access outside."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

import mycelium
from bridge_double import BridgeDouble
from builders import quote
from mycelium import _layout as layout
from mycelium._frame import encode_frame, header_word
from mycelium.messages import Quote, Signal

MakeBridge = Callable[..., BridgeDouble]
KNOWN = (Quote.HEADER_WORD, Signal.HEADER_WORD, header_word(3, 40_000), header_word(0, 1001), 0, header_word(56, 0, 1))


def drain(channel: mycelium.Channel, chance: random.Random) -> None:
    """Receives in both ways until nothing is left; every value read is a real one or a clear error."""
    while True:
        try:
            if chance.random() < 0.5:
                assert isinstance(channel.recv(timeout=0).to_bytes(), bytes)
            else:
                batch = channel.recv_batch(limit=3, timeout=0)
                assert len(batch) >= 1
                assert sum(len(batch.rows(contract, contract.FIELDS[1].name)) for contract in (Quote, Signal)) == len(
                    batch
                )
        except TimeoutError:
            return


@pytest.mark.parametrize("seed", range(20))
def test_garbage_in_the_ring(make_bridge: MakeBridge, seed: int) -> None:
    chance = random.Random(seed)
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        assert bridge.over_shm
        assert bridge.segment is not None
        ring = bridge.segment.ring(layout.RING_TO_PEER)
        words = ring.views.u64
        for at in range(ring.base, ring.base + ring.capacity // 8):
            words[at] = chance.choice(KNOWN) if chance.random() < 0.9 else chance.getrandbits(64)
        words[ring.control + layout.RING_PRODUCER_PARKED_OFFSET // 8] = chance.getrandbits(64)
        for _ in range(50):
            try:
                drain(channel, chance)
            except mycelium.SegmentCorrupt as error:
                assert error.field
                assert error.legal
                break
            words[channel._consumer.word] = chance.choice(KNOWN)
        head = words[ring.control + layout.RING_HEAD_OFFSET // 8]
        assert head % 8 == 0


@pytest.mark.parametrize("seed", range(20))
def test_garbage_on_the_socket(make_bridge: MakeBridge, seed: int) -> None:
    chance = random.Random(seed)
    bridge = make_bridge(transport="socket")
    channel = bridge.connect()
    good = encode_frame(Quote.TOPIC_ID, quote(1).to_bytes())
    stream = b"".join(
        good
        if chance.random() < 0.8
        else encode_frame(chance.choice((9, 11, 13, 2000)), chance.randbytes(chance.randrange(300)))
        for _ in range(30)
    )
    stream += struct.pack("<Q", chance.getrandbits(64)) + chance.randbytes(64)
    bridge.send_raw(stream)
    bridge.hang_up()
    with pytest.raises((mycelium.ProtocolError, mycelium.PeerLost, mycelium.LinkFailed, mycelium.ChannelClosed)):
        while True:
            channel.recv(timeout=30)
    channel.close()
    assert channel.closed
