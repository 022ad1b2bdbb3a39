//! Workers that hang, that never attach, and that start in an order: real processes, and conditions rather than times.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::event_loop::{WorkerPhase, WorkerStatus};
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, publish, quote, subscribe, wait_for, wait_until,
};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use shm_transport::channel::{Channel, ConnectOptions};

/// Answers every quote.
const ECHO: &str = r#"
import os, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

/// Reads quotes and says nothing.
const LISTENER: &str = r#"
import mycelium
with mycelium.connect() as channel:
    for _ in channel:
        pass
"#;

fn worker(bridge: &Bridge, name: &str) -> WorkerStatus {
    bridge.worker(name).expect("a worker of the configuration")
}

fn wait_for_phase(bridge: &Bridge, name: &str, phase: WorkerPhase) -> WorkerStatus {
    wait_for(&format!("{name} in phase {phase}"), || {
        Some(worker(bridge, name)).filter(|status| status.phase == phase)
    })
}

fn wait_for_stalls(bridge: &Bridge, name: &str, stalls: u64) {
    wait_until(&format!("{stalls} stalls of {name}"), || {
        worker(bridge, name).stalls >= stalls
    });
}

fn stop(status: &WorkerStatus) {
    let pid = status.pid.expect("a process");
    kill(Pid::from_raw(pid.cast_signed()), Sig::SIGSTOP).expect("the worker is there");
}

fn attach(bridge: &Bridge) -> LocalChannel {
    let actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(bridge, &actor);
    actor
}

fn a_stopped_worker_is_killed_and_its_successor_goes_on(transport: &str) {
    let keys = format!(
        "subscribe = [\"Quote\"]\nstall_timeout_ms = 1000\nrestart_backoff_ms = 1\ntransport = {transport:?}"
    );
    let place = Place::new().worker("echo", ECHO, &keys);
    let bridge = place.start();
    let mut actor = attach(&bridge);
    publish(&mut actor, &quote(1));
    assert_eq!(expect::<Signal>(&mut actor).quote_sequence, 1);
    let first = wait_for_phase(&bridge, "echo", WorkerPhase::Up);
    stop(&first);
    for sequence in 2..=5 {
        publish(&mut actor, &quote(sequence));
    }
    // What had come before the stop may come again.
    let mut answered = 1;
    while answered < 5 {
        answered = expect::<Signal>(&mut actor).quote_sequence;
    }
    let second = worker(&bridge, "echo");
    assert_eq!((second.stalls, second.starts), (1, 2));
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.last_end.as_deref(), Some("signal: 9 (SIGKILL)"));
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_stopped_worker_is_killed_and_its_successor_goes_on_with_what_waits() {
    a_stopped_worker_is_killed_and_its_successor_goes_on("auto");
}

#[test]
fn a_stopped_worker_is_killed_and_its_successor_goes_on_over_the_socket() {
    a_stopped_worker_is_killed_and_its_successor_goes_on("socket");
}

#[test]
fn a_worker_that_never_comes_back_from_a_message_is_killed_as_often_as_it_hangs() {
    let script = r#"
import mycelium
with mycelium.connect() as channel:
    for quote in channel:
        while True:
            pass
"#;
    let keys = "subscribe = [\"Quote\"]\nstall_timeout_ms = 100\nrestart_backoff_ms = 1\nrestart_limit = 3";
    let place = Place::new().worker("hung", script, keys);
    let bridge = place.start();
    let mut actor = attach(&bridge);
    publish(&mut actor, &quote(1));
    let ended = wait_for(
        "a worker that is given up, or done without the frame",
        || Some(worker(&bridge, "hung")).filter(|status| status.stalls >= 2),
    );
    assert!(ended.stalls >= 2, "{ended:?}");
}

/// Publishes more than there is room for, then says so; there is nobody to read it.
const TALKER: &str = r#"
import pathlib, mycelium
from mycelium.messages import Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        for number in range(1000):
            signals.send(Signal(worker=channel.name, quote_sequence=number, side=Side.HOLD))
        (pathlib.Path(__file__).with_name("sent")).write_text("all\n")
"#;

