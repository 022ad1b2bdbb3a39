"""One of two Python processes that send messages to and fro from event loops, for `make bench-python`.

Both sides sleep in their loops while there is nothing. See `pair.py` for how two channels come to one link.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import measuring
import tick_messages as contracts
from measuring import END, fields, values
from pair_ends import take_the_bridges_ends
from tick_messages import Tick

from mycelium import aio

FORMAT = struct.Struct("<QQdd")
pack, unpack = FORMAT.pack, FORMAT.unpack


async def mycelium_channel(given: Any) -> None:
    if given.role == "far":
        take_the_bridges_ends()
    async with aio.connect(
        f"unix:{given.address}", name=given.role, contracts=contracts, transport="shm", spin_us=given.spin_us
    ) as channel:
        await channel.subscribe(Tick)
        publisher = await channel.publisher(Tick)
        measuring.pin(given.core)
        if given.role == "far":
            measuring.ready()
            async for message in channel:
                await publisher.send(message)
                if message.sequence == END:
                    return
        message = Tick()

        async def exchange(sequence: int) -> int:
            message.sequence = sequence
            await publisher.send(message)
            return (await channel.recv()).sequence  # type: ignore[no-any-return]

        async def checked(sequence: int) -> measuring.Values:
            await publisher.send(measuring.tick(sequence))
            return fields(await channel.recv())

        await measuring.round_trips_async(exchange, checked, given.millis)
        await exchange(END)


async def streams(given: Any) -> None:
    if given.role == "far":
        await serve_streams(given)
        return
    reader, writer = await asyncio.open_unix_connection(given.address)
    measuring.pin(given.core)

    async def exchange(sequence: int) -> int:
        writer.write(pack(sequence, 7, 1.25, 1.5))
        await writer.drain()
        return unpack(await reader.readexactly(FORMAT.size))[0]  # type: ignore[no-any-return]

    async def checked(sequence: int) -> measuring.Values:
        writer.write(pack(*values(sequence)))
        await writer.drain()
        return unpack(await reader.readexactly(FORMAT.size))

    await measuring.round_trips_async(exchange, checked, given.millis)
    await exchange(END)
    writer.close()
    await writer.wait_closed()


async def serve_streams(given: Any) -> None:
    done = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await reader.readexactly(FORMAT.size)
            writer.write(message)
            await writer.drain()
            if unpack(message)[0] == END:
                break
        writer.close()
        done.set()

    async with await asyncio.start_unix_server(echo, given.address):
        measuring.pin(given.core)
        measuring.ready()
        await done.wait()


CARRIERS = {"mycelium": mycelium_channel, "streams": streams}


def main() -> None:
    given = measuring.arguments(__doc__ or "", list(CARRIERS))
    asyncio.run(CARRIERS[given.case](given))


main()
