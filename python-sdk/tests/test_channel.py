"""A channel over both transports, against the bridge's double."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote, signal
from mycelium import _control as control
from mycelium._frame import header_word
from mycelium.messages import Quote, ReplayMark, Side, Signal

RECORD = 72
MakeBridge = Callable[..., BridgeDouble]


def test_messages_arrive_in_order_with_their_values(bridge: BridgeDouble) -> None:
    with bridge.connect(name="alpha") as channel:
        assert channel.name == "alpha"
        assert channel.epoch == 1
        channel.subscribe(Quote, ReplayMark)
        sender = threading.Thread(target=lambda: [bridge.send(quote(n)) for n in range(1, 2001)])
        sender.start()
        for expected in range(1, 2001):
            message = channel.recv(timeout=30)
            assert (message.sequence, message.volume, message.symbol) == (expected, float(expected), "EUR/USD")
        sender.join()
        assert channel.statistics().frames_in == 2000
        assert channel.statistics().frames_skipped == 0
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0)


def test_the_transport_is_the_one_offered(bridge: BridgeDouble, transport: str) -> None:
    with bridge.connect() as channel:
        assert channel.transport == transport
        assert channel.fallback_code == ("NONE" if transport == "shm" else "REQUESTED")
        assert bool(channel.fallback_reason) == (transport == "socket")


def test_iteration_ends_after_a_shutdown_once_everything_is_read(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for number in range(1, 31):
            bridge.send(quote(number))
        bridge.send_control(control.Shutdown(deadline_ms=5000, reason="maintenance"))
        assert [message.sequence for message in channel] == list(range(1, 31))
        with pytest.raises(mycelium.ChannelClosed) as caught:
            channel.recv(timeout=5)
        assert caught.value.reason == "maintenance"
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert control.Goodbye.TOPIC_ID in bridge.names()
    wait_until(lambda: bridge.acknowledged == 30 * RECORD, "acknowledgement")


def test_a_message_is_stale_after_the_next_step_and_after_close(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in (1, 2, 3):
        bridge.send(quote(number))
    first = channel.recv(timeout=30)
    kept = first.copy()
    second = channel.recv(timeout=30)
    with pytest.raises(mycelium.StaleMessageError):
        _ = first.bid
    assert kept.sequence == 1
    assert second.sequence == 2
    channel.close()
    with pytest.raises(mycelium.StaleMessageError):
        _ = second.bid
    assert kept.sequence == 1


def test_a_message_in_hand_is_not_acknowledged(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in (1, 2, 3):
        bridge.send(quote(number))
    assert channel.recv(timeout=30).sequence == 1
    assert channel.recv(timeout=30).sequence == 2
    channel.close()
    wait_until(lambda: bridge.hung_up.is_set(), "hang-up")
    assert bridge.acknowledged == RECORD


def test_leaving_the_block_acknowledges_and_an_exception_does_not(make_bridge: MakeBridge, transport: str) -> None:
    for fails, expected in ((False, RECORD), (True, 0)):
        bridge = make_bridge(transport=transport)

        def visit(bridge: BridgeDouble = bridge, fails: bool = fails) -> None:
            with bridge.connect() as channel:
                bridge.send(quote(1))
                channel.recv(timeout=30)
                if fails:
                    raise KeyError

        if fails:
            with pytest.raises(KeyError):
                visit()
        else:
            visit()
        wait_until(bridge.hung_up.is_set, "hang-up")
        assert bridge.acknowledged == expected


def test_an_explicit_acknowledgement_takes_effect_at_once(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        message = channel.recv(timeout=30)
        channel.acknowledge()
        wait_until(lambda: bridge.acknowledged == RECORD, "acknowledgement")
        with pytest.raises(mycelium.StaleMessageError):
            _ = message.bid


def test_receiving_inside_a_loop_keeps_order_and_staleness(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for number in range(1, 7):
            bridge.send(quote(number))
        seen = []
        for message in channel:
            seen.append(message.sequence)
            inner = channel.recv(timeout=30)
            seen.append(inner.sequence)
            with pytest.raises(mycelium.StaleMessageError):
                _ = message.sequence
            if len(seen) == 6:
                break
        assert seen == [1, 2, 3, 4, 5, 6]


def test_closing_inside_a_loop_ends_it(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in (1, 2, 3):
        bridge.send(quote(number))
    seen = []
    for message in channel:
        seen.append(message.sequence)
        channel.close()
    assert seen == [1]
    channel.close()
    assert channel.closed
    assert channel.statistics().frames_in >= 0
    with pytest.raises(mycelium.ChannelClosed):
        channel.recv(timeout=0)
    with pytest.raises(mycelium.ChannelClosed):
        channel.subscribe(Quote)


def test_a_hang_up_is_peer_lost_after_the_rest_is_read(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in (1, 2):
        bridge.send(quote(number))
    bridge.hang_up()
    assert [channel.recv(timeout=30).sequence for _ in range(2)] == [1, 2]
    with pytest.raises(mycelium.PeerLost):
        channel.recv(timeout=30)
    with pytest.raises(mycelium.PeerLost):
        next(iter(channel))
    channel.close()


def test_a_sleeping_receiver_is_woken_by_data_and_by_a_hang_up(make_bridge: MakeBridge, transport: str) -> None:
    for fenced in (False, True):
        bridge = make_bridge(transport=transport, fenced=fenced, spin_us=0)
        channel = bridge.connect()
        assert channel.fencing == ("fenced" if fenced else "asymmetric")

        def late(bridge: BridgeDouble = bridge, channel: mycelium.Channel = channel) -> None:
            wait_until(lambda: channel.statistics().parks >= 1, "the first sleep")
            bridge.send(quote(1))
            wait_until(lambda: channel.statistics().parks >= 2, "the second sleep")
            bridge.hang_up()

        thread = threading.Thread(target=late)
        thread.start()
        assert channel.recv().sequence == 1
        with pytest.raises(mycelium.PeerLost):
            channel.recv()
        thread.join()
        channel.close()


def test_published_messages_arrive_and_are_counted(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        signals = channel.publisher(Signal)
        for number in range(1, 21):
            signals.send(signal(number), timeout=30)
        with signals.reserve(timeout=30) as reserved:
            assert reserved.price == 0.0
            reserved.worker = "w"
            reserved.quote_sequence = 21
            reserved.side = Side.SELL
        with pytest.raises(mycelium.StaleMessageError):
            reserved.quote_sequence = 22
        taken = bridge.take(Signal, 21)
        assert [message.quote_sequence for message in taken] == list(range(1, 22))
        assert taken[0] == signal(1)
        assert taken[20].side is Side.SELL
        assert channel.statistics().frames_out == 21
        assert channel.statistics().bytes_out == 21 * (8 + Signal.SIZE)


def test_a_reservation_that_fails_sends_nothing(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        signals = channel.publisher(Signal)

        def fail() -> None:
            with signals.reserve() as reserved:
                reserved.quote_sequence = 5
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        with signals.reserve() as reserved:
            reserved.worker, reserved.side = "w", Side.HOLD
            with pytest.raises(RuntimeError):
                signals.send(signal(1))
        signals.send(signal(2))
        assert [message.quote_sequence for message in bridge.take(Signal, 2)] == [0, 2]


def test_a_received_message_can_be_published_and_a_stale_one_cannot(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        quotes = channel.publisher(Quote)
        bridge.send(quote(1))
        bridge.send(quote(2))
        first = channel.recv(timeout=30)
        quotes.send(first)
        channel.recv(timeout=30)
        with pytest.raises(mycelium.StaleMessageError):
            quotes.send(first)
        with pytest.raises(TypeError):
            quotes.send(signal(1))
        assert bridge.take(Quote, 1)[0] == quote(1)


def test_a_full_link_raises_after_the_timeout_and_goes_on_later(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        signals = channel.publisher(Signal)
        bridge.pause_reading()
        sent = 0
        with pytest.raises(mycelium.ChannelFull) as caught:
            while True:
                signals.send(signal(sent + 1), timeout=0)
                sent += 1
        assert caught.value.needed == 8 + Signal.SIZE
        with pytest.raises(mycelium.ChannelFull):
            signals.send(signal(sent + 1), timeout=0.01)
        bridge.resume_reading()
        taker = threading.Thread(target=lambda: taken.extend(bridge.take(Signal, sent + 1)))
        taken: list[Signal] = []
        taker.start()
        signals.send(signal(sent + 1), timeout=30)
        taker.join()
        assert [message.quote_sequence for message in taken] == list(range(1, sent + 2))


def test_waiting_for_room_notices_a_hang_up(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    signals = channel.publisher(Signal)
    bridge.pause_reading()

    def fill() -> None:
        while True:
            signals.send(signal(1))

    def end() -> None:
        wait_until(lambda: channel.statistics().parks >= 1, "a full link")
        bridge.hang_up()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(mycelium.PeerLost):
        fill()
    thread.join()
    channel.close()


def test_refused_topics_name_the_reason(make_bridge: MakeBridge, transport: str) -> None:
    replies = {(control.Subscribe.TOPIC_ID, Quote.TOPIC_ID): 1, (control.Advertise.TOPIC_ID, Signal.TOPIC_ID): 2}
    bridge = make_bridge(transport=transport, replies=replies)
    with bridge.connect() as channel:
        with pytest.raises(mycelium.UnknownTopic) as unknown:
            channel.subscribe(Quote)
        assert unknown.value.topic_id == Quote.TOPIC_ID
        with pytest.raises(mycelium.ContractMismatch) as mismatch:
            channel.publisher(Signal)
        assert mismatch.value.actual == Signal.LAYOUT_DIGEST
        assert "expected digest" in str(mismatch.value)
        channel.subscribe(ReplayMark)
        channel.unsubscribe(ReplayMark)


def test_a_reply_behind_data_frames_loses_none_of_them(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport, capacity=1 << 20)
    bridge.before_reply = lambda: [bridge.send(quote(number)) for number in range(1, 5001)] and None
    with bridge.connect() as channel:
        bridge.send(quote(0))
        held = channel.recv(timeout=30)
        channel.subscribe(Quote)
        assert held.sequence == 0
        assert [channel.recv(timeout=30).sequence for _ in range(5000)] == list(range(1, 5001))
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.acknowledged == 5001 * RECORD


def test_a_request_that_is_not_answered_times_out(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        channel._timeout = 0.05  # of requests only; the handshake may take longer
        bridge.silent = True
        with pytest.raises(TimeoutError):
            channel.subscribe(Quote)


def test_frames_of_no_known_message_are_counted_and_warned_about_once(
    bridge: BridgeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with bridge.connect(contracts=[Quote]) as channel:
        for number in range(3):
            bridge.send(signal(number))
        bridge.send_frame(header_word(11, 40_000), b"hello world")
        bridge.send(quote(9))
        assert channel.recv(timeout=30).sequence == 9
        assert channel.statistics().frames_skipped == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "topic_id=1002" in caplog.text


def test_flags_of_a_later_version_are_ignored(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send_frame(header_word(Quote.SIZE, Quote.TOPIC_ID, 0x4000), quote(5).to_bytes())
        bridge.send(quote(6))
        assert [channel.recv(timeout=30).sequence for _ in range(2)] == [5, 6]
        assert channel.statistics().frames_skipped == 0


def test_a_sender_that_never_waits_notices_a_hang_up(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    signals = channel.publisher(Signal)
    bridge.hang_up()

    def send_on() -> None:
        while True:
            try:
                signals.send(signal(1), timeout=0)
            except mycelium.ChannelFull:
                continue

    with pytest.raises(mycelium.PeerLost):
        send_on()
    channel.close()


def test_a_shutdown_ends_the_wait_for_room_at_its_deadline(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    signals = channel.publisher(Signal)
    bridge.pause_reading()
    bridge.send_control(control.Shutdown(deadline_ms=1, reason="now"))

    def send_on() -> None:
        while True:
            _look_for_control(channel)
            signals.send(signal(1))

    with pytest.raises(mycelium.ChannelClosed) as caught:
        send_on()
    assert caught.value.reason == "now"
    channel.close(reason="x" * 500)


def _look_for_control(channel: mycelium.Channel) -> None:
    with pytest.raises((TimeoutError, mycelium.ChannelClosed)):
        channel.recv(timeout=0)


def test_a_dropped_frame_is_counted_and_warned_about(bridge: BridgeDouble, caplog: pytest.LogCaptureFixture) -> None:
    with bridge.connect() as channel:
        code = control.TopicReplyCode.WRONG_SIZE
        bridge.send_control(control.TopicReply(request=0, topic_id=1002, code=code, reason="size=1 expected=72"))
        wait_until(lambda: _look(channel) or channel.statistics().frames_rejected == 1, "the notice")
    assert "size=1 expected=72" in caplog.text


def test_what_the_bridge_dropped_on_its_way_here_is_counted(
    bridge: BridgeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with bridge.connect() as channel:
        cause = control.Cause.DROP_OLDEST
        bridge.send_control(control.Gap(topic_id=1001, cause=cause, missed=3, total=10))
        bridge.send_control(control.Gap(topic_id=1002, cause=cause, missed=1, total=1))
        bridge.send_control(control.Gap(topic_id=1001, cause=cause, missed=2, total=12))
        wait_until(lambda: _look(channel) or channel.statistics().frames_missed == 6, "the notices")
    assert channel.statistics().frames_missed == 6
    told = [record for record in caplog.records if "dropped frames for this link" in record.message]
    assert len(told) == 2, "once per topic"
    assert "topic_id=1001 missed=3 total=10" in told[0].message


def _look(channel: mycelium.Channel) -> None:
    with pytest.raises(TimeoutError):
        channel.recv(timeout=0)


def test_a_link_error_names_the_broken_rule(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    bridge.send_control(
        control.LinkError(code=control.LinkErrorCode.CORRUPT_RECORD, message="payload_len=9 legal 0..8")
    )
    with pytest.raises(mycelium.LinkFailed) as caught:
        channel.recv(timeout=30)
    assert caught.value.code == control.LinkErrorCode.CORRUPT_RECORD
    assert "payload_len=9" in str(caught.value)
    channel.close()


def test_arm_tells_whether_to_wait_on_the_descriptor(bridge: BridgeDouble) -> None:
    import select

    with bridge.connect() as channel:
        assert channel.arm()
        bridge.send(quote(1))
        assert select.select([channel], [], [], 30)[0] == [channel]
        channel.disarm()
        assert channel.recv(timeout=30).sequence == 1
    assert channel.fileno() == -1


def test_acknowledgements_come_while_the_stream_goes_on(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport, ack_window=10 * RECORD)
    with bridge.connect() as channel:
        for number in range(1, 101):
            bridge.send(quote(number))
        for _ in range(100):
            channel.recv(timeout=30)
        wait_until(lambda: bridge.acknowledged >= 60 * RECORD, "acknowledgements")
        assert bridge.acknowledged <= 99 * RECORD
        _look(channel)
        wait_until(lambda: _look(channel) or bridge.acknowledged == 100 * RECORD, "the last acknowledgement")


def test_a_peer_rings_once_when_it_attaches_because_its_predecessor_may_have_owed_that(
    make_bridge: MakeBridge,
) -> None:
    bridge = make_bridge(transport="shm")
    with bridge.connect() as channel:
        wait_until(bridge.own_bell.drain, "the doorbell")
        assert channel.statistics().wakeups_sent == 0


def test_sending_after_close_says_that_the_channel_is_closed(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    signals = channel.publisher(Signal)
    signals.send(signal(1))
    channel.close()
    with pytest.raises(mycelium.ChannelClosed):
        signals.send(signal(2))
    with pytest.raises(mycelium.ChannelClosed), signals.reserve():
        pass
