"""The generated classes against the test vectors: the same files that the Rust suite reads.

Every case is taken both ways, values to bytes and bytes to values, and both languages have to agree on
whether its values are valid.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mycelium import _control, messages
from mycelium._message import DynamicMessage, Field, Message, Views
from mycelium.exceptions import MessageError

CONTRACTS = Path(__file__).parents[2] / "contracts"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


golden = _load(CONTRACTS / "tests/golden/grammar.py")

SOURCES: list[tuple[Path, ModuleType]] = [
    (CONTRACTS / "vectors/bandit.json", messages),
    (CONTRACTS / "vectors/control.json", _control),
    (CONTRACTS / "tests/golden/grammar.json", golden),
]


def _each_case() -> Iterator[Any]:
    for path, module in SOURCES:
        for message in json.loads(path.read_text(encoding="utf-8"))["messages"]:
            for case in message["cases"]:
                name = f"{path.stem}-{message['name']}-{case['name']}"
                yield pytest.param(getattr(module, message["name"]), case, id=name)


CASES = list(_each_case())


def _value(field: Field, value: Any) -> Any:
    """A value as it stands in a vector, as the property takes and gives it."""
    kind = field.type_text
    if kind in ("u128", "i128"):
        return int(value)
    if kind in ("f32", "f64"):
        return float(value)
    if kind == "U256" or kind.startswith(("[u8", "Vec<u8>")):
        return bytes.fromhex(value)
    if kind.startswith(("[[u8", "Vec<[u8")):
        return tuple(bytes.fromhex(row) for row in value)
    if kind.startswith("Vec<f"):
        return tuple(float(number) for number in value)
    return tuple(value) if kind.startswith("Vec<") else value


def _same(left: Any, right: Any) -> bool:
    """Equality that takes NaN for equal to itself and tells 0.0 from -0.0."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    return bool(left == right)


@pytest.mark.parametrize(("path", "module"), SOURCES, ids=[path.stem for path, _ in SOURCES])
def test_every_message_of_a_module_has_vectors_of_the_same_contracts(path: Path, module: ModuleType) -> None:
    vectors = json.loads(path.read_text(encoding="utf-8"))
    assert vectors["schema_digest"] == module.SCHEMA_DIGEST.hex()
    fixed = [message for message in module.MESSAGES if issubclass(message, Message)]
    assert [message["name"] for message in vectors["messages"]] == [message.NAME for message in fixed]
    for message, cls in zip(vectors["messages"], fixed, strict=True):
        assert message["size"] == cls.SIZE == struct.calcsize(cls.ROW_FORMAT)
        assert message["layout_digest"] == cls.LAYOUT_DIGEST.hex()
        assert message["topic_id"] == cls.TOPIC_ID
        assert message["size"] | message["topic_id"] << 32 == cls.HEADER_WORD


@pytest.mark.parametrize(("cls", "case"), CASES)
def test_values_become_these_bytes_and_back(cls: type[Message], case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["bytes"])
    values = {field.name: _value(field, case["values"][field.name]) for field in cls.FIELDS}
    if not case["valid"]:
        with pytest.raises(MessageError, match=f"message '{cls.NAME}', field '"):
            cls.from_bytes(payload)
        with pytest.raises(MessageError, match=f"message '{cls.NAME}', field '"):
            cls(**values)
        return
    assert cls(**values).to_bytes().hex() == payload.hex()
    read = cls.from_bytes(payload)
    for name, value in read.to_dict().items():
        assert _same(value, values[name]), name
    assert cls(**read.to_dict()).to_bytes() == payload


@pytest.mark.parametrize(("cls", "case"), CASES)
def test_a_message_in_the_middle_of_a_buffer_is_read_and_written_in_place(
    cls: type[Message], case: dict[str, Any]
) -> None:
    payload = bytes.fromhex(case["bytes"])
    padded = payload.ljust(cls.SIZE + 7 & ~7, b"\0")
    views = Views(bytearray(b"\xff" * 24 + padded + b"\xff" * 8))
    message = cls._at(views, 3)
    assert message.to_bytes() == payload
    if case["valid"]:
        message._clear()
        for field in cls.FIELDS:
            setattr(message, field.name, _value(field, case["values"][field.name]))
        assert bytes(views.raw) == b"\xff" * 24 + padded + b"\xff" * 8
    views.release()


def test_dynamic_messages_say_how_they_are_encoded() -> None:
    assert issubclass(_control.Settings, DynamicMessage)
    assert (_control.Settings.ENCODING, _control.Settings.MAX_SIZE) == (2, 65536)
    assert (golden.Packed.ENCODING, golden.Plain.ENCODING) == (1, 3)
