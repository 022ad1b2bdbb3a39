"""Addresses of bridges, and what a stream without descriptors leads to."""

from __future__ import annotations

import socket

import pytest

import mycelium
from mycelium._socket import Address, parse_address


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("unix:/run/a:b", Address("unix", path="/run/a:b")),
        ("./a:b", Address("unix", path="./a:b")),
        ("tcp:localhost:1", Address("tcp", host="localhost", number=1)),
        ("tcp:[::1]:65535", Address("tcp", host="::1", number=65535)),
        ("tls:bridge.example.org:7443", Address("tls", host="bridge.example.org", number=7443)),
        ("fd:3", Address("fd", number=3)),
        ("stdio:", Address("stdio")),
    ],
)
def test_addresses_are_understood(address: str, place: object) -> None:
    assert parse_address(address) == place


@pytest.mark.parametrize(
    "address",
    [
        "",
        "udp:h:1",
        "tcp:h",
        "tcp::1",
        "tcp:::1:7",
        "tcp:h:0",
        "tcp:h:65536",
        "tcp:h:x",
        "tls:h",
        "fd:2",
        "fd:x",
        "stdio:x",
    ],
)
def test_a_bad_address_is_named_with_the_legal_forms(address: str) -> None:
    with pytest.raises(mycelium.AddressError) as caught:
        parse_address(address)
    assert caught.value.address == address
    assert repr(address) in str(caught.value)
    assert "tcp:host:port" in str(caught.value)


def test_shared_memory_over_tcp_is_refused_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(mycelium.TransportUnavailable) as caught:
            mycelium.connect(f"tcp:127.0.0.1:{port}", transport="shm")
    assert caught.value.code == 10
    assert "tcp" in str(caught.value)


def test_nobody_on_a_port_is_a_lost_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(mycelium.PeerLost, match=f"tcp:127.0.0.1:{port}"):
        mycelium.connect(f"tcp:127.0.0.1:{port}")
