//! Clients on a TCP port: tokens, what travels, and clients that vanish or never speak.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use mycelium_bridge::bridge::Bridge;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_messages::control::Hello;
use mycelium_tests::{
    BridgeProcess, Place, TOKEN, WATCHDOG, expect, publish, python, quote, run_python, subscribe,
    wait_for, wait_until,
};
use shm_transport::channel::{Channel, ConnectOptions, Transport};
use shm_transport::error::HandshakeError;

fn options(name: &str, token: &str) -> ConnectOptions {
    ConnectOptions {
        token: token.to_owned(),
        timeout: WATCHDOG,
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

/// The address of the only endpoint.
fn address(bridge: &Bridge) -> String {
    let [address] = bridge.addresses() else {
        panic!("one endpoint is configured: {:?}", bridge.addresses());
    };
    address.to_string()
}

/// A connection to the only endpoint that has said nothing.
fn silent(bridge: &Bridge) -> TcpStream {
    let address = address(bridge);
    let stream = TcpStream::connect(address.trim_start_matches("tcp:")).expect("connect");
    stream
        .set_read_timeout(Some(WATCHDOG))
        .expect("a time limit");
    stream
}

fn refusal(address: &str, options: &ConnectOptions) -> (&'static str, String) {
    match Channel::connect(address, options) {
        Err(HandshakeError::Refused { name, message, .. }) => (name, message),
        other => panic!("a refusal was due: {other:?}"),
    }
}

#[test]
fn a_rust_client_with_the_token_publishes_and_receives() {
    let place = Place::new().port("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut client =
        Channel::connect(&address(&bridge), &options("far", TOKEN)).expect("the token is right");
    assert_eq!(client.transport(), Transport::Socket);
    let fallback = client.fallback().expect("a reason").to_string();
    assert!(fallback.contains("REMOTE"), "{fallback}");
    client.subscribe::<Signal>().expect("subscribe");
    client.advertise::<Quote>().expect("advertise");
    subscribe::<Quote>(&bridge, &actor);
    for round in 1..=500 {
        client
            .publish(&quote(round), Some(WATCHDOG))
            .expect("publish");
        assert_eq!(expect::<Quote>(&mut actor), quote(round));
        let signal = Signal {
            quote_sequence: round,
            ..Signal::default()
        };
        publish(&mut actor, &signal);
        let got: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(got.quote_sequence, round);
    }
    let status = bridge.link("far").expect("the link");
    assert_eq!(
        (status.transport, status.pid),
        (Some(Transport::Socket), None)
    );
    client.close().expect("close");
    wait_until("the end of the link", || bridge.link("far").is_none());
    assert_eq!(bridge.refused_not_allowed(), 0);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_wrong_and_a_missing_token_are_refused_told_apart_and_counted() {
    let place = Place::new().port("");
    let bridge = place.start();
    let address = address(&bridge);
    let (name, message) = refusal(&address, &options("far", ""));
    assert_eq!(name, "NOT_ALLOWED");
    assert!(
        message.contains("token is missing") && message.contains(&format!("endpoint={address}")),
        "{message}"
    );
    let wrong = format!("{TOKEN}x");
    let (name, message) = refusal(&address, &options("far", &wrong));
    assert_eq!(name, "NOT_ALLOWED");
    assert!(
        message.contains("token is wrong") && !message.contains(TOKEN),
        "{message}"
    );
    wait_until("both refusals in the count", || {
        bridge.refused_not_allowed() == 2
    });
    // Nothing else is told to a stranger, and the name was not taken.
    Channel::connect(&address, &options("far", TOKEN)).expect("the token is right");
}

#[test]
fn a_bridge_that_insists_on_shared_memory_refuses_clients_of_a_port() {
    let place = Place::new().bridge("transport = \"shm\"").port("");
    let bridge = place.start();
    let (name, message) = refusal(&address(&bridge), &options("far", TOKEN));
    assert_eq!(name, "SHM_REQUIRED");
    assert!(message.contains("tcp"), "{message}");
}

#[test]
fn a_client_that_says_nothing_is_cut_off_and_keeps_no_other_endpoint_from_its_clients() {
    let place = Place::new()
        .listening()
        .port("handshake_timeout_ms = 300\nmax_pending_handshakes = 1");
    let mut bridge = BridgeProcess::listening(&place, None);
    let port = port_of(&bridge);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream
        .set_read_timeout(Some(WATCHDOG))
        .expect("a time limit");
    Channel::connect(&place.address(), &options("near", "")).expect("another endpoint");
    assert_eq!(
        stream.read(&mut [0; 16]).expect("an end"),
        0,
        "it is cut off"
    );
    bridge.wait_for_log(&["client did not attach", "127.0.0.1", "timed out"]);
    let far = options("far", TOKEN);
    let channel = wait_for("the free slot", || {
        Channel::connect(&format!("tcp:127.0.0.1:{port}"), &far).ok()
    });
    channel.close().expect("close");
    bridge.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0));
    assert!(!bridge.log().contains(TOKEN), "{}", bridge.log());
}

/// The port that a bridge has logged.
fn port_of(bridge: &BridgeProcess) -> u16 {
    let line = bridge.wait_for_log(&["listening", "tcp:127.0.0.1:"]);
    let (_, rest) = line.split_once("tcp:127.0.0.1:").expect("an address");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a port")
}

#[test]
fn garbage_in_the_place_of_a_hello_is_refused() {
    let place = Place::new().port("");
    let bridge = place.start();
    let mut stream = silent(&bridge);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
        .expect("send");
    // Whatever comes back, it ends.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let known = String::from_utf8_lossy(&answer).contains(&bridge.addresses()[0].to_string());
    assert!(!known, "a stranger learns nothing");
    Channel::connect(&address(&bridge), &options("far", TOKEN)).expect("the next is served");
}

#[test]
fn a_client_that_closes_its_half_has_left_and_what_it_sent_is_delivered() {
    let place = Place::new().port("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let stream = silent(&bridge);
    let half = stream.try_clone().expect("share the connection");
    let mut client = Channel::from_stream(stream, &options("far", TOKEN)).expect("served");
    for sequence in 1..=100 {
        client
            .publish(&quote(sequence), Some(WATCHDOG))
            .expect("publish");
    }
    half.shutdown(Shutdown::Write).expect("close one half");
    for sequence in 1..=100 {
        assert_eq!(expect::<Quote>(&mut actor), quote(sequence));
    }
    wait_until("the end of the link", || bridge.link("far").is_none());
    // The bridge has closed the other half, so nothing is left of the connection.
    let error = client
        .recv(Some(WATCHDOG))
        .expect_err("the connection is over");
    assert!(error.to_string().contains("hung up"), "{error}");
}

#[test]
fn a_hello_that_never_gets_whole_takes_no_more_than_its_time() {
    let place = Place::new().port("handshake_timeout_ms = 200");
    let bridge = place.start();
    let mut stream = silent(&bridge);
    let half = [0; size_of::<Hello>() / 2];
    // The header of a Hello, and half of it.
    stream
        .write_all(&(size_of::<Hello>() as u32).to_le_bytes())
        .expect("send");
    stream.write_all(&[1, 0, 0, 0]).expect("send");
    stream.write_all(&half).expect("send");
    let ended = matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_));
    assert!(ended, "it is cut off");
}

const CLIENT: &str = r#"
import os, sys, time
import mycelium
from mycelium.messages import Quote, Signal
address, token = sys.argv[1:]

def refused(**options):
    try:
        mycelium.connect(address, **options)
    except mycelium.HandshakeRefused as error:
        assert error.code == 4 and token not in str(error), error
        return str(error)
    raise AssertionError("a refusal was due")

assert "token is missing" in refused()
assert "token is wrong" in refused(token=token[:-1] + "?")
with mycelium.connect(address, name="far", token=token) as channel:
    assert (channel.transport, channel.fallback_code) == ("socket", "REMOTE"), channel.fallback_reason
    channel.subscribe(Signal)
    quotes = channel.publisher(Quote)
    for number in range(1, 501):
        quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))
        assert channel.recv(timeout=50).quote_sequence == number
