//! A Rust actor publishes quotes, a Python worker answers each with a signal.

use mycelium_messages::bandit::{Quote, Side, Signal};
use mycelium_tests::{Place, expect, expected_transport, publish, quote, repository, wait_for};
use shm_transport::channel::Transport;

fn echo(lines: &str) -> Place {
    let script = repository().join("python-sdk/examples/echo.py");
    Place::new().worker_file(
        "echo",
        &script,
        &format!("subscribe = [\"Quote\"]\n{lines}"),
    )
}

fn every_quote_is_answered_in_order(place: &Place, transport: Transport) {
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    actor.subscribe::<Signal>().expect("subscribe");
    const QUOTES: u64 = 20_000;
    let mut answered = 0;
    for sequence in 1..=QUOTES {
        let sent = quote(sequence);
        publish(&mut actor, &sent);
        // Keep some hundred in flight, so that the ring fills and wraps.
        if sequence >= 500 {
            answered += 1;
            check(&quote(answered), &expect(&mut actor));
        }
    }
    while answered < QUOTES {
        answered += 1;
        check(&quote(answered), &expect(&mut actor));
    }
    let status = bridge.link("echo").expect("the worker has a link");
    assert_eq!((status.transport, status.epoch), (Some(transport), 1));
    assert_eq!(status.fallback.is_some(), transport == Transport::Socket);
    drop(actor);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

fn check(quote: &Quote, signal: &Signal) {
    assert_eq!(signal.quote_sequence, quote.sequence);
    assert_eq!(signal.quote_timestamp_ns, quote.timestamp_ns);
    assert_eq!(
        signal.price.to_bits(),
        ((quote.bid + quote.ask) / 2.0).to_bits()
    );
    assert_eq!(
        (signal.worker.as_str().expect("text"), signal.side),
        ("echo", Side::HOLD)
    );
}

#[test]
fn every_quote_is_answered_over_the_transport_that_is_to_be_had() {
    every_quote_is_answered_in_order(&echo(""), expected_transport());
}

#[test]
fn every_quote_is_answered_over_the_socket() {
    every_quote_is_answered_in_order(&echo("transport = \"socket\""), Transport::Socket);
}

#[test]
fn every_quote_is_answered_over_the_smallest_ring() {
    every_quote_is_answered_in_order(&echo("ring_capacity = \"4KiB\""), expected_transport());
}

#[test]
fn quotes_published_before_the_worker_runs_are_kept_for_it() {
    let place = echo("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    actor.subscribe::<Signal>().expect("subscribe");
    publish(&mut actor, &quote(1));
    let signal: Signal = expect(&mut actor);
    assert_eq!(signal.quote_sequence, 1);
    wait_for("the worker's transport", || {
        bridge.link("echo").expect("link").transport
    });
}
