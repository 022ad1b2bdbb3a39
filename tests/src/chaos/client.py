"""A client beside the workers: publishes orders, or subscribes to what there is, until it is killed.

It writes eight bytes when it is connected, and when it publishes, eight more for each frame that was taken.
"""

import os
import struct
import sys

import mycelium

address, name, publisher, role, transport, token, journal, folder = sys.argv[1:]
sys.path.insert(0, folder)

import chaos_messages as messages  # noqa: E402

PATTERN = bytes(range(256)) * 4
FRAMES = 64

out = os.open(journal, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
with mycelium.connect(address, name=name, token=token, transport=transport, contracts=messages) as channel:
    if role == "subscribe":
        channel.subscribe(messages.Order, messages.Trade)
        os.write(out, bytes(8))
        for _ in channel:
            pass
    orders = channel.publisher(messages.Order)
    os.write(out, bytes(8))
    for sequence in range(1, FRAMES + 1):
        length = (sequence * 37 + int(publisher) * 11) % 600
        start = sequence % 256
        orders.send_raw(struct.pack("<IIQ", int(publisher), 0, sequence) + PATTERN[start : start + length])
        os.write(out, struct.pack("<Q", sequence))
    for _ in channel:
        pass