#[test]
fn a_worker_that_waits_for_room_or_has_nothing_to_do_does_not_hang() {
    for transport in ["auto", "socket"] {
        let keys = format!(
            "stall_timeout_ms = 500\nrestart_backoff_ms = 1\nring_capacity = \"4KiB\"\ntransport = {transport:?}"
        );
        let subscribed = format!("subscribe = [\"Quote\"]\n{keys}");
        let place = Place::new()
            .bridge("ring_capacity = \"4KiB\"")
            .worker("talker", TALKER, &subscribed)
            .worker("idle", ECHO, &keys)
            .worker("hung", LISTENER, &subscribed);
        let bridge = place.start();
        for name in ["talker", "idle", "hung"] {
            wait_for_phase(&bridge, name, WorkerPhase::Up);
        }
        let mut actor = attach(&bridge);
        // Over and above the one that the talker never comes back from.
        publish(&mut actor, &quote(1));
        publish(&mut actor, &quote(2));
        wait_until("a talker that waits for room", || {
            let snapshot = bridge.snapshot().expect("counters");
            let link = bridge.link("actor").expect("the actor's link").link;
            let mut links = snapshot.links.iter();
            links.any(|(id, counters)| *id == link && counters.stalls > 0)
        });
        // As a measure of time: the third one is found to hang twice.
        for stalls in 1..=2 {
            stop(&wait_for_phase(&bridge, "hung", WorkerPhase::Up));
            publish(&mut actor, &quote(2 + stalls));
            wait_for_stalls(&bridge, "hung", stalls);
            wait_until("its successor", || worker(&bridge, "hung").starts > stalls);
        }
        for name in ["talker", "idle"] {
            let status = worker(&bridge, name);
            assert_eq!((status.stalls, status.starts), (0, 1), "{status:?}");
        }
        // The talker goes on as soon as there is room.
        while place.lines("sent").is_empty() {
            let _: Signal = expect(&mut actor);
        }
    }
}

/// Two workers that answer everything with more than one frame, so both rings fill up sooner or later. `left` numbers its
/// quotes from 1000 on and notes how far it has come, and so does `right` with what it sees.
fn chatterers(left: &str, restart_of_left: &str) -> Place {
    let quotes = format!(
        r#"
import mycelium, os, pathlib, sys
from mycelium.messages import Quote, Signal
place = pathlib.Path(__file__).parent
{left}
notes = os.open(place / "sent", os.O_RDWR | os.O_CREAT)
number = 1000
with mycelium.connect() as channel:
    publisher = channel.publisher(Quote)
    channel.subscribe(Signal)
    for message in channel:
        for _ in range(2 if channel.epoch == 1 else 0):
            publisher.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))
            number += 1
            os.pwrite(notes, str(number).encode(), 0)
"#
    );
    let signals = r#"
import mycelium, os, pathlib
from mycelium.messages import Quote, Side, Signal
notes = os.open(pathlib.Path(__file__).parent / "seen", os.O_RDWR | os.O_CREAT)
expected = 1000
with mycelium.connect() as channel:
    publisher = channel.publisher(Signal)
    channel.subscribe(Quote)
    for message in channel:
        if message.sequence >= 1000:
            assert message.sequence == expected
            expected += 1
            os.pwrite(notes, str(expected).encode(), 0)
        for _ in range(2):
            publisher.send(Signal(worker="it", quote_sequence=1, side=Side.HOLD))
"#;
    let keys = "ready = \"subscribed\"\nring_capacity = \"4KiB\"\nstall_timeout_ms = 1000";
    Place::new()
        .listening()
        .worker("left", &quotes, &format!("{keys}\n{restart_of_left}"))
        .worker("right", signals, keys)
}

