"""A worker that writes down every frame that it got, before it goes on to the next one.

A record is 32 bytes, written with one call into a file of this process alone. No record crosses a page, so what is there
after a SIGKILL are whole records.
"""

import os
import pathlib
import signal
import struct
import sys
import zlib

import mycelium
from mycelium.events import Missed

place = pathlib.Path(__file__).parent
sys.path.insert(0, (place / "contracts").read_text())

import chaos_messages as messages  # noqa: E402
from chaos_messages import Order, Receipt  # noqa: E402

RECORD = struct.Struct("<QIIIHHQ")
HEAD = struct.Struct("<IIQ")
POISON = 1


class Leave(BaseException):
    """Raised in the middle of whatever this process does."""


code = None


def leave(number, _frame):
    global code
    code = 0 if number == signal.SIGUSR1 else 3
    raise Leave


signal.signal(signal.SIGUSR1, leave)
signal.signal(signal.SIGUSR2, leave)


def missed(event):
    if isinstance(event, Missed) and journal >= 0:
        record(0, 0, event.total, 0, event.topic_id)


def record(topic, publisher, sequence, lane, checksum):
    os.write(journal, RECORD.pack(sequence, publisher, lane, checksum, topic, 0, 0))


def work(channel, receipts, poison):
    for message in channel:
        if isinstance(message, Order):
            payload = message.payload
            publisher, flags, sequence = HEAD.unpack_from(payload)
            checksum = zlib.crc32(payload)
            if poison and flags & POISON:
                os._exit(41)
            record(Order.TOPIC_ID, publisher, sequence, 0, checksum)
            if receipts is not None:
                receipts.send(
                    Receipt(
                        worker=channel.name, epoch=channel.epoch, sequence=sequence, publisher=publisher, checksum=checksum
                    )
                )
        else:
            checksum = zlib.crc32(message.to_bytes())
            record(message.TOPIC_ID, message.publisher, message.sequence, message.lane, checksum)
        if code is not None:
            return


journal = -1
try:
    with mycelium.connect(contracts=messages, on_event=missed) as channel:
        name = f"{channel.name}.{channel.epoch:08}.{os.getpid()}"
        journal = os.open(place / "journal" / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        receipts = channel.publisher(Receipt) if channel.settings.get("receipts") else None
        work(channel, receipts, channel.settings.get("poison", False))
except Leave:
    pass
sys.exit(code or 0)
