"""One of two Python processes that send messages to and fro, for `make bench-python`: ours, and what else there is.

The near side sends a message and waits for it to come back; the far side sends back what comes. Both keep one message
of their carrier's own kind and change its number; the near side reads the number of what came back.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import measuring
import tick_messages as contracts
from measuring import END, fields, missing, values
from pair_ends import take_the_bridges_ends
from tick_messages import Tick

Exchange = Callable[[int], int]
Checked = Callable[[int], measuring.Values]
FORMAT = struct.Struct("<QQdd")
pack, unpack = FORMAT.pack, FORMAT.unpack


class Mycelium:
    """A channel on either side of one link.

    The SDK is always the peer of a bridge. Here the bridge only introduces two peers: it gives both the same memory,
    and the far side takes the ends that are the bridge's otherwise, which is all that is special about it.
    """

    def __init__(self, given: Any, stack: contextlib.ExitStack) -> None:
        import mycelium

        if given.role == "far":
            take_the_bridges_ends()
        self.channel = stack.enter_context(
            mycelium.connect(
                f"unix:{given.address}", name=given.role, contracts=contracts, transport="shm", spin_us=given.spin_us
            )
        )
        self.channel.subscribe(Tick)
        self.publisher = self.channel.publisher(Tick)
        measuring.pin(given.core)

    def near(self) -> tuple[Exchange, Checked]:
        message, send, recv = Tick(), self.publisher.send, self.channel.recv

        def exchange(sequence: int) -> int:
            message.sequence = sequence
            send(message)
            return recv().sequence  # type: ignore[no-any-return]

        def checked(sequence: int) -> measuring.Values:
            send(measuring.tick(sequence))
            return fields(recv())

        return exchange, checked

    def far(self) -> None:
        publisher = self.publisher
        for message in self.channel:
            publisher.send(message)
            if message.sequence == END:
                break


class Message(ctypes.Structure):
    """The message as iceoryx2 wants it."""

    _fields_ = (
        ("sequence", ctypes.c_uint64),
        ("timestamp_ns", ctypes.c_uint64),
        ("bid", ctypes.c_double),
        ("ask", ctypes.c_double),
    )

    @staticmethod
    def type_name() -> str:
        return "Tick"


class Iceoryx:
    """iceoryx2: a publish-subscribe service each way, polled."""

    def __init__(self, given: Any, stack: contextlib.ExitStack) -> None:
        try:
            import iceoryx2
        except ImportError as error:
            raise missing(error) from error
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        there, back = self._service(iceoryx2, given, "there"), self._service(iceoryx2, given, "back")
        outgoing, incoming = (there, back) if given.role == "near" else (back, there)
        self.subscriber = incoming.subscriber_builder().create()
        self.publisher = outgoing.publisher_builder().create()
        self.outgoing, self.incoming = outgoing, incoming
        measuring.pin(given.core)

    def _service(self, iceoryx2: Any, given: Any, direction: str) -> Any:
        name = iceoryx2.ServiceName.new(f"{given.address}/{direction}")
        return self.node.service_builder(name).publish_subscribe(Message).open_or_create()

    def near(self) -> tuple[Exchange, Checked]:
        end = time.monotonic() + measuring.PATIENCE_S
        while (
            self.outgoing.dynamic_config.number_of_subscribers == 0
            or self.incoming.dynamic_config.number_of_publishers == 0
        ):
            if time.monotonic() > end:
                raise SystemExit("the far side did not open its services")
        message, send, receive = Message(), self.publisher.send_copy, self.subscriber.receive

        def exchange(sequence: int) -> int:
            message.sequence = sequence
            send(message)
            while (sample := receive()) is None:
                pass
            return sample.payload().contents.sequence  # type: ignore[no-any-return]

        def checked(sequence: int) -> measuring.Values:
            send(Message(*values(sequence)))
            while (sample := receive()) is None:
                pass
            return fields(sample.payload().contents)

        return exchange, checked

    def far(self) -> None:
        send, receive = self.publisher.send_copy, self.subscriber.receive
        while True:
            sample = receive()
            if sample is None:
                continue
            message = sample.payload().contents
            send(message)
            if message.sequence == END:
                return


class Bytes:
    """What carries bytes: `send` takes a message's, `receive` gives one's."""

    send: Callable[[bytes], Any]
    receive: Callable[[], bytes]

    def near(self) -> tuple[Exchange, Checked]:
        send, receive = self.send, self.receive

        def exchange(sequence: int) -> int:
            send(pack(sequence, 7, 1.25, 1.5))
            return unpack(receive())[0]  # type: ignore[no-any-return]

        def checked(sequence: int) -> measuring.Values:
            send(pack(*values(sequence)))
            return unpack(receive())

        return exchange, checked

    def far(self) -> None:
        send, receive = self.send, self.receive
        while True:
            message = receive()
            send(message)
            if unpack(message)[0] == END:
                return


class Unix(Bytes):
    """A UNIX socket, of streams."""

    def __init__(self, given: Any, stack: contextlib.ExitStack) -> None:
        if given.role == "far":
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(given.address)
            listener.listen()
            measuring.ready()
            connection, _ = listener.accept()
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(given.address)
        stack.enter_context(connection)
        measuring.pin(given.core)
        self.send = connection.sendall
        self.receive = lambda: connection.recv(FORMAT.size, socket.MSG_WAITALL)


class Pipe(Bytes):
    """`multiprocessing.Pipe`: its connections, but made at an address, as neither process is the other one's child."""

    def __init__(self, given: Any, stack: contextlib.ExitStack) -> None:
        connection: Connection
        if given.role == "far":
            listener = stack.enter_context(Listener(given.address, "AF_UNIX"))
            measuring.ready()
            connection = listener.accept()
        else:
            connection = Client(given.address, "AF_UNIX")
        stack.enter_context(connection)
        measuring.pin(given.core)
        self.send, self.receive = connection.send_bytes, connection.recv_bytes


class Zmq(Bytes):
    """pyzmq: a pair of sockets over ipc."""

    def __init__(self, given: Any, stack: contextlib.ExitStack) -> None:
        try:
            import zmq
        except ImportError as error:
            raise missing(error) from error
        context = stack.enter_context(zmq.Context())
        sock = stack.enter_context(context.socket(zmq.PAIR))
        if given.role == "far":
            sock.bind(f"ipc://{given.address}")
        else:
            sock.connect(f"ipc://{given.address}")
        measuring.pin(given.core)
        self.send, self.receive = sock.send, sock.recv


CARRIERS = {"mycelium": Mycelium, "iceoryx2": Iceoryx, "pyzmq": Zmq, "pipe": Pipe, "unix": Unix}
READY_BY_ITSELF = ("unix", "pipe")


def main() -> None:
    given = measuring.arguments(__doc__ or "", list(CARRIERS))
    with contextlib.ExitStack() as stack:
        carrier: Any = CARRIERS[given.case](given, stack)
        if given.role == "far":
            if given.case not in READY_BY_ITSELF:
                measuring.ready()
            carrier.far()
            return
        exchange, checked = carrier.near()
        measuring.round_trips(exchange, checked, given.millis)
        exchange(END)


main()
