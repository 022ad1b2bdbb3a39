"""Addresses of bridges, and what a stream without descriptors leads to."""

from __future__ import annotations

import socket

import pytest

import mycelium
from mycelium._socket import parse_address


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("unix:/run/a:b", "/run/a:b"),
        ("./a:b", "./a:b"),
        ("tcp:localhost:1", ("localhost", 1)),
        ("tcp:[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses_are_understood(address: str, place: object) -> None:
    assert parse_address(address) == place


@pytest.mark.parametrize(
    "address", ["", "udp:h:1", "tcp:h", "tcp::1", "tcp:::1:7", "tcp:h:0", "tcp:h:65536", "tcp:h:x"]
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
