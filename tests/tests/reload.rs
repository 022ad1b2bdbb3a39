//! A new configuration for a running bridge: only what differs changes, and a wrong one changes nothing.

use std::os::unix::net::UnixStream;

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::event_loop::{ReloadCounters, WorkerPhase, WorkerStatus};
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::Signal;
use mycelium_tests::reload::{edit, reload};
use mycelium_tests::{
    BridgeProcess, Place, expect, publish, quote, repository, subscribe, wait_for, wait_until,
};
use nix::sys::signal::Signal as Sig;

/// Answers every quote, and names what it was started with.
const ECHO: &str = r#"
import os, pathlib, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    mode = os.environ.get("MODE", "-")
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=f"{channel.name}:{channel.epoch}:{mode}", quote_sequence=quote.sequence, side=Side.HOLD))
    with (pathlib.Path(__file__).parent / f"{channel.name}.end").open("a") as end:
        end.write(f"{mode}\n")
"#;

/// Leaves its loop for nothing.
const STUBBORN: &str = r#"
import pathlib, time, mycelium
channel = mycelium.connect()
(pathlib.Path(__file__).parent / "ready").write_text("yes\n")
while True:
    time.sleep(0.05)
"#;

fn up(bridge: &Bridge, name: &str, starts: u64) -> WorkerStatus {
    wait_for(&format!("{name} that is up"), || {
        bridge
            .worker(name)
            .filter(|status| status.phase == WorkerPhase::Up && status.starts == starts)
    })
}

fn attach(bridge: &Bridge) -> LocalChannel {
    let actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(bridge, &actor);
    actor
}

/// Who answers a quote, sorted.
fn answers(actor: &mut LocalChannel, sequence: u64, count: usize) -> Vec<String> {
    publish(actor, &quote(sequence));
    let mut workers: Vec<_> = (0..count)
        .map(|_| {
            let signal: Signal = expect(actor);
            assert_eq!(signal.quote_sequence, sequence);
            signal.worker.as_str().expect("text").to_owned()
        })
        .collect();
    workers.sort();
    workers
}

const SUBSCRIBED: &str = "subscribe = [\"Quote\"]";

#[test]
fn only_workers_that_differ_are_touched_and_a_changed_one_keeps_its_ring() {
    let place = Place::new()
        .worker("keep", ECHO, SUBSCRIBED)
        .worker("gone", ECHO, SUBSCRIBED)
        .worker(
            "change",
            ECHO,
            &format!("{SUBSCRIBED}\nenv = {{ MODE = \"one\" }}"),
        );
    let bridge = place.start();
    let mut actor = attach(&bridge);
    let kept = up(&bridge, "keep", 1);
    let link = bridge.link("change").expect("a link").link;
    up(&bridge, "change", 1);
    up(&bridge, "gone", 1);
    assert_eq!(
        answers(&mut actor, 1, 3),
        ["change:1:one", "gone:1:-", "keep:1:-"]
    );

    edit(&place, |text| {
        let new = text.replace("MODE = \"one\"", "MODE = \"two\"");
        // The script is the same, so the second worker comes back under another name.
        new.replace("name = \"gone\"", "name = \"new\"")
    });
    reload(&bridge);
    up(&bridge, "new", 1);
    up(&bridge, "change", 2);
    wait_until("the end of the removed worker", || {
        bridge.worker("gone").is_none()
    });
    assert_eq!(
        answers(&mut actor, 2, 3),
        ["change:2:two", "keep:1:-", "new:1:-"]
    );
    assert_eq!(
        bridge.link("change").expect("a link").link,
        link,
        "the same rings"
    );
    assert_eq!(up(&bridge, "keep", 1), kept, "nothing happened to it");
    for (file, mode) in [("gone.end", "-"), ("change.end", "one")] {
        assert_eq!(
            place.lines(file),
            [mode],
            "{file}: it left its loop as asked"
        );
    }
    assert_eq!(
        bridge.reloads(),
        ReloadCounters {
            applied: 1,
            refused: 0
        }
    );
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!((summary.exit_code(), summary.workers), (0, 3), "{summary}");
}

