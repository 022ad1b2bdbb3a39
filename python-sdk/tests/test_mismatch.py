"""Peers whose contracts differ from the bridge's: what is offered, reported, refused and skipped."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble
from builders import quote, signal
from mycelium import _control as control
from mycelium import _layout as layout
from mycelium import messages
from mycelium._contracts import Registry
from mycelium._differences import decode_report
from mycelium._frame import encode_frame
from mycelium.messages import Quote, Signal

MakeBridge = Callable[..., BridgeDouble]
THEIRS = b"\1" * 32


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "id": Quote.TOPIC_ID,
        "name": "Quote",
        "compatible": False,
        "layout_digest": "ab" * 32,
        "text": "message 'Quote' (topic 1001): layout changed: field 'ask': type f64 -> f32",
        **changes,
    }


def report(payload: bytes) -> bytes:
    return encode_frame(control.ContractsReport.TOPIC_ID, payload, layout.ENCODING_JSON << layout.FLAG_ENCODING_SHIFT)


def differing(make_bridge: MakeBridge, payload: bytes, **options: Any) -> BridgeDouble:
    bridge = make_bridge(**options)
    bridge.schema_digest = THEIRS
    bridge.report = report(payload)
    return bridge


def test_a_differing_topic_is_refused_and_the_rest_flows(
    make_bridge: MakeBridge, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    added = entry(id=1009, name="Added", compatible=True, layout_digest=None, text="only the bridge has it")
    bridge = differing(make_bridge, json.dumps([entry(), added]).encode())
    bridge.replies[control.Subscribe.TOPIC_ID, Quote.TOPIC_ID] = int(control.TopicReplyCode.LAYOUT_MISMATCH)
    with bridge.connect(transport=transport) as channel:
        offers = [payload for topic_id, payload in bridge.control if topic_id == control.ContractsOffer.TOPIC_ID]
        assert offers == [messages.CONTRACTS.to_json().encode()]
        first, second = channel.contract_differences
        assert (first.topic_id, first.message, first.compatible, first.expected) == (1001, "Quote", False, b"\xab" * 32)
        assert (second.message, second.compatible, second.expected) == ("Added", True, b"")
        (warning,) = [
            record for record in caplog.records if record.levelname == "WARNING" and "differ" in record.message
        ]
        assert "field 'ask': type f64 -> f32" in warning.message and "Added" not in warning.message
        with pytest.raises(mycelium.ContractMismatch, match="field 'ask': type f64 -> f32") as caught:
            channel.subscribe(Quote)
        assert (caught.value.topic_id, caught.value.expected) == (1001, b"\xab" * 32)
        assert (caught.value.actual, caught.value.differences) == (Quote.LAYOUT_DIGEST, (first,))
        # What the bridge kept for a predecessor has another layout, whatever its size.
        bridge.send(quote(1))
        bridge.send(signal(2))
        assert type(channel.recv(timeout=30)) is Signal
        assert channel.statistics().frames_skipped == 1
        assert any("skipping" in record.message and "field 'ask'" in record.message for record in caplog.records)
        channel.publisher(Signal).send(signal(3))
        assert bridge.take(Signal, 1) == [signal(3)]


def test_a_message_of_another_module_than_the_bridge_was_told_of_says_what_to_pass(make_bridge: MakeBridge) -> None:
    body = {"LAYOUT_DIGEST": b"\2" * 32, "__module__": "trade_messages", "__slots__": ()}
    other = type("Quote", (Quote,), body)
    bridge = make_bridge()
    bridge.replies[control.Subscribe.TOPIC_ID, Quote.TOPIC_ID] = int(control.TopicReplyCode.LAYOUT_MISMATCH)
    remedy = r"told of mycelium\.messages\.Quote instead of trade_messages\.Quote: pass the module trade_messages as c"
    with bridge.connect() as channel:
        with pytest.raises(mycelium.ContractMismatch, match=remedy):
            channel.subscribe(other)
        with pytest.raises(mycelium.ContractMismatch) as caught:
            channel.subscribe(Quote)
        assert "instead of" not in str(caught.value)


def test_a_report_without_incompatible_messages_is_no_warning(
    make_bridge: MakeBridge, caplog: pytest.LogCaptureFixture
) -> None:
    with differing(make_bridge, b"[]").connect() as channel:
        assert channel.contract_differences == ()
        assert not caplog.records


def test_no_offer_where_the_contracts_are_the_same_or_one_side_has_none(make_bridge: MakeBridge) -> None:
    for digest, contracts in ((messages.SCHEMA_DIGEST, messages), (bytes(32), messages), (THEIRS, None)):
        bridge = make_bridge()
        bridge.schema_digest = digest
        with bridge.connect(contracts=contracts):
            assert all(topic_id != control.ContractsOffer.TOPIC_ID for topic_id, _ in bridge.control)


def test_a_bridge_may_refuse_instead_of_reporting(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    bridge.schema_digest = THEIRS
    refused = control.Refused(code=control.RefusedCode.BAD_CONTRACTS, message="id of message 'A' twice")
    bridge.report = encode_frame(refused.TOPIC_ID, refused.to_bytes())
    with pytest.raises(mycelium.HandshakeRefused, match="id of message 'A' twice") as caught:
        bridge.connect()
    assert caught.value.code == control.RefusedCode.BAD_CONTRACTS


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "no JSON array"),
        (b"[1]", "compatible of entry 0"),
        (json.dumps([entry(id=70000)]).encode(), "id of entry 0"),
        (json.dumps([entry(), entry(name=None)]).encode(), "name of entry 1"),
        (json.dumps([entry(compatible=1)]).encode(), "compatible of entry 0"),
        (json.dumps([entry(layout_digest="x")]).encode(), "layout_digest of entry 0"),
    ],
)
def test_a_report_that_breaks_the_protocol_names_the_place(make_bridge: MakeBridge, payload: bytes, place: str) -> None:
    with pytest.raises(mycelium.ProtocolError, match=place):
        differing(make_bridge, payload).connect()


def test_a_report_that_is_too_long_is_refused_by_its_header(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    bridge.schema_digest = THEIRS
    bridge.report = report(b" " * (control.ContractsReport.MAX_SIZE + 1))[:8]
    with pytest.raises(mycelium.ProtocolError, match=r"legal: 0\.\.=1048576"):
        bridge.connect()


def test_control_characters_do_not_reach_the_log() -> None:
    (difference,) = decode_report(json.dumps([entry(text="a\n\x1b[2Jb")]).encode())
    assert difference.text == "a  [2Jb"


def test_several_modules_are_offered_together() -> None:
    other = types.ModuleType("other")
    other.SCHEMA_DIGEST = THEIRS  # type: ignore[attr-defined]  # as generated modules have it
    other.MESSAGES = (Signal,)  # type: ignore[attr-defined]
    registry = Registry([messages, other])
    both = bytes(a ^ b for a, b in zip(messages.SCHEMA_DIGEST, THEIRS, strict=True))
    assert registry.schema_digest == both
    offered = json.loads(registry.offer())
    assert offered["schema_digest"] == both.hex()
    assert [message["name"] for message in offered["messages"]].count("Signal") == 1
    assert Registry(messages).schema_digest == Registry([Quote]).schema_digest == messages.SCHEMA_DIGEST
    assert Registry(None).schema_digest == bytes(32)
