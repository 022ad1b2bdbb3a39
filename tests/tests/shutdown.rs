//! The end of a bridge: what was published before it is delivered, and who does not leave is made to.

use std::time::{Duration, Instant};

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::local::LocalChannel;
use mycelium_bridge::shutdown::SAME_REQUEST;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, publish, quote, subscribe, wait_for, wait_until,
};
use nix::sys::signal::Signal as Sig;
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};
use shm_transport::error::ChannelError;

/// Writes down what it got once it has left the loop, and answers everything.
const WORKER: &str = r#"
import pathlib, time, mycelium
from mycelium.messages import Quote, Side, Signal
got = []
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        time.sleep(channel.settings.get("pause_s", 0))
        got.append(quote.sequence)
        signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
    in_order = got == list(range(1, len(got) + 1))
    pathlib.Path(__file__).with_name("got").write_text(f"{len(got)} {in_order} {channel.transport}\n")
"#;

fn start(script: &str, lines: &str) -> (Place, Bridge, LocalChannel) {
    let place = Place::new().listening().worker(
        "worker",
        script,
        &format!("subscribe = [\"Quote\"]\n{lines}"),
    );
    let bridge = place.start();
    let actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    (place, bridge, actor)
}

fn what_was_published_before_is_delivered(lines: &str) {
    const QUOTES: u64 = 2_000;
    let (place, bridge, mut actor) = start(WORKER, lines);
    // The worker is there, and has read nothing of what follows when the bridge is told to stop.
    publish(&mut actor, &quote(1));
    let first: Signal = expect(&mut actor);
    assert_eq!(first.quote_sequence, 1);
    for sequence in 2..=QUOTES {
        publish(&mut actor, &quote(sequence));
    }
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!((summary.exit_code(), summary.drained), (0, 1), "{summary}");
    let got = place.first_line("got");
    assert!(got.starts_with(&format!("{QUOTES} True ")), "{got}");
    // The answers that the worker gave in its last moments are in the actor's ring.
    for sequence in 2..=QUOTES {
        let signal: Signal = expect(&mut actor);
        assert_eq!(signal.quote_sequence, sequence);
    }
}

#[test]
fn what_was_published_before_the_shutdown_is_delivered() {
    what_was_published_before_is_delivered("");
}

#[test]
fn what_was_published_before_the_shutdown_is_delivered_over_the_socket() {
    what_was_published_before_is_delivered("transport = \"socket\"");
}

#[test]
fn what_was_published_before_the_shutdown_is_delivered_through_a_ring_that_is_full() {
    what_was_published_before_is_delivered("ring_capacity = \"4KiB\"");
}

#[test]
fn what_was_published_before_the_shutdown_is_delivered_through_a_full_ring_and_the_socket() {
    what_was_published_before_is_delivered("ring_capacity = \"4KiB\"\ntransport = \"socket\"");
}

#[test]
fn a_slow_worker_gets_what_was_published_within_the_deadline() {
    let (place, bridge, mut actor) = start(
        WORKER,
        "ring_capacity = \"4KiB\"\n[worker.settings]\npause_s = 0.002",
    );
    for sequence in 1..=200 {
        publish(&mut actor, &quote(sequence));
    }
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
    assert!(place.first_line("got").starts_with("200 True "));
}

