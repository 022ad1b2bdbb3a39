//! The examples of the Python SDK as workers and clients of a real bridge.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mycelium_messages::bandit::{Quote, Side, Signal, SignalFields};
use mycelium_tests::{
    Place, TOKEN, expect, publish, python, quote, repository, subscribe, wait_for, wait_until,
};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn example(name: &str) -> PathBuf {
    repository().join("python-sdk/examples").join(name)
}

/// A quote whose mid price is this.
fn at(sequence: u64, price: f64) -> Quote {
    let mut quote = quote(sequence);
    (quote.bid, quote.ask) = (price - 1e-5, price + 1e-5);
    quote
}

#[test]
fn strategies_answer_what_they_are_there_for() {
    let place = Place::new()
        .worker_file(
            "momentum",
            &example("momentum.py"),
            "subscribe = [\"Quote\"]\n[worker.settings]\nfast = 4\nslow = 16\n",
        )
        .worker_file(
            "reversion",
            &example("mean_reversion.py"),
            "subscribe = [\"Quote\"]\n[worker.settings]\nwindow = 50\nenter = 5.0\n",
        );
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    // Neither rises nor deviates, and then jumps.
    for sequence in 1..=200 {
        let noise = if sequence % 2 == 0 { 1e-6 } else { -1e-6 };
        publish(&mut actor, &at(sequence, 1.1 + noise));
    }
    publish(&mut actor, &at(201, 1.2));
    let mut told = vec![];
    for _ in 0..2 {
        let signal: Signal = expect(&mut actor);
        let worker = signal.worker.as_str().expect("text").to_owned();
        told.push((worker, signal.quote_sequence, signal.side));
    }
    told.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(
        told,
        [
            ("momentum".to_owned(), 201, Side::BUY),
            ("reversion".to_owned(), 201, Side::SELL)
        ]
    );
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn the_bandit_counts_no_signal_twice_when_it_is_killed() {
    const SIGNALS: u64 = 6_000;
    const IN_FLIGHT: u64 = 500;
    const KILLS: u64 = 3;
    let place = Place::new();
    let state = place.path().join("state.json");
    let lines = format!(
        "subscribe = [\"Signal\"]\nring_capacity = \"64KiB\"\nrestart_backoff_ms = 1\n\
         restart_backoff_max_ms = 20\n[worker.settings]\nstate_file = {state:?}\n"
    );
    let place = place.worker_file("bandit", &example("bandit.py"), &lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let (mut sent, mut decided, mut killed) = (0, 0, 0);
    while decided < SIGNALS {
        if sent < SIGNALS && sent < decided + IN_FLIGHT {
            sent += 1;
            let signal = Signal::new(SignalFields {
                worker: "right",
                quote_sequence: sent,
                quote_timestamp_ns: 0,
                strength: 1.0,
                price: 1.0 + sent as f64 * 1e-3,
                side: Side::BUY,
            });
            publish(&mut actor, &signal.expect("valid"));
            continue;
        }
        let decision: Signal = expect(&mut actor);
        assert_eq!(decision.worker.as_str(), Ok("bandit"));
        assert!(decision.quote_sequence <= decided + 1, "lost one");
        decided = decided.max(decision.quote_sequence);
        if killed < KILLS && decided > (killed + 1) * SIGNALS / (KILLS + 1) {
            let pid = wait_for("the bandit's process", || bridge.link("bandit")?.pid);
            kill(Pid::from_raw(pid.cast_signed()), Sig::SIGKILL).expect("the bandit is there");
            killed += 1;
        }
    }
    let arm = |field: &str| {
        let text = std::fs::read_to_string(&state).unwrap_or_default();
        let arms: Value = serde_json::from_str(&text).unwrap_or_default();
        arms["right"][field].as_u64()
    };
    wait_until("the last signal in the state", || {
        arm("sequence") == Some(SIGNALS)
    });
    assert_eq!(
        (arm("right"), arm("wrong")),
        (Some(SIGNALS - 1), Some(0)),
        "each signal but the last is settled once"
    );
    let status = bridge.link("bandit").expect("the worker's link");
    assert_eq!((killed, status.epoch), (KILLS, KILLS + 1));
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_remote_client_prints_what_a_strategy_says() {
    let place = Place::new().port("").worker_file(
        "momentum",
        &example("momentum.py"),
        "subscribe = [\"Quote\"]\n[worker.settings]\nfast = 4\nslow = 16\n",
    );
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut client = Command::new(python())
        .arg(example("remote_client.py"))
        .arg(bridge.addresses()[0].to_string())
        .env("MYCELIUM_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start Python");
    let mut output = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut line = || output.next().map(|line| line.expect("text"));
    let first = line().expect("a first line");
    assert!(
        first.starts_with("connected: ") && first.ends_with("transport=socket"),
        "{first}"
    );
    for sequence in 1..=20 {
        publish(&mut actor, &at(sequence, 1.1 + sequence as f64 * 1e-3));
    }
    let told = line().expect("a signal");
    assert!(told.contains(" momentum BUY 1.1"), "{told}");
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
    assert_eq!(line(), None);
    assert_eq!(client.wait().expect("the client's end").code(), Some(0));
}