#[test]
fn of_workers_that_wait_for_each_other_one_is_killed_and_the_other_goes_on() {
    let fails_later = "(place / 'sent').exists() and sys.exit(3)";
    for (left, restart, goes_on) in [
        ("", "restart_backoff_ms = 1", true),
        ("", "restart = \"never\"", false),
        (
            fails_later,
            "restart_limit = 2\nrestart_backoff_ms = 1",
            false,
        ),
    ] {
        let place = chatterers(left, restart);
        let mut bridge = BridgeProcess::listening(&place, None);
        for name in ["left", "right"] {
            bridge.wait_for_log(&["worker is up", name]);
        }
        let options = ConnectOptions::for_contracts(&CONTRACTS);
        let mut client = Channel::connect(&place.address(), &options).expect("connect");
        client.advertise::<Quote>().expect("advertise");
        client.publish(&quote(1), Some(WATCHDOG)).expect("publish");
        bridge.wait_for_log(&["workers wait for room at each other", "waiting=left,right"]);
        bridge.wait_for_log(&["worker failed", "left", "signal: 9 (SIGKILL)"]);
        if goes_on {
            // The successor reads and says nothing, so the other one gets rid of what it had to say.
            bridge.wait_for_log(&["worker is up", "left", "incarnation=2"]);
        } else {
            bridge.wait_for_log(&["worker is given up", "left"]);
        }
        let note = |name| {
            let text = std::fs::read_to_string(place.path().join(name)).ok()?;
            text.parse::<u64>().ok()
        };
        wait_until("all quotes of the dead one", || {
            note("seen") >= note("sent")
        });
        client.close().expect("close");
        bridge.signal(Sig::SIGTERM);
        assert_eq!(
            bridge.wait().code(),
            Some(i32::from(!goes_on)),
            "{}",
            bridge.log()
        );
        assert_eq!(
            bridge.log().matches("killing one of them").count(),
            1,
            "{}",
            bridge.log()
        );
    }
}

#[test]
fn a_worker_that_does_not_attach_in_time_is_killed_and_restarted() {
    let script = r#"
import pathlib, sys, time
place = pathlib.Path(__file__).parent
if not (place / "tried").exists():
    (place / "tried").write_text("yes\n")
    while True:
        time.sleep(1)
import mycelium
with mycelium.connect() as channel:
    for _ in channel:
        pass
"#;
    let place = Place::new().worker(
        "late",
        script,
        // Long enough for a busy machine to start Python and connect.
        "attach_timeout_ms = 5000\nrestart_backoff_ms = 1",
    );
    let bridge = place.start();
    assert_eq!(place.first_line("tried"), "yes");
    let up = wait_for_phase(&bridge, "late", WorkerPhase::Up);
    assert_eq!(up.starts, 2);
    assert_eq!(up.last_end.as_deref(), Some("signal: 9 (SIGKILL)"));
}

#[test]
fn a_worker_that_ends_before_its_handshake_is_logged_with_how_it_ended() {
    let place = Place::new()
        .listening()
        .worker("broken", "raise SystemExit(7)", "restart = \"never\"")
        .worker("job", "print('done')", "")
        .worker(
            "deaf",
            "import os, time\nos.close(int(os.environ['MYCELIUM_FD']))\nwhile True: time.sleep(1)",
            "restart = \"never\"",
        );
    let mut bridge = BridgeProcess::listening(&place, None);
    bridge.wait_for_log(&[
        "worker failed before it attached",
        "broken",
        "exit status: 7",
    ]);
    bridge.wait_for_log(&["worker exited", "job", "exit status: 0"]);
    // It has closed its connection and stays.
    bridge.wait_for_log(&["worker did not attach", "deaf"]);
    bridge.wait_for_log(&["killing the worker", "deaf"]);
    bridge.wait_for_log(&[
        "worker failed before it attached",
        "deaf",
        "signal: 9 (SIGKILL)",
    ]);
    let log = bridge.log();
    for what in ["worker did not attach", "killing the worker"] {
        assert_eq!(log.matches(what).count(), 1, "{log}");
    }
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(1), "workers failed for good");
}

#[test]
fn the_back_off_begins_anew_after_a_run_that_stayed_attached() {
    // Fails at once three times, then stays for longer than the longest delay, and fails again.
    let script = r#"
import pathlib, time, mycelium
place = pathlib.Path(__file__).parent
with (place / "runs").open("a") as runs:
    runs.write("run\n")
number = len((place / "runs").read_text().splitlines())
if number == 4:
    with mycelium.connect() as channel:
        time.sleep(0.6)
        raise SystemExit(1)
raise SystemExit(1)
"#;
    let keys = "restart_backoff_ms = 50\nrestart_backoff_max_ms = 400\nrestart_limit = 5";
    let place = Place::new().listening().worker("unsteady", script, keys);
    let mut bridge = BridgeProcess::listening(&place, None);
    bridge.wait_for_log(&["worker is given up", "unsteady", "crashes=5"]);
    let log = bridge.log();
    let delay = |line: &str| {
        let (_, rest) = line.split_once("restart_after_ms=")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    let delays: Vec<_> = log.lines().filter_map(delay).collect();
    let [first, second, third, anew] = delays[..] else {
        panic!("four restarts: {delays:?} {log}");
    };
    for (delay, longest) in [(first, 50), (second, 100), (third, 200), (anew, 50)] {
        // Shortened by up to a half, and cut to whole milliseconds.
        assert!((longest / 2 - 1..=longest).contains(&delay), "{delays:?}");
    }
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(1));
}