#[test]
fn a_client_reads_what_was_sent_before_and_then_the_reason() {
    for request in [TransportRequest::Auto, TransportRequest::Socket] {
        let place = Place::new().listening();
        let bridge = place.start();
        let mut actor = bridge.attach("actor").expect("attach");
        let options = ConnectOptions::for_contracts(&CONTRACTS)
            .named("client")
            .over(request);
        let mut client = Channel::connect(&place.address(), &options).expect("connect");
        client.subscribe::<Quote>().expect("subscribe");
        for sequence in 1..=300 {
            publish(&mut actor, &quote(sequence));
        }
        let reader = std::thread::spawn(move || {
            let mut got = 0;
            loop {
                match client.recv(Some(WATCHDOG)) {
                    Ok(frame) => {
                        got += 1;
                        assert_eq!(frame.read::<Quote>().expect("a quote"), quote(got));
                    }
                    Err(ChannelError::Closed { reason }) => {
                        client.close().expect("close");
                        return (got, reason);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let summary = bridge.shut_down().expect("control plane");
        assert_eq!(
            (summary.exit_code(), summary.clients_cut),
            (0, 0),
            "{summary}"
        );
        let (got, reason) = reader.join().expect("the reader");
        assert_eq!(
            (got, reason.as_str()),
            (300, "the host of the bridge is done with it")
        );
    }
}

#[test]
fn a_client_that_does_not_leave_is_cut_off() {
    let place = Place::new().listening().bridge("shutdown_timeout_ms = 100");
    let bridge = place.start();
    let options = ConnectOptions::for_contracts(&CONTRACTS).named("client");
    let mut client = Channel::connect(&place.address(), &options).expect("connect");
    wait_for("the client's link", || bridge.link("client")?.transport);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.exit_code(), summary.clients_cut),
        (1, 1),
        "{summary}"
    );
    assert!(matches!(
        client.recv(Some(WATCHDOG)),
        Err(ChannelError::Closed { .. })
    ));
}

/// A worker that says when it is ready, and ignores what the bridge says from there on.
fn stubborn(prepare: &str) -> String {
    format!(
        r#"
import pathlib, signal, time, mycelium
{prepare}
channel = mycelium.connect()
pathlib.Path(__file__).with_name("ready").write_text("yes\n")
while True:
    time.sleep(0.05)
"#
    )
}

fn end_of(script: &str) -> (Place, mycelium_bridge::shutdown::Summary) {
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 100")
        .worker("stubborn", script, "");
    let bridge = place.start();
    assert_eq!(place.first_line("ready"), "yes");
    let summary = bridge.shut_down().expect("control plane");
    (place, summary)
}

#[test]
fn a_worker_that_ignores_the_shutdown_is_terminated() {
    let (_place, summary) = end_of(&stubborn(""));
    assert_eq!(
        (
            summary.drained,
            summary.terminated,
            summary.killed,
            summary.workers_left
        ),
        (0, 1, 0, 0)
    );
    assert_eq!(summary.exit_code(), 1);
    assert!(summary.duration >= Duration::from_millis(100));
}

#[test]
fn a_worker_that_ignores_the_shutdown_and_sigterm_is_killed() {
    let (_place, summary) = end_of(&stubborn("signal.signal(signal.SIGTERM, signal.SIG_IGN)"));
    assert_eq!(
        (
            summary.drained,
            summary.terminated,
            summary.killed,
            summary.workers_left
        ),
        (0, 0, 1, 0)
    );
    assert_eq!(summary.exit_code(), 1);
}

#[test]
fn the_program_says_with_its_exit_code_that_it_had_to_use_force() {
    let place =
        Place::new()
            .bridge("shutdown_timeout_ms = 100")
            .worker("stubborn", &stubborn(""), "");
    let mut bridge = BridgeProcess::start(&place, None);
    assert_eq!(place.first_line("ready"), "yes");
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(1));
    bridge.wait_for_log(&[
        "ending a worker that has not ended by itself",
        "stubborn",
        "SIGTERM",
    ]);
    bridge.wait_for_log(&["bridge stopped", "terminated=1"]);
}

/// Asks a second time, so late that it is not taken for the first.
fn hurry(bridge: &BridgeProcess) {
    let asked = Instant::now();
    wait_until("a request of its own", || asked.elapsed() > SAME_REQUEST);
    bridge.signal(Sig::SIGTERM);
}

#[test]
fn a_second_signal_hurries() {
    let place =
        Place::new()
            .bridge("shutdown_timeout_ms = 3600000")
            .worker("stubborn", &stubborn(""), "");
    let mut bridge = BridgeProcess::start(&place, None);
    assert_eq!(place.first_line("ready"), "yes");
    bridge.signal(Sig::SIGTERM);
    bridge.wait_for_log(&["bridge is asked to stop"]);
    hurry(&bridge);
    assert_eq!(bridge.wait().code(), Some(1));
    bridge.wait_for_log(&["bridge stopped", "terminated=1"]);
}

/// As `timeout` does it, which signals the process and its group.
#[test]
fn two_signals_at_once_take_no_time_from_the_workers() {
    let script = "
import pathlib, time, mycelium
with mycelium.connect() as channel:
    pathlib.Path(__file__).with_name('ready').write_text('yes\\n')
    for _ in channel:
        pass
    time.sleep(1)
";
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 3600000")
        .worker("slow", script, "");
    let mut bridge = BridgeProcess::start(&place, None);
    assert_eq!(place.first_line("ready"), "yes");
    bridge.signal(Sig::SIGTERM);
    bridge.signal(Sig::SIGINT);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
    bridge.wait_for_log(&["bridge stopped", "drained=1"]);
}

#[test]
fn a_program_whose_workers_are_done_ends_by_itself() {
    for (script, code) in [("pass", 0), ("raise SystemExit(7)", 1)] {
        let place = Place::new().worker("short", script, "restart = \"never\"");
        let mut bridge = BridgeProcess::start(&place, None);
        assert_eq!(bridge.wait().code(), Some(code), "{}", bridge.log());
        bridge.wait_for_log(&[
            "bridge stopped",
            "every worker has ended and nobody can connect",
        ]);
    }
}

#[test]
fn a_handshake_during_the_shutdown_is_refused() {
    let place = Place::new()
        .listening()
        .bridge("shutdown_timeout_ms = 3600000")
        .worker("stubborn", &stubborn(""), "");
    let mut bridge = BridgeProcess::listening(&place, None);
    assert_eq!(place.first_line("ready"), "yes");
    // Connected before the shutdown, silent until after it.
    let waiting = std::os::unix::net::UnixStream::connect(place.socket()).expect("connect");
    let options = ConnectOptions::for_contracts(&CONTRACTS);
    // An answered handshake shows that the bridge has taken the connection before it, too.
    let answered = Channel::connect(&place.address(), &options).expect("connect");
    answered.close().expect("close");
    bridge.signal(Sig::SIGTERM);
    bridge.wait_for_log(&["bridge is asked to stop"]);
    let error = Channel::from_stream(waiting, &options)
        .expect_err("a refusal")
        .to_string();
    assert!(
        error.contains("SHUTTING_DOWN") && error.contains("connect again later"),
        "{error}"
    );
    hurry(&bridge);
    assert_eq!(bridge.wait().code(), Some(1));
}

#[test]
fn what_a_worker_has_not_acknowledged_in_the_end_is_reported_by_message() {
    let worker = r#"
import time, mycelium
with mycelium.connect() as channel:
    quote = next(iter(channel))
    time.sleep(1000)
"#;
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 1")
        .listening()
        .worker("worker", worker, "subscribe = [\"Quote\"]");
    let mut bridge = BridgeProcess::listening(&place, None);
    let connect = |name: &str| {
        let options = ConnectOptions::for_contracts(&CONTRACTS).named(name);
        Channel::connect(&place.address(), &options).expect("connect")
    };
    let (mut publisher, mut reader) = (connect("publisher"), connect("reader"));
    reader.subscribe::<Quote>().expect("subscribe");
    for sequence in 1..=6 {
        publisher
            .publish(&quote(sequence), Some(WATCHDOG))
            .expect("publish");
        // A frame goes to all subscribers before the next one.
        let got: Quote = reader
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a quote");
        assert_eq!(got.sequence, sequence);
    }
    drop((publisher, reader));
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(1));
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("undelivered_bytes"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["worker", "undelivered_frames=6", "Quote=6"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(log.contains("clients_cut=0, undelivered=6, "), "{log}");
}
