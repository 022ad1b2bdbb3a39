"""Connecting: refusals, fallbacks, the environment, and bridges that say something wrong."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble, create_segment, segment_header, wait_until
from builders import quote, signal
from mycelium import _control as control
from mycelium import _layout as layout
from mycelium import _ordering, messages
from mycelium._frame import encode_frame
from mycelium.messages import Signal

MakeBridge = Callable[..., BridgeDouble]


def exchange(bridge: BridgeDouble, channel: mycelium.Channel) -> None:
    """One message in each direction."""
    bridge.send(quote(1))
    assert channel.recv(timeout=30).sequence == 1
    channel.publisher(Signal).send(signal(2))
    assert bridge.take(Signal, 1) == [signal(2)]


def refuse(code: control.RefusedCode, **values: Any) -> Callable[[control.Hello], bytes]:
    refused = control.Refused(code=code, **values)
    return lambda _: encode_frame(refused.TOPIC_ID, refused.to_bytes())


def test_hello_tells_who_is_there(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(settings={"window": 20, "nested": {"a": [1, 2]}})
    with bridge.connect(name="alpha", token="secret", transport=transport) as channel:
        hello = bridge.hello
        assert hello is not None
        assert (hello.name, hello.token, hello.pid) == ("alpha", "secret", os.getpid())
        assert hello.schema_digest == messages.SCHEMA_DIGEST
        assert hello.protocol_version == layout.PROTOCOL_VERSION
        assert channel.settings == {"window": 20, "nested": {"a": [1, 2]}}
        assert channel.transport == transport
        exchange(bridge, channel)


def test_a_refused_schema_shows_both_digests(make_bridge: MakeBridge) -> None:
    theirs, ours = bytes(range(32)), messages.SCHEMA_DIGEST
    answer = refuse(
        control.RefusedCode.SCHEMA_MISMATCH, expected_digest=theirs, actual_digest=ours, message="generate again"
    )
    with pytest.raises(mycelium.SchemaRefused) as caught:
        make_bridge(answer=answer).connect()
    assert (caught.value.expected, caught.value.actual, caught.value.code) == (theirs, ours, 2)
    assert isinstance(caught.value, mycelium.HandshakeRefused)
    assert isinstance(caught.value, mycelium.ContractMismatch)
    for part in (theirs.hex(), ours.hex(), "generate again"):
        assert part in str(caught.value)


def test_other_refusals_carry_code_and_message(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(answer=refuse(control.RefusedCode.NAME_TAKEN, message="name=alpha is in use by pid=7"))
    with pytest.raises(mycelium.HandshakeRefused) as caught:
        bridge.connect(name="alpha")
    assert caught.value.code == control.RefusedCode.NAME_TAKEN
    assert "pid=7" in str(caught.value)


def _welcome(bridge: BridgeDouble, hello: control.Hello, **changes: Any) -> bytes:
    welcome = bridge.welcome_frame(hello, **changes)
    return encode_frame(welcome.TOPIC_ID, welcome.to_bytes())


def test_a_bridge_that_breaks_the_protocol_is_told_apart(make_bridge: MakeBridge) -> None:
    settings = encode_frame(control.Settings.TOPIC_ID, b"[]", layout.ENCODING_JSON << 1)
    socket_offer = {"transport": control.WelcomeTransport.SOCKET}
    answers: list[Callable[[BridgeDouble, control.Hello], bytes]] = [
        lambda _, __: encode_frame(control.Ack.TOPIC_ID, control.Ack(bytes=1).to_bytes()),
        lambda _, __: encode_frame(1001, b"data"),
        lambda _, __: b"GET / HTTP/1.1\r\n\r\n",
        lambda bridge, hello: _welcome(bridge, hello, protocol_version=9, **socket_offer),
        lambda bridge, hello: _welcome(bridge, hello, transport=control.WelcomeTransport.SHM),
        lambda bridge, hello: _welcome(bridge, hello, **socket_offer) + settings,
        lambda bridge, hello: (
            _welcome(bridge, hello, **socket_offer)
            + encode_frame(control.Settings.TOPIC_ID, b"{", layout.ENCODING_JSON << 1)
        ),
    ]
    for answer in answers:
        bridge = make_bridge()
        bridge.answer = lambda hello, bridge=bridge, answer=answer: answer(bridge, hello)
        with pytest.raises(mycelium.ProtocolError):
            bridge.connect()


def test_a_bridge_that_hangs_up_or_says_nothing(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(silent=True)
    with pytest.raises(TimeoutError):
        bridge.connect(timeout=0.05)
    silent = make_bridge(silent=True)
    thread = threading.Thread(target=lambda: (wait_until(lambda: silent.hello is not None), silent.hang_up()))
    thread.start()
    with pytest.raises(mycelium.PeerLost):
        silent.connect()
    thread.join()


@pytest.mark.parametrize(
    ("switch", "code"),
    [("shm", "DISABLED"), ("map", "MAP_FAILED"), ("fd-passing", "FD_PASSING"), ("memfd,shm", "DISABLED")],
)
def test_each_switch_forces_the_fallback_and_says_why(
    make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, switch: str, code: str
) -> None:
    monkeypatch.setenv("MYCELIUM_DISABLE", switch)
    bridge = make_bridge()
    with bridge.connect() as channel:
        assert (channel.transport, channel.fallback_code) == ("socket", code)
        assert channel.fallback_reason
        exchange(bridge, channel)
        assert bridge.attached is not None
        assert bridge.attached.fallback_code == control.FallbackCode[code]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    demanding = make_bridge()
    with pytest.raises(mycelium.TransportUnavailable) as caught:
        demanding.connect(transport="shm")
    assert caught.value.code == control.FallbackCode[code]


def test_without_membarrier_the_link_is_fenced(make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYCELIUM_DISABLE", "membarrier")
    bridge = make_bridge()
    with bridge.connect() as channel:
        assert (channel.transport, channel.fencing) == ("shm", "fenced")
        exchange(bridge, channel)
        assert channel.statistics().wakeups_sent >= 1


@pytest.mark.parametrize(("system", "code"), [("darwin", "PLATFORM"), ("linux", "ORDERING")])
def test_other_machines_take_the_socket(
    make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch, system: str, code: str
) -> None:
    here = _ordering.detect(system, "riscv64")
    assert here.problem == code
    monkeypatch.setattr(_ordering, "detect", lambda: here)
    bridge = make_bridge()
    with bridge.connect() as channel:
        assert (channel.transport, channel.fallback_code) == ("socket", code)
        assert channel.fallback_reason == here.reason
        assert bridge.hello is not None
        assert bridge.hello.capabilities == layout.CAPABILITY_GAPS
        exchange(bridge, channel)
    with pytest.raises(mycelium.TransportUnavailable):
        make_bridge().connect(transport="shm")


def test_a_machine_that_needs_barriers_runs_them(make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(_ordering, "detect", lambda: _ordering.Ordering(barrier=lambda: calls.append(1)))
    bridge = make_bridge()
    with bridge.connect() as channel:
        for number in range(1, 1001):
            bridge.send(quote(number))
            assert next(iter(channel)).sequence == number
        before = len(calls)
        assert before >= 1000
        signals = channel.publisher(Signal)
        signals.send(signal(1))
        with signals.reserve() as reserved:
            reserved.worker, reserved.side = "w", messages.Side.SELL
        assert len(calls) >= before + 2
        assert len(bridge.take(Signal, 2)) == 2


def test_a_segment_with_a_wrong_field_falls_back_and_names_it(make_bridge: MakeBridge) -> None:
    header = segment_header()
    header[0] ^= 1
    fd = create_segment(header)
    bridge = make_bridge(segment_fd=fd)
    with bridge.connect() as channel:
        assert (channel.transport, channel.fallback_code) == ("socket", "SEGMENT_INVALID")
        assert "magic=" in channel.fallback_reason
    os.close(fd)


def test_no_descriptor_is_left_open(make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    for switch in ("", "shm", "map"):
        monkeypatch.setenv("MYCELIUM_DISABLE", switch)
        bridge = make_bridge()
        before = set(os.listdir("/proc/self/fd"))
        channel = bridge.connect()
        attached = set(os.listdir("/proc/self/fd"))
        channel.close()
        wait_until(bridge.hung_up.is_set, "hang-up")
        assert (len(attached - before) >= 2) == (switch == "")
        # The peer's end of the socket is closed as well; the double's own mapping keeps one descriptor.
        assert len(os.listdir("/proc/self/fd")) == len(before) - 1 + (bridge.segment is not None)


def test_a_worker_connects_from_its_environment(make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = make_bridge()
    monkeypatch.setenv("MYCELIUM_FD", str(bridge.peer_sock.detach()))
    monkeypatch.setenv("MYCELIUM_WORKER", "momentum")
    with mycelium.connect() as channel:
        assert channel.name == "momentum"
        exchange(bridge, channel)


def test_a_missing_or_bad_address_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(mycelium.AddressError, match="MYCELIUM_FD"):
        mycelium.connect()
    monkeypatch.setenv("MYCELIUM_FD", "99999")
    with pytest.raises(mycelium.AddressError, match="fd=99999"):
        mycelium.connect()
    with pytest.raises(mycelium.AddressError, match="tcp:"):
        mycelium.connect("udp:localhost:1")
    with pytest.raises(mycelium.AddressError, match="len=200"):
        mycelium.connect("unix:/" + "x" * 199)
    with pytest.raises(mycelium.PeerLost, match="running"):
        mycelium.connect(f"unix:{tmp_path}/none.sock")
    with pytest.raises(ValueError, match="carrier-pigeon"):
        mycelium.connect("unix:/x", transport="carrier-pigeon")


def test_a_listening_bridge_is_reached_by_its_path(make_bridge: MakeBridge, tmp_path: object) -> None:
    path = f"{tmp_path}/bridge.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        for address in (f"unix:{path}", path):
            bridge = make_bridge(listener=listener)
            with mycelium.connect(address, name="outside") as channel:
                assert channel.name == "outside"
                exchange(bridge, channel)
