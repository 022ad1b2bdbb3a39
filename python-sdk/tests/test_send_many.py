"""Sending many messages at once, and what exceptions at any point of sending leave behind."""

from __future__ import annotations

import asyncio
import dis
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import numpy
import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote, signal
from mycelium import _ring, aio, messages
from mycelium._arrays import sendable
from mycelium._message import Message
from mycelium._ring import COMMITTING
from mycelium.messages import MESSAGES, Quote, Side, Signal
from test_dynamic import Blob
from test_vectors import golden

MakeBridge = Callable[..., BridgeDouble]
RECORD = 8 + Quote.SIZE


def quotes(first: int, count: int) -> list[Quote]:
    return [quote(number) for number in range(first, first + count)]


def numbers(taken: list[Any]) -> list[int]:
    return [message.sequence for message in taken]


def in_background(bridge: BridgeDouble, count: int) -> tuple[threading.Thread, list[Any]]:
    """Lets the bridge take so many quotes while the test sends."""
    taken: list[Any] = []
    assert bridge.over_shm in (True, False)
    thread = threading.Thread(target=lambda: taken.extend(bridge.take(Quote, count)))
    thread.start()
    return thread, taken


@pytest.mark.parametrize("form", [list, tuple, iter, Quote.to_array, lambda them: Quote.to_array(them)[::1]])
def test_everything_arrives_in_order_through_a_link_that_is_smaller(bridge: BridgeDouble, form: Any) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        publisher.send(quote(0))
        thread, taken = in_background(bridge, 1002)
        assert publisher.send_many(form(quotes(1, 1000)), timeout=30) == 1000
        publisher.send(quote(1001))
        thread.join()
        assert numbers(taken) == list(range(1002))
        assert taken[501] == quote(501)
        assert channel.statistics().frames_out == 1002
        assert channel.statistics().bytes_out >= 1002 * RECORD


