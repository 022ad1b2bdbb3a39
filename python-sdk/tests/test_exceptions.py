"""Every exception: its place in the tree, its attributes, and what somebody reads who meets it."""

from __future__ import annotations

import inspect
import pickle
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from mycelium import exceptions, testing
from mycelium.messages import Quote, ReplayMark, Side, Signal

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "AddressError": ("address",),
    "ChannelClosed": ("reason",),
    "ChannelError": ("sent",),
    "ChannelFull": ("needed", "free"),
    "ContractMismatch": ("topic_id", "expected", "actual", "differences"),
    "DeliveryRefused": ("topic_id", "code", "name"),
    "FrameTooLarge": ("payload_len", "max_payload"),
    "HandshakeRefused": ("code", "name"),
    "LinkFailed": ("code", "name"),
    "MessageError": ("field", "value"),
    "PeerLost": ("address", "link"),
    "ProtocolError": ("topic_id",),
    "SchemaRefused": ("code", "name", "topic_id", "expected", "actual", "differences"),
    "SegmentCorrupt": ("field", "value", "legal"),
    "StaleMessageError": (),  # what it is about is gone
    "TransportUnavailable": ("code", "name"),
    "UnknownTopic": ("topic_id",),
}
VALUES: dict[str, Any] = {
    "actual": bytes(32),
    "code": 4,
    "expected": bytes(32),
    "field": "head",
    "free": 64,
    "legal": "0..=8",
    "max_payload": 8,
    "needed": 72,
    "payload_len": 9,
    "topic_id": 1001,
    "value": 9,
}


def test_the_table_is_complete() -> None:
    kinds = {name for name, kind in vars(exceptions).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert kinds == set(ATTRIBUTES) == set(exceptions.__all__)
    assert kinds <= set(mycelium.__all__)


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_every_exception_carries_what_it_knows(name: str) -> None:
    kind: Any = getattr(mycelium, name)
    assert issubclass(kind, mycelium.ChannelError)
    needed = [
        parameter
        for parameter in inspect.signature(kind.__init__).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY
    ]
    given = {parameter.name: VALUES[parameter.name] for parameter in needed}
    error = kind(**given) if name == "SegmentCorrupt" else kind("what failed: a=1; do that", **given)
    for attribute in ATTRIBUTES[name]:
        assert hasattr(error, attribute), attribute
        assert attribute in _documentation(kind), f"{attribute} is not documented"
    for attribute, value in given.items():
        assert getattr(error, attribute) == value
    if name != "SegmentCorrupt":
        assert str(error) == "what failed: a=1; do that"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def _documentation(kind: type) -> str:
    return " ".join(f"{base.__doc__} {' '.join(vars(base))}" for base in kind.__mro__[:-1])


def test_codes_have_names() -> None:
    assert mycelium.HandshakeRefused("x", code=4).name == "NOT_ALLOWED"
    assert mycelium.LinkFailed("x", code=1).name == "CORRUPT_RECORD"
    assert mycelium.TransportUnavailable("x", code=10).name == "REMOTE"
    assert mycelium.LinkFailed("x", code=999).name == "999"


def _silent(listener: socket.socket) -> None:
    mycelium.connect(f"tcp:127.0.0.1:{listener.getsockname()[1]}", timeout=0.05)


def _no_bridge(listener: socket.socket) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.recv(4096)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        mycelium.connect(f"tcp:127.0.0.1:{listener.getsockname()[1]}", timeout=30)
    finally:
        thread.join()


@pytest.mark.parametrize(
    ("provoke", "kind", "text"),
    [
        (
            lambda _: mycelium.connect("foo:bar"),
            mycelium.AddressError,
            r"address not understood: address='foo:bar'; use .*",
        ),
        (
            lambda _: mycelium.connect("unix:/nowhere/bridge.sock"),
            mycelium.PeerLost,
            r"cannot connect: address=unix:/nowhere/bridge.sock error='No such file .*'; is the bridge running\?",
        ),
        (_silent, TimeoutError, r"handshake not answered in time: timeout_s=0.05; is the other end a bridge\?"),
        (
            _no_bridge,
            mycelium.ProtocolError,
            r"not a control frame: topic_id=12591 .*, legal: 1..=999; is the other end a bridge\?",
        ),
    ],
)
def test_a_connection_that_fails_says_why(provoke: Callable[[socket.socket], Any], kind: type, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(kind) as caught:
        provoke(listener)
    assert re.fullmatch(text, str(caught.value)), caught.value


def test_a_link_that_fails_says_why(transport: str) -> None:
    refuse = {ReplayMark: "UNKNOWN_TOPIC"}
    with testing.Bridge(transport=transport, refuse=refuse, name="mine") as bridge:
        channel = bridge.connect()
        with pytest.raises(mycelium.UnknownTopic) as unknown:
            channel.subscribe(ReplayMark)
        assert "message=ReplayMark topic_id=1010 code=UNKNOWN_TOPIC" in str(unknown.value)
        with pytest.raises(TypeError, match="wrong message: type=Quote, expected=Signal; send that"):
            channel.publisher(Signal).send(Quote(symbol="x"))
        bridge.shutdown(reason="upgrade")
        with pytest.raises(mycelium.ChannelClosed) as closed:
            channel.recv(timeout=30)
        assert str(closed.value) == "bridge has shut down and nothing is left: reason='upgrade'"
        assert closed.value.reason == "upgrade"
    with testing.Bridge(transport=transport, name="mine") as bridge:
        channel = bridge.connect()
        bridge.hang_up()
        with pytest.raises(mycelium.PeerLost) as lost:
            channel.recv(timeout=30)
        assert str(lost.value) == (
            f"bridge hung up without a shutdown: link=mine transport={transport}; look into its log"
        )
        assert lost.value.link == "mine"
        with pytest.raises(mycelium.PeerLost, match="link=mine request=Subscribe message=Quote topic_id=1001; look"):
            channel.subscribe(Quote)


def test_a_request_without_an_answer_names_what_was_asked(transport: str) -> None:
    with testing.Bridge(transport=transport) as bridge:
        channel = bridge.connect()
        channel._timeout = 0.2  # of requests only; the handshake may take longer
        bridge._link.on_request = lambda *_: None  # type: ignore[method-assign]
        with pytest.raises(TimeoutError) as caught:
            channel.publisher(Signal)
        expected = "no reply in time: request=Advertise message=Signal topic_id=1002 timeout_s=0.2; "
        assert str(caught.value) == f"{expected}look into the bridge's log"


def test_a_field_that_does_not_fit_names_itself() -> None:
    with pytest.raises(mycelium.MessageError) as caught:
        Signal(worker="w", side=Side.BUY, strength=2.0)
    assert (caught.value.field, caught.value.value) == ("strength", 2.0)
