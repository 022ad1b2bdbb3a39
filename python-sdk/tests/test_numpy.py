"""Messages as structured arrays, and that NumPy is only needed where it is asked for."""

from __future__ import annotations

import subprocess
import sys

import numpy
import pytest

from mycelium.exceptions import MessageError
from mycelium.messages import MESSAGES, Quote, Side, Signal
from test_vectors import golden


def _quotes(count: int) -> list[Quote]:
    return [Quote(symbol="EUR/USD", sequence=n, bid=1.0 + n, ask=1.5 + n) for n in range(count)]


def test_the_dtype_lies_over_the_payload() -> None:
    for cls in (*MESSAGES, *golden.MESSAGES):
        if not hasattr(cls, "FIELDS"):
            continue
        dtype = cls.dtype()
        assert dtype.itemsize == cls.SIZE
        assert dtype is cls.dtype()
        for field in cls.FIELDS:
            assert dtype.fields is not None
            place = dtype.fields[field.name]
            counted = f"{field.name}.len" in dtype.fields
            assert place[1] == field.offset + (8 if counted else 0)
            assert place[0].itemsize <= field.size - (8 if counted else 0)


def test_columns_are_what_one_calculates_with() -> None:
    array = Quote.to_array(_quotes(3))
    assert (array["ask"] - array["bid"]).tolist() == [0.5, 0.5, 0.5]
    assert array["symbol"].tolist() == [b"EUR/USD"] * 3
    assert array["symbol.len"].tolist() == [7, 7, 7]
    assert array["sequence"].dtype == numpy.uint64
    sides = Signal.to_array([Signal(worker="w", side=Side.SELL), Signal(worker="w", side=Side.BUY)])
    assert sides["side"].tolist() == [2, 1]
    assert numpy.frombuffer(_quotes(2)[1].to_bytes(), Quote.dtype())["bid"] == 2.0


def test_every_kind_of_field_has_a_column() -> None:
    vecs = golden.Vecs.to_array(
        [golden.Vecs(odd_rows=[b"abc", b"d\0\0"], prices=[1.5, 2.5], plain=b"xy", signed=[-1])]
    )[0]
    assert vecs["prices"].tolist() == [1.5, 2.5, 0.0]
    assert vecs["prices.len"] == 2
    assert [bytes(row) for row in vecs["odd_rows"]] == [b"abc", b"d\0\0", b"\0\0\0"]
    assert bytes(vecs["plain"][: vecs["plain.len"]]) == b"xy"
    assert vecs["signed"].tolist() == [-1, 0, 0, 0, 0]
    wide = golden.Wide.to_array([golden.Wide(b=1 << 100, c=-1, e=b"\1" * 20, f=[b"abc", b"def"])])[0]
    assert int.from_bytes(wide["b"].tobytes(), "little") == 1 << 100
    assert int.from_bytes(wide["c"].tobytes(), "little", signed=True) == -1
    assert wide["e"].tobytes() == b"\1" * 20
    assert [row.tobytes() for row in wide["f"]] == [b"abc", b"def"]
    numbers = golden.Numbers.to_array([golden.Numbers(c=-3, g=True, f=0.5)])[0]
    assert (numbers["c"], bool(numbers["g"]), numbers["f"]) == (-3, True, 0.5)
    assert golden.Rules.dtype()["state"] == numpy.int16


def test_arrays_become_messages_again_and_may_be_changed_before() -> None:
    array = Quote.to_array(_quotes(4))
    array["bid"] *= 2
    changed = Quote.from_array(array[array["sequence"] > 1])
    assert [quote.bid for quote in changed] == [6.0, 8.0]
    assert Quote.from_array(Quote.to_array([])) == []
    spread = numpy.frombuffer(b"\xff" * (Quote.SIZE * 8), Quote.dtype()).copy()
    for name in Quote.dtype().names or ():
        spread[name][::2] = array[name]
    assert [quote.to_bytes() for quote in Quote.from_array(spread[::2])] == [
        quote.to_bytes() for quote in Quote.from_array(array)
    ], "what lies between the columns is not taken over"
    array["symbol.len"][0] = 99
    with pytest.raises(MessageError, match="field 'symbol': length out of range: length=99, max=16"):
        Quote.from_array(array)
    with pytest.raises(MessageError, match=r"array of another layout: dtype=float64, expected=Quote\.dtype\(\)"):
        Quote.from_array(numpy.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="wrong message: type=Signal, expected=Quote"):
        Quote.to_array([Signal(worker="w", side=Side.BUY)])  # type: ignore[list-item]


def test_numpy_is_imported_by_the_first_dtype_and_its_absence_is_explained() -> None:
    program = """
import sys
import mycelium
from mycelium.messages import Quote
assert "numpy" not in sys.modules
sys.modules["numpy"] = None
try:
    Quote.dtype()
except ImportError as failed:
    print(failed)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = "NumPy is not installed, and arrays of messages need it; pip install 'mycelium[numpy]'"
    assert done.stdout.strip() == expected
