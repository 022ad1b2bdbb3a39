"""What generated messages do beyond their bytes: checked setters, staleness, copies, readable errors."""

from __future__ import annotations

import copy
import json
import math
import pickle
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from mycelium import _control as control
from mycelium import messages
from mycelium._message import STALE, Message, Views, make_room
from mycelium.exceptions import MessageError, StaleMessageError
from mycelium.messages import Quote, Side, Signal


def _quote() -> Quote:
    return Quote(symbol="EUR/USD", sequence=7, timestamp_ns=11, bid=1.25, ask=1.5, volume=3.0)


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("symbol", "", "text of 1 to 16 bytes in UTF-8, not 0"),
        ("symbol", "é" * 9, "text of 1 to 16 bytes in UTF-8, not 18"),
        ("symbol", b"EUR/USD", "text of 1 to 16 bytes in UTF-8"),
        ("symbol", "\ud800", "text of 1 to 16 bytes in UTF-8"),
        ("sequence", -1, "an integer from 0 to 18446744073709551615"),
        ("sequence", 1 << 64, "an integer from 0 to 18446744073709551615"),
        ("sequence", 1.5, "an integer from 0 to 18446744073709551615"),
        ("sequence", None, "an integer from 0 to 18446744073709551615"),
        ("bid", "1.25", "a number"),
    ],
)
def test_a_refused_value_is_named_with_its_field_and_the_legal_range(field: str, value: Any, legal: str) -> None:
    quote = _quote()
    before = quote.to_bytes()
    with pytest.raises(MessageError) as caught:
        setattr(quote, field, value)
    assert str(caught.value) == f"message 'Quote', field '{field}': value out of range: value={value!r}; give {legal}"
    assert (caught.value.field, caught.value.value) == (field, value)
    assert quote.to_bytes() == before


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "1"])
def test_bounds_of_the_contract_hold_for_setters_and_constructors(strength: Any) -> None:
    with pytest.raises(MessageError, match="give a number from 0 to 1"):
        Signal(worker="w", side=Side.BUY, strength=strength)


def test_enums_take_and_give_members_and_refuse_other_integers() -> None:
    signal = Signal(worker="w", side=Side.SELL)
    assert signal.side is Side.SELL
    with pytest.raises(MessageError, match="value=9; give one of BUY=1, SELL=2, HOLD=3"):
        signal.side = 9  # type: ignore[assignment]
    broken = bytearray(signal.to_bytes())
    broken[next(field.offset for field in Signal.FIELDS if field.name == "side")] = 77
    with pytest.raises(MessageError, match="field 'side': value out of range: value=77, legal one of BUY=1"):
        Signal.from_bytes(broken)


def test_a_text_that_is_too_long_or_not_utf8_in_memory_is_an_error_and_not_other_bytes() -> None:
    payload = bytearray(_quote().to_bytes())
    payload[0] = 17
    with pytest.raises(MessageError, match="field 'symbol': length out of range: length=17, max=16"):
        _ = Quote._at(Views(payload), 0).symbol
    payload[0], payload[8] = 7, 0xFF
    with pytest.raises(MessageError, match="text is not UTF-8: valid_up_to=0"):
        _ = Quote._at(Views(payload), 0).symbol


def test_from_bytes_names_both_lengths() -> None:
    with pytest.raises(MessageError, match="wrong payload length for Quote: len=3, expected=64"):
        Quote.from_bytes(b"abc")


def test_a_stale_message_raises_on_every_access_and_its_copy_lives_on() -> None:
    quote = _quote()
    kept = quote.copy()
    quote._views = STALE
    for access in (lambda: quote.bid, lambda: quote.symbol, quote.to_bytes, quote.copy, quote.to_dict):
        with pytest.raises(StaleMessageError, match=r"use \.copy\(\) to keep a message"):
            access()
    with pytest.raises(StaleMessageError):
        quote.bid = 2.0
    assert repr(quote) == "<Quote: no longer valid>"
    assert kept.bid == 1.25