#[test]
fn frames_that_wait_for_a_changed_worker_are_delivered_to_its_successor() {
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 100")
        .worker("stubborn", STUBBORN, SUBSCRIBED);
    let bridge = place.start();
    let mut actor = attach(&bridge);
    assert_eq!(place.first_line("ready"), "yes");
    publish(&mut actor, &quote(1));
    std::fs::write(place.path().join("stubborn.py"), ECHO).expect("write");
    edit(&place, |text| {
        text.replace(SUBSCRIBED, &format!("{SUBSCRIBED}\nnice = 1"))
    });
    reload(&bridge);
    // It ignores the request, so it is terminated; what it has not read is still there.
    let signal: Signal = expect(&mut actor);
    assert_eq!(signal.quote_sequence, 1);
    assert_eq!(signal.worker.as_str(), Ok("stubborn:2:-"));
    let status = up(&bridge, "stubborn", 2);
    assert_eq!(status.last_end.as_deref(), Some("signal: 15 (SIGTERM)"));
}

#[test]
fn other_rings_and_other_topics_take_effect_with_the_successor() {
    let place = Place::new().worker("echo", ECHO, "ring_capacity = \"64KiB\"");
    let bridge = place.start();
    let mut actor = attach(&bridge);
    up(&bridge, "echo", 1);
    edit(&place, |text| {
        text.replace("64KiB\"", &format!("64KiB\"\n{SUBSCRIBED}"))
    });
    reload(&bridge);
    up(&bridge, "echo", 2);
    assert_eq!(answers(&mut actor, 1, 1), ["echo:2:-"]);
    let link = bridge.link("echo").expect("a link").link;

    edit(&place, |text| text.replace("64KiB", "128KiB"));
    reload(&bridge);
    up(&bridge, "echo", 3);
    assert_ne!(
        bridge.link("echo").expect("a link").link,
        link,
        "other rings"
    );
    assert_eq!(answers(&mut actor, 2, 1), ["echo:3:-"]);

    edit(&place, |text| text.replace(SUBSCRIBED, ""));
    reload(&bridge);
    up(&bridge, "echo", 4);
    publish(&mut actor, &quote(3));
    edit(&place, |text| {
        text.replace("128KiB\"", &format!("128KiB\"\n{SUBSCRIBED}"))
    });
    reload(&bridge);
    up(&bridge, "echo", 5);
    // The third quote went to nobody.
    assert_eq!(answers(&mut actor, 4, 1), ["echo:5:-"]);
}

#[test]
fn other_contents_of_its_environment_file_restart_a_worker() {
    let place = Place::new().worker("echo", ECHO, &format!("{SUBSCRIBED}\nenv_file = 'secrets'"));
    let file = place.path().join("secrets");
    std::fs::write(&file, "MODE=one\n").expect("write");
    let bridge = place.start();
    let mut actor = attach(&bridge);
    up(&bridge, "echo", 1);
    assert_eq!(answers(&mut actor, 1, 1), ["echo:1:one"]);
    reload(&bridge);
    std::fs::write(&file, "MODE=two\n").expect("write");
    reload(&bridge);
    up(&bridge, "echo", 2);
    assert_eq!(answers(&mut actor, 2, 1), ["echo:2:two"]);
}