def test_nothing_is_sent_of_nothing(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        assert publisher.send_many([]) == 0
        assert publisher.send_many(iter(())) == 0
        assert publisher.send_many(Quote.to_array([])) == 0
        assert channel.statistics().frames_out == 0


@pytest.mark.parametrize("form", [list, iter, Quote.to_array])
def test_a_full_link_says_how_many_were_sent(bridge: BridgeDouble, form: Any) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        bridge.pause_reading()
        with pytest.raises(mycelium.ChannelFull) as caught:
            publisher.send_many(form(quotes(1, 20_000)), timeout=0.02)
        sent = caught.value.sent
        assert 0 < sent < 20_000
        assert channel.statistics().frames_out == sent
        with pytest.raises(mycelium.ChannelFull) as again:
            publisher.send_many(form(quotes(1, 1)), timeout=0)
        assert again.value.sent == 0
        bridge.resume_reading()
        thread, taken = in_background(bridge, sent + 10)
        assert publisher.send_many(form(quotes(sent + 1, 10)), timeout=30) == 10
        thread.join()
        assert numbers(taken) == list(range(1, sent + 11))


def test_a_ring_gets_as_much_as_fits_and_one_notification(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        bridge.consumer.set_parked(True)
        before = channel.statistics().wakeups_sent
        with pytest.raises(mycelium.ChannelFull) as caught:
            publisher.send_many(Quote.to_array(quotes(1, 100)), timeout=0)
        assert caught.value.sent == (4096 - 8) // RECORD
        assert channel.statistics().wakeups_sent == before + 1
        assert numbers(bridge.take(Quote, caught.value.sent)) == list(range(1, caught.value.sent + 1))


def test_a_generator_may_look_at_what_it_has_sent(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)

        def answers() -> Iterator[Quote]:
            for number in range(1, 6):
                yield quote(number)
                assert numbers(bridge.take(Quote, 1)) == [number], "visible before the next one is asked for"

        assert publisher.send_many(answers()) == 5


def test_what_is_no_message_is_refused_and_tells_how_far_it_came(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        with pytest.raises(TypeError, match="wrong message: type=Signal, expected=Quote"):
            publisher.send_many([quote(1), signal(2), quote(3)])
        assert numbers(bridge.take(Quote, 1)) == [1]
        stale = channel_message(bridge, channel)
        channel.acknowledge()
        with pytest.raises(mycelium.StaleMessageError) as caught:
            publisher.send_many([quote(1), stale])
        assert caught.value.sent == 0
        with pytest.raises(mycelium.StaleMessageError) as caught:
            publisher.send_many(iter([quote(2), stale]))
        assert caught.value.sent == 1
        publisher.send_many([quote(4)])
        assert numbers(bridge.take(Quote, 2)) == [2, 4]


def channel_message(bridge: BridgeDouble, channel: mycelium.Channel) -> Any:
    bridge.send(quote(77))
    return channel.recv(timeout=30)


def test_received_messages_and_batches_are_sent_on(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        for message in quotes(1, 40):
            bridge.send(message)
        with channel.recv_batch(limit=20, timeout=30) as batch:
            assert publisher.send_many(list(batch)) == 20
        with channel.recv_batch(limit=20, timeout=30) as batch:
            assert publisher.send_many(batch.columns(Quote)) == 20
        assert bridge.take(Quote, 40) == quotes(1, 40)


def test_dynamic_messages_are_sent_one_by_one(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        blobs = channel.publisher(Blob)
        assert blobs.send_many([b"one", b"three"]) == 2
        for expected in (b"one", b"three"):
            wait_until(bridge._have_data, "a blob")
            assert bridge._next()[1] == expected


def test_an_open_reservation_keeps_everything_else_out(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        with publisher.reserve(timeout=30) as reserved:
            for form in (list, iter, Quote.to_array):
                with pytest.raises(RuntimeError, match="a reservation is open"):
                    publisher.send_many(form(quotes(5, 3)))  # type: ignore[operator]
            reserved.symbol = "X"
        assert bridge.take(Quote, 1)[0].symbol == "X"
        channel.close()
        with pytest.raises(mycelium.ChannelClosed):
            publisher.send_many(quotes(1, 2))


def test_the_asyncio_publisher_waits_for_room_in_the_middle(bridge: BridgeDouble) -> None:
    async def program() -> int:
        channel = aio.AsyncChannel(contracts=messages, timeout=30)
        await channel._drive(channel._open_steps(bridge.peer_sock))
        async with channel:
            publisher = await channel.publisher(Quote)
            thread, taken = in_background(bridge, 1500)
            sent = await publisher.send_many(Quote.to_array(quotes(0, 500)), timeout=30)
            sent += await publisher.send_many(quotes(500, 500), timeout=30)
            sent += await publisher.send_many(iter(quotes(1000, 500)), timeout=30)
            while thread.is_alive():
                await asyncio.sleep(0.001)
            assert numbers(taken) == list(range(1500))
        return sent

    assert asyncio.run(program()) == 1500


# ---- arrays


def refused(contract: type[Message], array: Any) -> str:
    with pytest.raises(mycelium.MessageError) as caught:
        sendable(contract, array)
    return str(caught.value)


def test_an_array_of_other_columns_is_refused_by_name() -> None:
    plain = numpy.zeros(3, [("sequence", "<u4"), ("bid", "<f8"), ("price", "<f8")])
    assert refused(Quote, plain) == (
        "array of another layout: message=Quote missing: symbol, symbol.len, timestamp_ns, ask, volume; "
        "unknown: price; sequence: uint32, expected uint64; use Quote.dtype()"
    )
    assert "dtype=float64, no columns" in refused(Quote, numpy.zeros(3))
    assert refused(Quote, numpy.zeros((2, 2), Quote.dtype())).startswith("not an array of messages: shape=(2, 2)")


def test_an_array_with_illegal_values_is_refused_before_anything_is_sent(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        array = Quote.to_array(quotes(1, 5))
        array["symbol.len"][3] = 17
        with pytest.raises(mycelium.MessageError) as caught:
            channel.publisher(Quote).send_many(array)
        assert (caught.value.field, caught.value.value) == ("symbol", 17)
        assert str(caught.value) == (
            "message 'Quote', field 'symbol': element 3 out of range: value=17; give 0 to 16 elements"
        )
        signals = Signal.to_array([signal(1), signal(2)])
        signals["side"][1] = 9
        with pytest.raises(
            mycelium.MessageError, match=r"field 'side': element 1 out of range: value=9; give one of BUY"
        ):
            channel.publisher(Signal).send_many(signals)
        assert channel.statistics().frames_out == 0
    flags = numpy.zeros(2, golden.Numbers.dtype())
    flags["g"].view("u1")[1] = 2
    assert "field 'g': element 1 out of range: value=True; give 0 or 1" in refused(golden.Numbers, flags)


def test_columns_in_another_order_are_as_good(bridge: BridgeDouble) -> None:
    names = list(Quote.dtype().names or ())
    other = numpy.zeros(4, [(name, Quote.dtype()[name]) for name in reversed(names)])
    for name in names:
        other[name] = Quote.to_array(quotes(1, 4))[name]
    with bridge.connect() as channel:
        assert channel.publisher(Quote).send_many(other) == 4
        assert bridge.take(Quote, 4) == quotes(1, 4)


@pytest.mark.parametrize(
    "contract", [it for it in (*MESSAGES, *golden.MESSAGES) if hasattr(it, "FIELDS")], ids=lambda it: str(it.NAME)
)
@pytest.mark.parametrize("step", [1, 2])
def test_every_layout_is_copied_without_what_lies_between_its_fields(contract: type[Message], step: int) -> None:
    dtype = contract.dtype()
    array = numpy.empty(6, dtype)[::step]
    if dtype.itemsize:
        array = numpy.frombuffer(b"\xff" * (dtype.itemsize * 6), dtype).copy()[::step]
    clean = numpy.zeros(len(array), dtype)
    for name in dtype.names or ():
        array[name] = clean[name]
    for field in contract.FIELDS:  # zeros are legal but in enums, which may start at another number
        if "=" in field.type_text:
            value = int(field.type_text.split("=")[1].split()[0])
            array[field.name] = clean[field.name] = value
    stride = (contract.SIZE + 15) // 8 * 8
    buffer = bytearray(b"\xee" * (stride * len(array)))
    source = sendable(contract, array)
    source.write(0, 1, buffer, 8, stride)
    source.write(1, len(array) - 1, buffer, 8 + stride, stride)
    for number in range(len(array)):
        start = number * stride
        assert buffer[start : start + 8] == b"\xee" * 8, "headers are not touched"
        assert buffer[start + 8 : start + stride] == clean.tobytes()[
            number * dtype.itemsize : (number + 1) * dtype.itemsize
        ].ljust(stride - 8, b"\0")


# ---- exceptions between any two steps

_SENDING = ("_publisher.py", "_ring.py", "_burst.py", "_arrays.py")


def interrupted(after: int, send: Callable[[], object], *, real: bool = False) -> bool:
    """Runs something, raising KeyboardInterrupt before the given bytecode of the sending code; whether it got there.

    Args:
        after: Number of the bytecode.
        send: What to run.
        real: Counts only those before which CPython runs signal handlers: behind calls, and where a function begins.
    """
    left = after
    previous: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(_SENDING):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            before, previous[frame] = previous.get(frame, "RESUME"), name
            left -= not real or before.startswith(("CALL", "RESUME"))
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    tracer, is_traced = sys.gettrace(), _ring.is_traced
    _ring.is_traced = lambda: False  # the ways are to be those that are taken without a tracer
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 asks whether some frame wants them, only once
    sys.settrace(trace)
    try:
        send()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
        _ring.is_traced = is_traced
    return False


@pytest.mark.parametrize("form", ["send", "slow", "list", "array"])
@pytest.mark.parametrize("fenced", [False, True])
def test_an_interrupt_between_any_two_steps_leaves_a_ring_that_goes_on(
    make_bridge: MakeBridge, form: str, fenced: bool
) -> None:
    bridge = make_bridge(capacity=4096, fenced=fenced)
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        producer: Any = channel._link.producer
        wait_until(lambda: bridge.over_shm)
        after = hits = halves = 0
        while True:
            after += 1
            count = 1 if form in ("send", "slow") else 3
            batch = quotes(after * 10, count)
            if form == "slow":
                producer.limit = -1
            sends: dict[str, Callable[[], object]] = {
                "send": partial(publisher.send, batch[0]),
                "slow": partial(publisher.send, batch[0]),
                "list": partial(publisher.send_many, batch),
                "array": partial(publisher.send_many, Quote.to_array(batch)),
            }
            hit = interrupted(after, sends[form])
            hits += hit
            halves += producer.limit == COMMITTING
            publisher.send(quote(after * 10 + 9))
            taken: list[int] = []
            while not taken or taken[-1] != after * 10 + 9:
                taken += numbers(bridge.take(Quote, 1))
            # What is committed comes once and in order; a burst may have been cut where the ring ends.
            sequences = [message.sequence for message in batch]
            assert taken[:-1] == sequences[: len(taken) - 1]
            assert hit or len(taken) == count + 1
            assert bridge.consumer.words[bridge.consumer.word] == 0
            assert producer.words[producer.tail_word] == producer.position
            if not hit:
                break
        assert hits == after - 1 > 50
        if form in ("send", "slow"):
            assert halves > 5, "some came between a commit and its note"  # a burst settles that itself
        assert producer.position > 2 * 4096, "the wrap was among them"


def test_a_sleeper_is_woken_for_what_an_interrupted_send_has_committed(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    with bridge.connect() as channel:
        publisher = channel.publisher(Signal)
        wait_until(lambda: bridge.over_shm)
        after = committed = 0
        while True:
            after += 1
            bridge.consumer.set_parked(True)
            rung = channel.statistics().wakeups_sent
            hit = interrupted(after, lambda: publisher.send(Signal(worker="w", side=Side.BUY)), real=True)
            if bridge.consumer.has_data:
                committed += 1
                assert channel.statistics().wakeups_sent > rung
                bridge.take(Signal, 1)
            if not hit:
                break
        assert after > 1
        assert committed >= 1