def test_released_views_make_their_messages_stale_and_free_the_buffer() -> None:
    buffer = bytearray(_quote().to_bytes())
    views = Views(buffer)
    quote = Quote._at(views, 0)
    assert (quote.bid, quote.symbol) == (1.25, "EUR/USD")
    views.release()
    views.release()
    buffer.clear()  # raises BufferError while a window is left
    with pytest.raises(StaleMessageError):
        _ = quote.bid
    with pytest.raises(StaleMessageError):
        _ = quote.sequence
    assert repr(quote) == "<Quote: no longer valid>"


def test_a_received_message_cannot_be_changed_but_its_copy_can() -> None:
    received = Quote._at(Views(_quote().to_bytes(), readonly=True), 0)
    for name, value in (("bid", 1.0), ("symbol", "X"), ("sequence", 1)):
        with pytest.raises(MessageError, match="received messages cannot be changed"):
            setattr(received, name, value)
    changed = received.copy()
    changed.bid = 9.0
    assert (received.bid, changed.bid) == (1.25, 9.0)


def test_equality_copies_pickles_and_text() -> None:
    quote = _quote()
    assert quote == quote.copy() == copy.copy(quote) == copy.deepcopy(quote) == pickle.loads(pickle.dumps(quote))
    assert quote != Quote(symbol="EUR/USD") and quote != "EUR/USD"
    assert repr(quote) == "Quote(symbol='EUR/USD', sequence=7, timestamp_ns=11, bid=1.25, ask=1.5, volume=3.0)"
    assert "side=BUY" in repr(Signal(worker="w", side=Side.BUY))
    with pytest.raises(TypeError, match="unhashable"):
        hash(quote)


def test_values_that_fit_are_packed_at_once_and_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Message, data: bytes | None = None) -> None:
        raise AssertionError("the setters were used")

    expected = _quote()
    expected.bid = 2.5
    monkeypatch.setattr(Message, "_allocate", slow)
    packed = Quote(symbol="EUR/USD", sequence=7, timestamp_ns=11, bid=2.5, ask=1.5, volume=3.0)
    assert packed == expected
    assert packed.to_bytes() == expected.to_bytes()
    monkeypatch.undo()
    with pytest.raises(MessageError, match="field 'timestamp_ns': value out of range: value=-1"):
        Quote(symbol="EUR/USD", timestamp_ns=-1)


def test_views_need_whole_words() -> None:
    with pytest.raises(MessageError, match="len=12"):
        Views(bytearray(12))
    with pytest.raises(AttributeError, match="u24"):
        _ = Views(bytearray(8)).u24  # type: ignore[attr-defined]


def test_every_message_builds_from_its_own_values() -> None:
    for cls in control.MESSAGES:
        if issubclass(cls, Message):
            empty = cls._owned()
            assert cls._owned(empty.to_bytes()).to_bytes() == bytes(cls.SIZE)


def test_several_fields_are_set_at_once_and_checked_like_one() -> None:
    quote = _quote()
    quote.set(bid=2.0, ask=2.5)
    assert quote == Quote(symbol="EUR/USD", sequence=7, timestamp_ns=11, bid=2.0, ask=2.5, volume=3.0)
    with pytest.raises(MessageError, match="field 'sequence': value out of range: value=-1"):
        quote.set(sequence=-1)
    with pytest.raises(TypeError, match="price"):
        quote.set(price=1.0)  # type: ignore[call-arg]
    before = quote.to_bytes()
    quote.set()
    assert quote.to_bytes() == before


def test_setting_every_field_writes_the_same_bytes_as_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _quote()
    buffer = bytearray(b"\xff" * (Quote.SIZE + 16))
    message = Quote._at(Views(buffer), 1)
    monkeypatch.setattr(Quote, "bid", None)  # the quick way uses no property
    message.set(symbol="EUR/USD", sequence=7, timestamp_ns=11, bid=1.25, ask=1.5, volume=3.0)
    assert bytes(buffer) == b"\xff" * 8 + expected.to_bytes() + b"\xff" * 8
    monkeypatch.undo()
    with pytest.raises(MessageError, match="field 'ask': value out of range: value='x'"):
        message.set(symbol="EUR/USD", sequence=7, timestamp_ns=11, bid=1.25, ask="x", volume=3.0)  # type: ignore[arg-type]
    received = Quote._at(Views(bytes(buffer), readonly=True), 1)
    with pytest.raises(MessageError, match="received messages cannot be changed"):
        received.set(symbol="X", sequence=1, timestamp_ns=1, bid=1.0, ask=1.0, volume=1.0)


