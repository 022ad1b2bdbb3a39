"""Any valid values survive the way through the bytes; anything else is a MessageError that names its field."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycelium import messages
from mycelium._message import Field, Message, Views
from mycelium.exceptions import MessageError
from test_vectors import golden

CLASSES: list[type[Message]] = [
    cls for module in (messages, golden) for cls in module.MESSAGES if issubclass(cls, Message) and cls.FIELDS
]

RANGES = {
    **{f"u{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64, 128)},
    **{f"i{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64, 128)},
}


class Rules(NamedTuple):
    """What the documentation of a property says about legal values, beyond the type."""

    bounds: tuple[str | None, str | None]
    shortest: int
    not_zero: bool
    without_prefix: bool


_LEGAL = re.compile(
    r"(?:(?P<range>An integer|A number) from (?P<low>\S+) to (?P<high>\S+)"
    r"|A number of at least (?P<least>\S+)|A number of at most (?P<most>\S+)|A number"
    r"|True or false|One of (?P<names>\S+=-?\d+(?:, \S+=-?\d+)*)"
    r"|(?:\d+ times )?\d+ bytes"
    r"|(?:Text of |)(?:(?P<shortest>\d+) to|[Aa]t most) \d+ (?:bytes in UTF-8|\w+ values|values of \d+ bytes))"
    r"(?P<not_zero>, not zero)?(?P<prefix>, without the prefix 0x)?\.$"
)


def _rules(cls: type[Message], field: Field) -> Rules:
    """The last sentence of a property's documentation: it has to say all that the setter asks for."""
    text = " ".join((getattr(cls, field.name).__doc__ or "").split())
    found = _LEGAL.search(text)
    assert found is not None, f"{cls.NAME}.{field.name}: {text}"
    return Rules(
        bounds=(found["low"] or found["least"], found["high"] or found["most"]),
        shortest=int(found["shortest"] or 0),
        not_zero=found["not_zero"] is not None,
        without_prefix=found["prefix"] is not None,
    )


def _numbers(kind: str, rules: Rules) -> st.SearchStrategy[Any]:
    low, high = rules.bounds
    if kind in RANGES:
        lowest, highest = RANGES[kind]
        return st.integers(int(low or lowest), int(high or highest))
    least, most = None if low is None else float(low), None if high is None else float(high)
    return st.floats(least, most, width=32 if kind == "f32" else 64)


def _texts(rules: Rules, limit: int) -> st.SearchStrategy[str]:
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=rules.shortest, max_size=limit)
    return texts.filter(
        lambda text: (
            rules.shortest <= len(text.encode()) <= limit and not (rules.without_prefix and text[:2].lower() == "0x")
        )
    )


def _typed(cls: type[Message], field: Field, rules: Rules) -> st.SearchStrategy[Any]:
    kind = field.type_text
    if "=" in kind:
        return st.sampled_from(
            [type(getattr(_example(cls), field.name))(int(n)) for n in re.findall(r"=(-?\d+)", kind)]
        )
    if found := re.fullmatch(r"String\((\d+)\)", kind):
        return _texts(rules, int(found[1]))
    if found := re.fullmatch(r"Vec<u8>\((\d+)\)", kind):
        return st.binary(min_size=rules.shortest, max_size=int(found[1]))
    if found := re.fullmatch(r"Vec<\[u8; (\d+)\]>\((\d+)\)", kind):
        row = st.binary(min_size=int(found[1]), max_size=int(found[1]))
        return st.lists(row, min_size=rules.shortest, max_size=int(found[2])).map(tuple)
    if found := re.fullmatch(r"Vec<(\w+)>\((\d+)\)", kind):
        element = _numbers(found[1], Rules((None, None), 0, not_zero=False, without_prefix=False))
        return st.lists(element, min_size=rules.shortest, max_size=int(found[2])).map(tuple)
    if found := re.fullmatch(r"\[\[u8; (\d+)\]; (\d+)\]", kind):
        row = st.binary(min_size=int(found[1]), max_size=int(found[1]))
        return st.lists(row, min_size=int(found[2]), max_size=int(found[2])).map(tuple)
    if kind.startswith("[u8") or kind == "U256":
        return st.binary(min_size=field.size, max_size=field.size)
    return st.booleans() if kind == "bool" else _numbers(kind, rules)


def _is_not_zero(value: Any) -> bool:
    """Whether something of a number or of bytes, or of rows of them, is other than zero."""
    return any(map(_is_not_zero, value)) if isinstance(value, (bytes, tuple)) else bool(value)


def _valid(cls: type[Message], field: Field) -> st.SearchStrategy[Any]:
    """Values that the field takes, in the form in which the property gives them back."""
    rules = _rules(cls, field)
    values = _typed(cls, field, rules)
    return values.filter(_is_not_zero) if rules.not_zero else values


def _example(cls: type[Message]) -> Message:
    """A message in which every enum has some member."""
    message = cls._owned()
    for field in cls.FIELDS:
        found = re.search(r"=(-?\d+)", field.type_text)
        if found:
            setattr(message, field.name, int(found[1]))
    return message