#[test]
fn rules_of_a_worker_change_without_a_restart() {
    let place = Place::new().worker("echo", ECHO, SUBSCRIBED);
    let bridge = place.start();
    let mut actor = attach(&bridge);
    let before = up(&bridge, "echo", 1);
    edit(&place, |text| {
        text.replace(
            SUBSCRIBED,
            &format!("{SUBSCRIBED}\nrestart = \"never\"\nstall_timeout_ms = 1000"),
        )
    });
    reload(&bridge);
    assert_eq!(answers(&mut actor, 1, 1), ["echo:1:-"]);
    assert_eq!(up(&bridge, "echo", 1).pid, before.pid);
    let pid = nix::unistd::Pid::from_raw(before.pid.expect("a process").cast_signed());
    nix::sys::signal::kill(pid, Sig::SIGSTOP).expect("the worker is there");
    publish(&mut actor, &quote(2));
    let ended = wait_for("a worker that is given up", || {
        bridge
            .worker("echo")
            .filter(|status| status.phase == WorkerPhase::GaveUp)
    });
    assert_eq!((ended.stalls, ended.starts), (1, 1));

    // A configuration in which it differs gives it another chance.
    edit(&place, |text| {
        text.replace(
            SUBSCRIBED,
            &format!("{SUBSCRIBED}\nenv = {{ MODE = \"again\" }}"),
        )
    });
    reload(&bridge);
    up(&bridge, "echo", 2);
    assert_eq!(answers(&mut actor, 3, 1), ["echo:2:again"]);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_every_error_is_logged() {
    let place = Place::new().listening().worker("echo", ECHO, SUBSCRIBED);
    let mut bridge = BridgeProcess::listening(&place, None);
    bridge.wait_for_log(&["worker is up", "echo"]);
    edit(&place, |text| {
        text.replace(
            SUBSCRIBED,
            "subscribe = [\"Qoute\"]\nrestart = \"sometimes\"\nnice = 99",
        )
    });
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&["the configuration is not reloaded: nothing is changed"]);
    for part in ["Qoute", "sometimes", "nice is out of range: value=99"] {
        bridge.wait_for_log(&["the new configuration is wrong", part]);
    }
    assert_eq!(bridge.log().matches("worker started").count(), 1);
    assert!(UnixStream::connect(place.socket()).is_ok());
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
}

#[test]
fn sighup_moves_endpoints_changes_the_log_and_names_what_needs_a_restart() {
    let place = Place::new().listening().bridge("log = \"info\"");
    let mut bridge = BridgeProcess::listening(&place, None);
    let other = place.path().join("other.sock");
    let contracts = repository().join("contracts/bandit.yaml");
    std::fs::copy(&contracts, place.path().join("other.yaml")).expect("copy");
    let named = format!("contracts = {contracts:?}");
    edit(&place, |text| {
        let text = text.replace(&named, "contracts = \"other.yaml\"");
        let text = text.replace("bridge.sock", "other.sock");
        text.replace("log = \"info\"", "log = \"debug\"")
    });
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&[
        "configuration reloaded",
        "opened=unix:",
        "other.sock",
        "needs_restart=contracts",
    ]);
    bridge.wait_for_log(&[
        "keys of the bridge take effect with its next start only",
        "contracts",
    ]);
    wait_until("the new endpoint", || UnixStream::connect(&other).is_ok());
    assert!(!place.socket().exists(), "the old one is removed");
    // Back to where it was; the key that needs a restart is as it was, too.
    edit(&place, |text| {
        let text = text.replace("contracts = \"other.yaml\"", &named);
        let text = text.replace("other.sock", "bridge.sock");
        text.replace("log = \"debug\"", "log = \"warn\"")
    });
    bridge.signal(Sig::SIGHUP);
    wait_until("the old endpoint", || {
        UnixStream::connect(place.socket()).is_ok()
    });
    let reloads = |log: &str| log.matches("configuration reloaded").count();
    wait_until("the second line", || reloads(&bridge.log()) == 2);
    // From here on the log has warnings only.
    edit(&place, |text| text.replace("bridge.sock", "other.sock"));
    bridge.signal(Sig::SIGHUP);
    wait_until("the new endpoint", || UnixStream::connect(&other).is_ok());
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
    assert_eq!(reloads(&bridge.log()), 2);
}

#[test]
fn a_worker_that_comes_back_while_it_is_ending_starts_again() {
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 1000")
        .worker("stubborn", STUBBORN, "")
        .worker("other", ECHO, "");
    let bridge = place.start();
    assert_eq!(place.first_line("ready"), "yes");
    up(&bridge, "stubborn", 1);
    let whole = std::fs::read_to_string(place.path().join("bridge.toml")).expect("read");
    edit(&place, |text| {
        let begin = text.find("[[worker]]").expect("a worker");
        let end = text.rfind("[[worker]]").expect("another");
        format!("{}{}", &text[..begin], &text[end..])
    });
    reload(&bridge);
    assert_eq!(
        bridge.worker("stubborn").expect("still ending").phase,
        WorkerPhase::Stopping
    );
    edit(&place, |_| whole);
    reload(&bridge);
    up(&bridge, "stubborn", 2);
    assert_eq!(
        bridge.reloads(),
        ReloadCounters {
            applied: 2,
            refused: 0
        }
    );
}
