"""The Python side of the random round trip: see main.rs beside this file.

Reads messages that Rust built, compares and rebuilds them, and answers each with a message of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import random
import struct
import sys
from typing import Any

from mycelium._message import Message
from mycelium.exceptions import MessageError

Spec = dict[str, Any]

CHARACTERS = "bY1X-:'\\\x01\tüñ\u2029円₿🚀"
QUIET_NAN = 0x7FF8 << 48


def load(name: str) -> Any:
    """The module of this name, or the one in this file."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("golden_messages", name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def to_wire(kind: Spec, value: Any) -> Any:
    """A value of a property as it stands in JSON between the languages."""
    match kind["kind"]:
        case "float":
            if math.isnan(value):
                (bits,) = struct.unpack("<Q", struct.pack("<d", value))
                if bits == QUIET_NAN:
                    return "NaN"
                if kind["single"]:
                    return "NaN:" + struct.pack(">f", value).hex()
                return f"NaN:{bits:016x}"
            return value if math.isfinite(value) else str(value)
        case "bytes":
            return value.hex()
        case "wide":
            return str(value)
        case "list":
            return [to_wire(kind["element"], item) for item in value]
        case "enum":
            return int(value)
    return value


def from_wire(kind: Spec, value: Any) -> Any:
    """A value as it stands in JSON, as the constructor takes it."""
    match kind["kind"]:
        case "float":
            if isinstance(value, str) and value.startswith("NaN:"):
                bits = bytes.fromhex(value[4:])
                return struct.unpack(">f" if kind["single"] else ">d", bits)[0]
            return float(value)
        case "bytes":
            return bytes.fromhex(value)
        case "wide":
            return int(value)
        case "list":
            return tuple(from_wire(kind["element"], item) for item in value)
    return value


def same(left: Any, right: Any) -> bool:
    """Equality that tells 0.0 from -0.0, and a number from a truth value."""
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return type(left) is type(right) and left == right


def length(kind: Spec) -> int:
    least, most = kind["least"], kind["most"]
    return random.choice((least, most, random.randint(least, most), random.randint(least, most)))


def draw_int(low: int, high: int) -> int:
    while True:
        small = random.getrandbits(random.randint(1, 127))
        value = random.choice((low, high, -1, 0, 1, small, -small, random.randint(low, high)))
        if low <= value <= high:
            return value


def draw_float(kind: Spec) -> float:
    low, high = float(kind["min"]), float(kind["max"])
    if kind["single"]:
        bits = random.getrandbits(32) & 0x807FFFFF if random.random() < 0.1 else random.getrandbits(32)
        if bits & 0x7F800000 == 0x7F800000:
            bits |= 0x00400000  # a quiet NaN, which widening keeps
        value = struct.unpack("<f", struct.pack("<I", bits))[0]
        edges = (2.0**-149, 3.4028234663852886e38)
    else:
        bits = random.getrandbits(64)
        if random.random() < 0.1:
            bits |= 0x7FF8 << 48
        value = struct.unpack("<d", struct.pack("<Q", bits))[0]
        edges = (5e-324, 1.7976931348623157e308)
    value = random.choice((value, value, value, 0.0, -0.0, 0.5, -2.5, math.inf, -math.inf, math.nan, *edges))
    if kind["bounded"]:
        value = min(max(0.0 if math.isnan(value) else value, low), high)
    return float(value)


def draw_text(kind: Spec) -> str:
    wanted = length(kind)
    text = ""
    size = 0
    while size < wanted:
        character = random.choice(CHARACTERS)
        width = len(character.encode())
        if size + width > wanted:
            character, width = "_", 1
        text += character
        size += width
    if kind["no_prefix"] and text[:2].lower() == "0x":
        text = "_" + text[1:]
    return text


def draw_once(kind: Spec) -> Any:
    match kind["kind"]:
        case "int" | "wide":
            return draw_int(int(kind["min"]), int(kind["max"]))
        case "float":
            return draw_float(kind)
        case "bool":
            return random.random() < 0.5
        case "bytes":
            size = length(kind)
            return random.choice((bytes(size), b"\xff" * size, random.randbytes(size), random.randbytes(size)))
        case "text":
            return draw_text(kind)
        case "list":
            return tuple(draw_once(kind["element"]) for _ in range(length(kind)))
        case "enum":
            return random.choice(kind["values"])
    raise AssertionError(kind)


def draw(kind: Spec) -> Any:
    """A valid value, drawn by other code than Rust's."""
    while True:
        value = draw_once(kind)
        zero = not any(value) if isinstance(value, bytes) else value == 0
        if not (kind["not_zero"] and zero):
            return value


def check(cls: type[Message], fields: list[Spec], payload: bytes, values: dict[str, Any]) -> None:
    """Decodes a message that Rust built, and builds it again."""
    message = cls.from_bytes(payload)
    for field in fields:
        name = field["name"]
        read = to_wire(field, getattr(message, name))
        if not same(read, values[name]):
            raise AssertionError(f"{cls.NAME}.{name}: read {read!r}, Rust wrote {values[name]!r}, in {payload.hex()}")
    built = cls(**{field["name"]: from_wire(field, values[field["name"]]) for field in fields}).to_bytes()
    if built != payload:
        raise AssertionError(f"{cls.NAME}: built {built.hex()} from {values}, Rust built {payload.hex()}")


def refuse(cls: type[Message], payload: bytes, broken: str) -> None:
    """Decodes a message that was broken in one field."""
    try:
        cls.from_bytes(payload)
    except MessageError as failed:
        if failed.field != broken:
            raise AssertionError(f"{cls.NAME}: '{broken}' is broken, not '{failed.field}'") from failed
    else:
        raise AssertionError(f"{cls.NAME}: '{broken}' is broken, but was taken: {payload.hex()}")


def main() -> None:
    module = load(sys.argv[1])
    random.seed(int(sys.argv[2]))
    specs = {spec["name"]: spec["fields"] for spec in json.loads(sys.stdin.readline())}
    for line in sys.stdin:
        name, digits, values, broken = json.loads(line)
        cls, fields, payload = getattr(module, name), specs[name], bytes.fromhex(digits)
        if broken:
            refuse(cls, payload, broken)
            continue
        check(cls, fields, payload, values)
        drawn = {field["name"]: draw(field) for field in fields}
        built = cls(**drawn).to_bytes()
        shown = {field["name"]: to_wire(field, drawn[field["name"]]) for field in fields}
        sys.stdout.write(json.dumps([name, built.hex(), shown]) + "\n")


main()