def test_a_message_becomes_a_dictionary_and_comes_back() -> None:
    signal = Signal(worker="w", side=Side.SELL, price=1.5)
    values = signal.to_dict()
    assert values["side"] is Side.SELL
    assert Signal.from_dict(values) == signal
    plain = json.loads(json.dumps(signal.to_dict(json=True)))
    assert plain["side"] == "SELL"
    assert Signal.from_dict(plain) == signal
    assert Signal.from_dict({"worker": "w", "side": 2, "price": 1.5}) == signal


def test_a_dictionary_with_wrong_names_or_values_says_which() -> None:
    with pytest.raises(MessageError, match="unknown fields: sied; legal: worker, quote_sequence") as caught:
        Signal.from_dict({"worker": "w", "side": "BUY", "sied": 1})
    assert caught.value.field == "sied"
    with pytest.raises(MessageError, match="missing fields: worker, side; legal: worker, quote_sequence"):
        Signal.from_dict({})
    with pytest.raises(MessageError, match="field 'side': value out of range: value='LONG'; give one of BUY=1, SELL=2"):
        Signal.from_dict({"worker": "w", "side": "LONG"})
    with pytest.raises(MessageError, match="field 'worker'"):
        Signal.from_dict({"worker": 5, "side": "BUY"})
    with pytest.raises(MessageError, match="not a mapping: type=list; give a dict"):
        Signal.from_dict([("worker", "w")])  # type: ignore[arg-type]


def test_equality_is_about_bytes_or_values() -> None:
    nan = Quote(symbol="X", bid=float("nan"))
    assert nan == nan.copy()
    assert nan != Quote(symbol="X", bid=1.0)
    assert Quote(symbol="X", bid=0.0) == Quote(symbol="X", bid=-0.0)
    dirty = bytearray(_quote().to_bytes())
    dirty[3] = 0xFF  # between the length and the text
    assert Quote._at(Views(dirty), 0) == _quote()
    broken = bytearray(_quote().to_bytes())
    broken[0] = 255
    assert Quote._at(Views(broken), 0) != _quote()
    assert Quote._at(Views(broken), 0) == Quote._at(Views(broken), 0)
    stale = _quote()
    stale._views = STALE
    with pytest.raises(StaleMessageError):
        _ = stale == _quote()


def test_a_message_that_is_not_logged_shows_no_value_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signal, "LOG_PAYLOAD", False)
    signal = Signal(worker="secret", side=Side.BUY)
    assert repr(signal) == f"<Signal: payload not logged, topic_id={Signal.TOPIC_ID} size={Signal.SIZE}>"
    broken = bytearray(signal.to_bytes())
    broken[next(field.offset for field in Signal.FIELDS if field.name == "side")] = 77
    attempts: list[Callable[[], object]] = [
        lambda: Signal(worker="secret" * 10, side=Side.BUY),
        lambda: Signal(worker="secret", side=77),  # type: ignore[arg-type]
        lambda: signal.set(strength=77.0),
        lambda: Signal.from_dict({"worker": "w", "side": "secret"}),
        lambda: Signal.from_bytes(broken),
    ]
    for attempt in attempts:
        with pytest.raises(MessageError, match="message 'Signal', field '") as caught:
            attempt()
        text = "".join(traceback.format_exception_only(caught.value))
        assert "value not logged" in text and "secret" not in text and "77" not in text
        assert caught.value.value is None


def test_the_text_of_a_message_is_bounded() -> None:
    class Many(Message):
        NAME = "Many"
        LOG_PAYLOAD = True
        SIZE = 8
        FIELDS = tuple(messages.Quote.FIELDS[0]._replace(name=f"field_{index}") for index in range(200))

        def __getattr__(self, name: str) -> bytes:
            return b"x" * 5000

    text = repr(Many._owned())
    assert len(text) < 1100
    assert text.endswith("more fields))")
    assert "(length 5000)" in text


