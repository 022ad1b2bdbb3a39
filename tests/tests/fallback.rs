//! Where shared memory, or membarrier, is not to be had: the link works all the same, and says why.

use std::time::Duration;

use mycelium_messages::bandit::{CONTRACTS, Signal};
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, expected_transport, publish, quote, run_python,
    subscribe, wait_for,
};
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};
use shm_transport::disable::{VARIABLE, is_disabled};
use shm_transport::error::HandshakeError;
use shm_transport::ring::Fencing;

/// Answers quotes, and writes down over what.
const WORKER: &str = r#"
import pathlib, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    line = f"{channel.transport} {channel.fallback_code} {channel.fencing} {channel.fallback_reason}\n"
    pathlib.Path(__file__).with_name("link").write_text(line)
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

/// What the bridge of this process cannot do already, whatever its workers can.
fn code_of_this_process() -> Option<&'static str> {
    if is_disabled("shm") {
        Some("DISABLED")
    } else {
        is_disabled("memfd").then_some("MEMFD_UNAVAILABLE")
    }
}

fn a_worker_without(word: &str, code: &str, reason: &str) {
    let disable = format!("subscribe = [\"Quote\"]\nenv = {{ {VARIABLE} = {word:?} }}");
    let place = Place::new().worker("worker", WORKER, &disable);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    for sequence in 1..=2_000 {
        publish(&mut actor, &quote(sequence));
        assert_eq!(expect::<Signal>(&mut actor).quote_sequence, sequence);
    }
    // A peer that cannot receive descriptors says so first; everything else it is only asked if there is a segment.
    let own = if word == "fd-passing" {
        None
    } else {
        code_of_this_process()
    };
    let code = own.unwrap_or(code);
    let line = place.first_line("link");
    assert!(line.starts_with(&format!("socket {code} ")), "{line}");
    let status = bridge.link("worker").expect("the worker's link");
    assert_eq!(
        (status.transport, status.epoch),
        (Some(Transport::Socket), 1)
    );
    let fallback = status.fallback.expect("a reason");
    assert!(fallback.contains(code), "{fallback}");
    if own.is_none() {
        assert!(
            line.contains(reason) && fallback.contains(reason),
            "{line} / {fallback}"
        );
    }
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_worker_without_shared_memory_takes_the_socket() {
    a_worker_without("shm", "DISABLED", "MYCELIUM_DISABLE contains shm");
}

#[test]
fn a_worker_that_cannot_map_takes_the_socket() {
    a_worker_without("map", "MAP_FAILED", "MYCELIUM_DISABLE contains map");
}

#[test]
fn a_worker_that_cannot_receive_descriptors_takes_the_socket() {
    a_worker_without(
        "fd-passing",
        "FD_PASSING",
        "cannot receive file descriptors",
    );
}

#[test]
fn a_worker_that_was_told_to_takes_the_socket() {
    let place = Place::new().worker("worker", WORKER, "transport = \"socket\"");
    let bridge = place.start();
    let line = place.first_line("link");
    assert!(
        line.starts_with("socket REQUESTED ")
            && line.contains("configuration asked for transport socket"),
        "{line}"
    );
    let status = wait_for("the worker's link", || {
        bridge
            .link("worker")
            .filter(|status| status.transport.is_some())
    });
    assert!(status.fallback.expect("a reason").contains("REQUESTED"));
}

fn options(name: &str) -> ConnectOptions {
    ConnectOptions::for_contracts(&CONTRACTS).named(name)
}

/// A bridge without `word`, a worker that inherits that, and a client that does not.
fn a_bridge_without(word: &str, code: &str, reason: &str) {
    let place = Place::new()
        .listening()
        .worker("worker", WORKER, "subscribe = [\"Quote\"]");
    let bridge = BridgeProcess::listening(&place, Some(word));
    let line = place.first_line("link");
    assert!(
        line.starts_with(&format!("socket {code} ")) && line.contains(reason),
        "{line}"
    );
    bridge.wait_for_log(&["peer attached without shared memory", "worker", code]);
    let mut client = Channel::connect(&place.address(), &options("client")).expect("connect");
    assert_eq!(client.transport(), Transport::Socket);
    let fallback = client.fallback().expect("a reason");
    assert!(
        fallback.code_name() == code && fallback.reason.contains(reason),
        "{fallback}"
    );
    assert_eq!(client.fencing(), None);
    client.subscribe::<Signal>().expect("subscribe");
    for sequence in 1..=2_000 {
        client
            .publish(&quote(sequence), Some(WATCHDOG))
            .expect("publish");
        let signal: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(signal.quote_sequence, sequence);
    }
    let error = Channel::connect(
        &place.address(),
        &options("strict").over(TransportRequest::Shm),
    );
    let Err(HandshakeError::Refused { name, message, .. }) = error else {
        panic!("a refusal was due: {error:?}")
    };
    assert_eq!(name, "SHM_REQUIRED");
    assert!(
        message.contains(reason) && message.contains(code),
        "{message}"
    );
}

#[test]
fn a_bridge_without_shared_memory_offers_the_socket() {
    a_bridge_without("shm", "DISABLED", "switched off by MYCELIUM_DISABLE=shm");
}

#[test]
fn a_bridge_without_memfd_offers_the_socket() {
    a_bridge_without("memfd", "MEMFD_UNAVAILABLE", "memfd_create failed");
}

/// Round trips with both sides asleep in between, and with both busy.
fn round_trips(client: &mut Channel, count: u64) {
    client.subscribe::<Signal>().expect("subscribe");
    for sequence in 1..=count {
        client
            .publish(&quote(sequence), Some(WATCHDOG))
            .expect("publish");
        let signal: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(signal.quote_sequence, sequence);
    }
    let mut answered = count;
    for sequence in count + 1..=2 * count {
        client
            .publish(&quote(sequence), Some(WATCHDOG))
            .expect("publish");
        while let Some(frame) = client.try_recv().expect("the link goes on") {
            answered += 1;
            assert_eq!(
                frame.read::<Signal>().expect("a signal").quote_sequence,
                answered
            );
        }
    }
    while answered < 2 * count {
        answered += 1;
        let signal: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(signal.quote_sequence, answered);
    }
}

#[test]
fn without_membarrier_the_link_runs_fenced() {
    for spin in ["", "spin_us = 0\n"] {
        let place = Place::new().listening().bridge(spin).worker(
            "worker",
            WORKER,
            "subscribe = [\"Quote\"]",
        );
        let bridge = BridgeProcess::listening(&place, Some("membarrier"));
        let line = place.first_line("link");
        assert!(line.starts_with("shm NONE fenced"), "{line}");
        let mut client = Channel::connect(&place.address(), &options("client")).expect("connect");
        assert_eq!(
            client.fencing(),
            if client.transport() == Transport::Shm {
                Some(Fencing::Fenced)
            } else {
                None
            }
        );
        round_trips(&mut client, 2_000);
        bridge.wait_for_log(&["peer attached", "Fenced", "worker"]);
    }
}

#[test]
fn one_worker_without_membarrier_runs_fenced_beside_others_that_have_it() {
    let with = "subscribe = [\"Quote\"]\nenv = { MYCELIUM_DISABLE = \"membarrier\" }";
    let place = Place::new()
        .listening()
        .bridge("spin_us = 0")
        .worker("worker", WORKER, with);
    let bridge = BridgeProcess::listening(&place, Some(""));
    let line = place.first_line("link");
    assert!(line.starts_with("shm NONE fenced"), "{line}");
    let mut client = Channel::connect(&place.address(), &options("client")).expect("connect");
    let shared = client.transport() == Transport::Shm && !is_disabled("membarrier");
    if shared {
        assert_eq!(client.fencing(), Some(Fencing::Asymmetric));
    }
    round_trips(&mut client, 2_000);
    drop(bridge);
}

#[test]
fn with_everything_at_hand_the_link_runs_over_shared_memory() {
    let place = Place::new().listening().bridge("spin_us = 0").worker(
        "worker",
        WORKER,
        "subscribe = [\"Quote\"]",
    );
    let _bridge = BridgeProcess::listening(&place, Some(""));
    let line = place.first_line("link");
    assert!(line.starts_with("shm NONE asymmetric"), "{line}");
    let mut client = Channel::connect(&place.address(), &options("client")).expect("connect");
    round_trips(&mut client, 2_000);
}

#[test]
fn a_peer_that_demands_shared_memory_and_cannot_map_it_leaves_with_the_reason() {
    let place = Place::new().listening();
    let bridge = BridgeProcess::listening(&place, Some(""));
    let script = r#"
import os, sys
os.environ["MYCELIUM_DISABLE"] = sys.argv[2]
import mycelium
try:
    mycelium.connect(sys.argv[1], name="strict", transport="shm")
except (mycelium.TransportUnavailable, mycelium.HandshakeRefused) as error:
    assert sys.argv[3] in str(error), error
else:
    raise AssertionError("the link runs without shared memory")
channel = mycelium.connect(sys.argv[1], name="strict")
assert (channel.transport, channel.fallback_code) == ("socket", sys.argv[4]), channel
channel.close()
print("done")
"#;
    for (word, reason, code) in [
        ("map", "MYCELIUM_DISABLE contains map", "MAP_FAILED"),
        ("shm", "MYCELIUM_DISABLE contains shm", "DISABLED"),
        (
            "fd-passing",
            "cannot receive file descriptors",
            "FD_PASSING",
        ),
    ] {
        run_python(script, &[&place.address(), word, reason, code]).assert_done();
    }
    bridge.wait_for_log(&["client did not attach"]);
}

#[test]
fn a_worker_that_must_have_shared_memory_is_refused_where_there_is_none() {
    let lines = "transport = \"shm\"\nrestart = \"never\"";
    let place = Place::new().worker("worker", WORKER, lines);
    let mut bridge = BridgeProcess::start(&place, Some("memfd"));
    bridge.wait_for_log(&["worker did not attach", "SHM_REQUIRED", "MEMFD_UNAVAILABLE"]);
    assert_eq!(bridge.wait().code(), Some(1), "{}", bridge.log());
    bridge.wait_for_log(&["bridge stopped", "failed=worker"]);
    assert!(
        place.lines("link").is_empty(),
        "the worker was never attached"
    );
}

#[test]
fn sleeping_sides_wake_one_another_over_the_transport_that_is_to_be_had() {
    let place = Place::new().bridge("spin_us = 0").worker(
        "worker",
        WORKER,
        "subscribe = [\"Quote\"]\nspin_us = 0",
    );
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    for sequence in 1..=3_000 {
        publish(&mut actor, &quote(sequence));
        assert_eq!(expect::<Signal>(&mut actor).quote_sequence, sequence);
    }
    let status = bridge.link("worker").expect("the worker's link");
    assert_eq!(status.transport, Some(expected_transport()));
    let line = place.first_line("link");
    let fencing = if is_disabled("membarrier") {
        "fenced"
    } else {
        "asymmetric"
    };
    assert!(line.contains(fencing), "{line}");
    assert!(
        bridge.snapshot().expect("counters").parks > 0,
        "the data plane slept"
    );
    assert!(
        actor.recv(Some(Duration::ZERO)).is_err(),
        "nothing more came"
    );
}