print("done")
"#;

#[test]
fn a_python_client_with_the_token_publishes_and_receives() {
    let place = Place::new().port("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let address = address(&bridge);
    let client = std::thread::spawn(move || run_python(CLIENT, &[&address, TOKEN]));
    for round in 1..=500 {
        let got: Quote = expect(&mut actor);
        assert_eq!(got.sequence, round);
        let signal = Signal {
            quote_sequence: round,
            ..Signal::default()
        };
        publish(&mut actor, &signal);
    }
    client.join().expect("the client").assert_done();
    wait_until("both refusals in the count", || {
        bridge.refused_not_allowed() == 2
    });
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

const STREAMING: &str = r#"
import sys
import mycelium
from mycelium.messages import Quote
with mycelium.connect(sys.argv[1], name="far", token=sys.argv[2]) as channel:
    quotes = channel.publisher(Quote)
    number = 0
    while True:
        number += 1
        quotes.send(Quote(symbol="EUR/USD", sequence=number))
"#;

#[test]
fn a_client_that_is_killed_leaves_whole_frames_and_its_name_is_free() {
    let place = Place::new().port("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let mut client = Command::new(python())
        .args(["-c", STREAMING, &address(&bridge), TOKEN])
        .stdin(Stdio::null())
        .spawn()
        .expect("start Python");
    let mut last = 0;
    while last < 1000 {
        let got: Quote = expect(&mut actor);
        assert_eq!(got.sequence, last + 1);
        last = got.sequence;
    }
    client.kill().expect("kill");
    client.wait().expect("its end");
    wait_until("the end of the link", || {
        while let Ok(Some(frame)) = actor.try_recv() {
            let got: Quote = frame.read().expect("a quote");
            assert_eq!(got.sequence, last + 1, "none is lost or torn");
            last = got.sequence;
        }
        bridge.link("far").is_none()
    });
    Channel::connect(&address(&bridge), &options("far", TOKEN)).expect("the name is free");
}