def test_a_pickle_of_another_layout_is_refused() -> None:
    restore, (cls, data, digest) = _quote().__reduce__()
    assert restore(cls, data, digest) == _quote()
    with pytest.raises(MessageError, match=r"pickled with another layout: layout_digest=000000000000\.\.\., expected="):
        restore(cls, data, bytes(32))
    with pytest.raises(MessageError, match="wrong payload length for Quote: len=3, expected=64"):
        restore(cls, b"abc", digest)


def test_a_received_view_pickles_as_a_copy() -> None:
    views = Views(_quote().to_bytes(), readonly=True)
    copied = pickle.loads(pickle.dumps(Quote._at(views, 0)))
    views.release()
    copied.bid = 3.0
    assert copied.bid == 3.0


def test_an_integer_that_no_float_can_hold_is_refused_like_any_other_value() -> None:
    with pytest.raises(MessageError, match="field 'bid': value out of range"):
        _quote().bid = 10**400
    with pytest.raises(MessageError, match="field 'bid': value out of range"):
        Quote(symbol="X", bid=10**400)


@pytest.mark.parametrize(
    ("text", "value"), [("inf", math.inf), ("-inf", -math.inf), ("NaN", math.nan), ("NaN:7ff8000000000001", math.nan)]
)
def test_json_text_stands_for_a_float_that_json_cannot_write(text: str, value: float) -> None:
    quote = Quote.from_dict(
        {"symbol": "EUR/USD", "sequence": 1, "timestamp_ns": 2, "bid": text, "ask": 1.0, "volume": 0.0}
    )
    assert quote.bid == value or (math.isnan(value) and math.isnan(quote.bid))
    written = quote.to_dict(json=True)["bid"]
    assert written == text.partition(":")[0]


@pytest.mark.parametrize("text", ["Infinity", "nan", "1.5", "NaN:7ff0000000000000", "NaN:12", "NaN:zzzzzzzzzzzzzzzz"])
def test_other_text_is_no_float(text: str) -> None:
    with pytest.raises(MessageError, match="bid"):
        Quote.from_dict({"symbol": "EUR/USD", "bid": text})


def test_messages_that_share_a_buffer_share_no_bytes() -> None:
    quotes = [Quote(symbol=f"S{number}", sequence=number, bid=number * 0.5) for number in range(100)]
    for number, quote in enumerate(quotes):
        quote.symbol, quote.ask = f"T{number}", number * 0.25
    expected = [(f"T{number}", number, number * 0.5, number * 0.25) for number in range(100)]
    assert [(it.symbol, it.sequence, it.bid, it.ask) for it in quotes] == expected

    kept = quotes[37]
    del quotes, quote
    others = [Quote(symbol="X", sequence=2**64 - 1, bid=9.0) for _ in range(100)]
    assert (kept.symbol, kept.sequence, kept.bid, kept.ask) == expected[37]
    kept.set(symbol="Y", sequence=0, timestamp_ns=0, bid=0.0, ask=0.0, volume=0.0)
    assert {(it.symbol, it.sequence, it.timestamp_ns, it.bid) for it in others} == {("X", 2**64 - 1, 0, 9.0)}


def test_messages_of_several_threads_share_no_bytes() -> None:
    made: list[list[Quote]] = [[] for _ in range(4)]
    start = threading.Barrier(len(made))

    def make(thread: int) -> None:
        start.wait()
        made[thread].extend(Quote(symbol="S", sequence=thread << 32 | number) for number in range(5000))

    threads = [threading.Thread(target=make, args=[thread]) for thread in range(len(made))]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    for thread, quotes in enumerate(made):
        assert [quote.sequence for quote in quotes] == [thread << 32 | number for number in range(5000)]


def test_a_message_larger_than_a_shared_buffer_has_one_for_itself() -> None:
    offers = [control.Hello(name=name) for name in ("first", "second")]
    assert [it.name for it in offers] == ["first", "second"]
    assert [raw.nbytes for _, _, raw, _ in make_room([], 4096)] == [8 + 4096]