/// Subscribes only after a file has appeared.
const GATED: &str = r#"
import pathlib, time, mycelium
from mycelium.messages import Quote
place = pathlib.Path(__file__).parent
with mycelium.connect() as channel:
    (place / f"{channel.name}.attached").write_text("yes\n")
    while not (place / "gate").exists():
        time.sleep(0.005)
    channel.subscribe(Quote)
    for _ in channel:
        pass
"#;

#[test]
fn a_worker_starts_when_those_before_it_are_up() {
    let place = Place::new()
        .worker("third", ECHO, "after = [\"second\", \"job\"]")
        .worker("second", ECHO, "after = [\"first\"]")
        .worker("first", GATED, "ready = \"subscribed\"")
        .worker("job", "print('done')", "");
    let bridge = place.start();
    assert_eq!(place.first_line("first.attached"), "yes");
    wait_for_phase(&bridge, "job", WorkerPhase::Stopped);
    assert_eq!(worker(&bridge, "first").phase, WorkerPhase::Starting);
    for name in ["second", "third"] {
        let status = worker(&bridge, name);
        assert_eq!((status.phase, status.starts), (WorkerPhase::Waiting, 0));
    }
    std::fs::write(place.path().join("gate"), "open").expect("write");
    wait_for_phase(&bridge, "third", WorkerPhase::Up);
    for name in ["first", "second"] {
        assert_eq!(worker(&bridge, name).phase, WorkerPhase::Up);
    }
    let names: Vec<_> = bridge.workers().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["third", "second", "first", "job"]);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_worker_whose_predecessor_fails_for_good_is_never_started() {
    let place = Place::new()
        .worker("last", ECHO, "after = [\"middle\"]")
        .worker("middle", ECHO, "after = [\"broken\"]")
        .worker("broken", "raise SystemExit(3)", "restart = \"never\"");
    let bridge = place.start();
    for name in ["broken", "middle", "last"] {
        wait_for_phase(&bridge, name, WorkerPhase::GaveUp);
    }
    assert_eq!(
        worker(&bridge, "broken").last_end.as_deref(),
        Some("exit status: 3")
    );
    assert_eq!(worker(&bridge, "last").starts, 0);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.failed, ["last", "middle", "broken"]);
    assert_eq!(summary.exit_code(), 1);
}

#[test]
fn a_worker_that_waits_is_stopped_with_the_bridge() {
    let place = Place::new()
        .worker("second", ECHO, "after = [\"first\"]")
        .worker("first", GATED, "ready = \"subscribed\"");
    let bridge = place.start();
    assert_eq!(place.first_line("first.attached"), "yes");
    std::fs::write(place.path().join("gate"), "open").expect("write");
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.exit_code(), summary.workers_left),
        (0, 0),
        "{summary}"
    );
}

#[test]
fn quotes_for_a_worker_that_waits_are_kept() {
    let place = Place::new()
        .worker(
            "second",
            ECHO,
            "after = [\"first\"]\nsubscribe = [\"Quote\"]",
        )
        .worker("first", GATED, "ready = \"subscribed\"");
    let bridge = place.start();
    let mut actor = attach(&bridge);
    assert_eq!(place.first_line("first.attached"), "yes");
    publish::<Quote>(&mut actor, &quote(7));
    assert_eq!(worker(&bridge, "second").phase, WorkerPhase::Waiting);
    std::fs::write(place.path().join("gate"), "open").expect("write");
    let signal: Signal = actor
        .recv(Some(WATCHDOG))
        .expect("an answer")
        .read()
        .expect("a signal");
    assert_eq!(signal.quote_sequence, 7);
}
