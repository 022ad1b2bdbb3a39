//! What the bridge takes from its peers at once, and where the rings of a link lie.

use std::os::unix::net::UnixStream;

use mycelium_messages::bandit::Signal;
use mycelium_tests::{
    Place, WATCHDOG, expect, expected_transport, publish, quote, subscribe, wait_for,
};
use shm_transport::channel::{Channel, ConnectOptions, Transport};
use shm_transport::error::HandshakeError;

#[test]
fn clients_beyond_the_limit_of_open_handshakes_are_refused_with_the_number_and_counted() {
    let place = Place::new()
        .listening()
        .bridge("max_pending_handshakes = 2");
    let bridge = place.start();
    let options = ConnectOptions {
        timeout: WATCHDOG,
        ..ConnectOptions::default()
    };
    let silent: Vec<_> = (0..2)
        .map(|_| UnixStream::connect(place.socket()).expect("connect"))
        .collect();
    // The bridge takes connections in their order, so both are in its hands when the third is answered.
    let error = Channel::connect(&place.address(), &options).expect_err("no slot is free");
    let text = error.to_string();
    assert!(
        matches!(error, HandshakeError::Refused { name: "BUSY", .. })
            && text.contains("max_pending_handshakes=2"),
        "{text}"
    );
    assert_eq!(bridge.refused_busy(), 1);
    drop(silent);
    // Attached peers need no slot. One may still be taken by a peer that has just attached, or has just gone.
    let channels: Vec<_> = (0..5)
        .map(|_| {
            wait_for("a free slot", || {
                Channel::connect(&place.address(), &options).ok()
            })
        })
        .collect();
    drop(channels);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

const ECHO: &str = r#"
import mycelium
from mycelium.messages import Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=channel.transport, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

#[test]
fn a_worker_takes_rings_in_a_file_of_a_directory_like_those_in_a_memory_file() {
    let place = Place::new();
    let directory = place.path().join("rings");
    std::fs::create_dir(&directory).expect("directory");
    let lines = format!(
        "subscribe = [\"Quote\"]\nmemory = {{ directory = {directory:?}, huge_pages = true }}\nring_capacity = \"64KiB\""
    );
    let place = place.worker("echo", ECHO, &lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let disabled = std::env::var("MYCELIUM_DISABLE").unwrap_or_default();
    for sequence in 1..=2000 {
        publish(&mut actor, &quote(sequence));
        let answer: Signal = expect(&mut actor);
        assert_eq!(answer.quote_sequence, sequence);
        if disabled.is_empty() {
            assert_eq!(answer.worker.as_str(), Ok("shm"));
        }
    }
    // A file needs no memfd: this is the remedy where that is forbidden.
    let status = bridge.link("echo").expect("the link");
    if disabled == "memfd" {
        assert_eq!(status.transport, Some(Transport::Shm));
        assert_eq!(expected_transport(), Transport::Socket);
    }
    if status.transport == Some(Transport::Shm) {
        let [degraded] = &status.degraded[..] else {
            panic!(
                "huge pages are too large for these rings: {:?}",
                status.degraded
            )
        };
        assert!(
            degraded.starts_with("huge_pages was given up"),
            "{degraded}"
        );
    }
    assert_eq!(
        std::fs::read_dir(&directory).expect("list").count(),
        0,
        "the file has no name"
    );
    drop(actor);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}