def _values(cls: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    return VALUES[cls]


def _invalid(field: Field) -> st.SearchStrategy[Any]:
    """Values that no field of this type takes."""
    kind = field.type_text
    wrong: list[st.SearchStrategy[Any]] = [st.none(), st.builds(object)]
    number = kind.split(" ")[0]
    if number in RANGES:
        low, high = RANGES[number]
        wrong += [st.integers(max_value=low - 1), st.integers(min_value=high + 1), st.floats(), st.text()]
    elif kind in ("f32", "f64"):
        wrong += [st.text(), st.binary(), st.just(10**400)]
        wrong += [st.sampled_from([1e39, -1e39])] if kind == "f32" else []
    elif kind == "bool":
        wrong += [st.integers(), st.floats(), st.text()]
    elif kind.startswith("String"):
        limit = int(kind[7:-1])
        wrong += [st.binary(), st.integers(), st.text(min_size=limit + 1), st.just("\ud800")]
    elif kind == "U256" or kind.startswith(("[u8", "Vec<u8>")):
        wrong += [st.text(), st.integers(), st.binary(min_size=field.size + 1), st.lists(st.integers(), min_size=1)]
    else:
        wrong += [
            st.text(),
            st.binary(),
            st.integers(),
            st.lists(st.text(), min_size=1),
            st.lists(st.none(), min_size=1),
        ]
    return st.one_of(wrong)


VALUES = {cls: st.fixed_dictionaries({field.name: _valid(cls, field) for field in cls.FIELDS}) for cls in CLASSES}

_each_class = pytest.mark.parametrize("cls", CLASSES, ids=[cls.NAME for cls in CLASSES])


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (left, math.copysign(1, left)) == (
            right,
            math.copysign(1, right),
        )
    return bool(left == right) and isinstance(left, str) == isinstance(right, str)


@_each_class
@given(data=st.data())
def test_valid_values_survive_bytes_dictionaries_and_arrays(cls: type[Message], data: st.DataObject) -> None:
    values = data.draw(_values(cls))
    message = cls(**values)
    message.validate()
    read = cls.from_bytes(message.to_bytes())
    assert read == message
    for name, value in read.to_dict().items():
        assert _same(value, values[name]), name
    assert cls.from_dict(read.to_dict()).to_bytes() == message.to_bytes()
    plain = cls.from_dict(json.loads(json.dumps(read.to_dict(json=True))))
    for name, value in plain.to_dict().items():  # the bits of a NaN do not survive JSON
        assert _same(value, values[name]), name
    assert cls.from_array(cls.to_array([message])) == [message]
    assert len(repr(message)) < 1200


@_each_class
@given(data=st.data())
def test_set_gives_the_same_bytes_as_the_constructor_whatever_was_there_before(
    cls: type[Message], data: st.DataObject
) -> None:
    before, after = cls(**data.draw(_values(cls))), data.draw(_values(cls))
    before.set(**after)  # type: ignore[attr-defined]
    assert before.to_bytes() == cls(**after).to_bytes()
    some = data.draw(st.sets(st.sampled_from([field.name for field in cls.FIELDS])))
    changed, partly = data.draw(_values(cls)), cls(**after)
    partly.set(**{name: changed[name] for name in some})  # type: ignore[attr-defined]
    assert partly.to_bytes() == cls(**{**after, **{name: changed[name] for name in some}}).to_bytes()


@_each_class
@given(data=st.data())
def test_an_invalid_value_is_a_message_error_that_names_its_field(cls: type[Message], data: st.DataObject) -> None:
    values = data.draw(_values(cls))
    message = cls(**values)
    before = message.to_bytes()
    field = data.draw(st.sampled_from(cls.FIELDS))
    wrong = data.draw(_invalid(field))
    attempts: list[Any] = [lambda: setattr(message, field.name, wrong), lambda: cls(**{**values, field.name: wrong})]
    for attempt in attempts:
        with pytest.raises(MessageError, match=f"message '{cls.NAME}', field '{field.name}': ") as caught:
            attempt()
        assert caught.value.field == field.name
        assert len(str(caught.value)) < 600
    assert message.to_bytes() == before


@_each_class
@given(data=st.data())
def test_random_bytes_are_a_valid_message_or_a_message_error(cls: type[Message], data: st.DataObject) -> None:
    payload = data.draw(st.binary(min_size=cls.SIZE, max_size=cls.SIZE))
    if data.draw(st.booleans()):  # mostly valid: a few bytes of a valid message changed
        changed = bytearray(cls(**data.draw(_values(cls))).to_bytes())
        for at in data.draw(st.lists(st.integers(0, cls.SIZE - 1), max_size=3)):
            changed[at] = data.draw(st.integers(0, 255))
        payload = bytes(changed)
    view = cls._at(Views(payload.ljust(cls.SIZE + 7 & ~7, b"\0"), readonly=True), 0)
    assert repr(view).lstrip("<").startswith(cls.__name__)
    try:
        view.validate()
    except MessageError as failed:
        assert failed.field in [field.name for field in cls.FIELDS]
        with pytest.raises(MessageError, match=re.escape(str(failed))):
            cls.from_bytes(payload)
        return
    message = cls.from_bytes(payload)
    assert message == cls(**message.to_dict()) or "nan" in repr(message)


@_each_class
@given(data=st.binary(max_size=400))
def test_bytes_of_another_length_are_refused(cls: type[Message], data: bytes) -> None:
    if len(data) != cls.SIZE:
        with pytest.raises(MessageError, match=f"len={len(data)}, expected={cls.SIZE}"):
            cls.from_bytes(data)
