"""What a generated module says about its whole contracts file: the JSON that peers compare."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mycelium import _control, messages
from mycelium._message import Contracts, DynamicMessage, Message

CONTRACTS = Path(__file__).parents[2] / "contracts"


def test_the_list_of_a_module_has_its_digests_and_every_message() -> None:
    assert messages.CONTRACTS.schema_digest == messages.SCHEMA_DIGEST
    assert messages.CONTRACTS.source_digest == hashlib.sha256((CONTRACTS / "bandit.yaml").read_bytes()).digest()
    assert messages.CONTRACTS.messages == messages.MESSAGES
    assert "Quote" in repr(messages.CONTRACTS)


def test_the_json_names_layouts_as_the_contracts_file_does() -> None:
    shape = json.loads(_control.CONTRACTS.to_json())
    assert shape["schema_digest"] == _control.SCHEMA_DIGEST.hex()
    by_name = {message["name"]: message for message in shape["messages"]}
    assert list(by_name) == [message.NAME for message in _control.MESSAGES]
    for cls in _control.MESSAGES:
        message = by_name[cls.NAME]
        assert (message["id"], message["layout_digest"]) == (cls.TOPIC_ID, cls.LAYOUT_DIGEST.hex())
        if issubclass(cls, Message):
            assert (message["encoding"], message["max_size"]) == ("contract", cls.SIZE)
            assert len(message["fields"]) == len(cls.FIELDS)
        else:
            assert (message["encoding"], message["max_size"], message["fields"]) == ("json", cls.MAX_SIZE, [])
    signal = next(one for one in json.loads(messages.CONTRACTS.to_json())["messages"] if one["name"] == "Signal")
    assert ["side", "u8 BUY=1 SELL=2 HOLD=3"] in [field[:2] for field in signal["fields"]]


def test_a_layout_digest_follows_from_the_json() -> None:
    """The JSON holds all that decides compatibility: the digests can be computed from it."""
    for module in (messages, _control):
        for message in json.loads(module.CONTRACTS.to_json())["messages"]:
            text = f"message {message['name']} {message['id']} {message['encoding']} {message['max_size']}\n"
            text += "".join(f"field {name} {offset} {kind}\n" for name, kind, offset, _ in message["fields"])
            assert hashlib.sha256(text.encode()).hexdigest() == message["layout_digest"]


def test_a_name_in_camel_case_is_compared_as_it_is_written() -> None:
    class Odd(Message):
        NAME = "Odd"
        TOPIC_ID = 1
        SIZE = 8
        LAYOUT_DIGEST = bytes(32)
        FIELDS = (messages.Quote.FIELDS[0]._replace(name="fee_bps", contract_name="feeBps"),)

    shape = json.loads(Contracts(bytes(32), bytes(32), [Odd]).to_json())
    assert shape["messages"][0]["fields"][0][0] == "feeBps"


def test_every_class_says_how_it_is_delivered_and_encoded() -> None:
    for module in (messages, _control):
        for cls in module.MESSAGES:
            assert cls.DELIVERY in ("block", "drop_newest", "drop_oldest", "conflate")
            assert cls.LOG_PAYLOAD is True
            assert (cls.ENCODING == 0) is not issubclass(cls, DynamicMessage)
