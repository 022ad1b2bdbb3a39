//! Delivery policies with a real worker that is stopped: the others go on, nothing is lost uncounted, and the worker that
//! missed something knows how much.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::local::LocalChannel;
use mycelium_bridge::router::LinkCounters;
use mycelium_messages::Message;
use mycelium_messages::bandit::{Quote, Signal};
use mycelium_tests::{
    Place, WATCHDOG, expect, publish, quote, repository, subscribe, wait_for, wait_until,
};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use shm_transport::channel::{Channel, ConnectOptions};

/// Counts quotes until the bridge ends, and writes down what it got and what it was told that it missed.
const COUNTER: &str = r#"
import pathlib, mycelium
from mycelium.messages import Quote
place = pathlib.Path(__file__)
received, last, in_order = 0, 0, True
with mycelium.connect() as channel:
    for quote in channel:
        received += 1
        in_order = in_order and quote.sequence > last
        last = quote.sequence
        if received == 1:
            place.with_suffix(".ready").write_text("ready\n")
    missed = channel.statistics().frames_missed
place.with_suffix(".result").write_text(f"{received} {missed} {last} {in_order}\n")
"#;

/// Answers every quote.
const ECHO: &str = r#"
import mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker="echo", quote_sequence=quote.sequence, side=Side.HOLD))
"#;

const QUOTES: u64 = 3000;

fn signal_to(pid: u32, signal: Sig) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the worker is there");
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn counters(bridge: &Bridge, name: &str) -> LinkCounters {
    let link = bridge.link(name).expect("the link").link;
    let snapshot = bridge.snapshot().expect("counters");
    let found = snapshot.links.iter().find(|(id, _)| *id == link);
    found.expect("its counters").1
}

/// Waits until the counter runs, and stops it. Returns its process id.
fn stop_counter(place: &Place, bridge: &Bridge, actor: &mut LocalChannel) -> u32 {
    publish(actor, &quote(1));
    assert_eq!(place.first_line("counter.ready"), "ready");
    let pid = bridge
        .link("counter")
        .and_then(|it| it.pid)
        .expect("it runs");
    signal_to(pid, Sig::SIGSTOP);
    wait_until("a stopped worker", || is_stopped(pid));
    pid
}

/// What the counter wrote at its end: received, missed, last sequence, in order.
fn result(place: &Place) -> (u64, u64, u64, bool) {
    let line = place.first_line("counter.result");
    let words: Vec<_> = line.split(' ').collect();
    let number = |at: usize| words[at].parse().expect("a number");
    (number(0), number(1), number(2), words[3] == "True")
}

fn a_stopped_worker(policy: &str, transport: &str) {
    let counter = format!(
        "subscribe = [{{ topic = \"Quote\", delivery = \"{policy}\" }}]\nring_capacity = \"4KiB\"\n{transport}"
    );
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 30000")
        .worker("counter", COUNTER, &counter)
        .worker("echo", ECHO, "subscribe = [\"Quote\"]");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let pid = stop_counter(&place, &bridge, &mut actor);
    let first: Signal = expect(&mut actor);
    assert_eq!(first.quote_sequence, 1);
    for sequence in 2..=QUOTES {
        publish(&mut actor, &quote(sequence));
        if sequence % 100 == 0 {
            for expected in sequence - 99..=sequence {
                if expected > 1 {
                    let answer: Signal = expect(&mut actor);
                    assert_eq!(answer.quote_sequence, expected);
                }
            }
        }
    }
    assert!(is_stopped(pid), "the others had everything meanwhile");
    let stopped = counters(&bridge, "counter");
    assert!(stopped.missed > 0 && stopped.stalls == 0, "{stopped:?}");
    signal_to(pid, Sig::SIGCONT);
    wait_until("an empty stage", || {
        counters(&bridge, "counter").waiting == 0
    });
    let missed = counters(&bridge, "counter").missed;
    wait_until("the notices", || {
        let status = bridge.link("counter").expect("its link");
        status.missed.get(&Quote::TOPIC_ID) == Some(&missed)
    });
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
    let (received, told, last, in_order) = result(&place);
    assert_eq!(told, missed, "the worker knows what the bridge counted");
    assert_eq!(received + missed, QUOTES);
    assert!(in_order);
    match policy {
        "drop_newest" => assert!(last < QUOTES),
        _ => assert_eq!(last, QUOTES, "the newest comes"),
    }
}

#[test]
fn drop_newest_over_shared_memory() {
    a_stopped_worker("drop_newest", "");
}

#[test]
fn drop_oldest_over_shared_memory() {
    a_stopped_worker("drop_oldest", "");
}

#[test]
fn conflate_over_shared_memory() {
    a_stopped_worker("conflate", "");
}

#[test]
fn drop_newest_over_the_socket() {
    a_stopped_worker("drop_newest", "transport = \"socket\"");
}

#[test]
fn drop_oldest_over_the_socket() {
    a_stopped_worker("drop_oldest", "transport = \"socket\"");
}

#[test]
fn conflate_over_the_socket() {
    a_stopped_worker("conflate", "transport = \"socket\"");
}

#[test]
fn block_holds_up_its_own_publishers_and_nobody_else() {
    let place = Place::new()
        .bridge("ring_capacity = \"16KiB\"\nshutdown_timeout_ms = 30000")
        .worker(
            "counter",
            COUNTER,
            "subscribe = [\"Quote\"]\nring_capacity = \"4KiB\"",
        );
    let bridge = place.start();
    let mut held_up = bridge.attach("held-up").expect("attach");
    let mut other = bridge.attach("other").expect("attach");
    let mut reader = bridge.attach("reader").expect("attach");
    subscribe::<Signal>(&bridge, &reader);
    let pid = stop_counter(&place, &bridge, &mut held_up);
    let mut sent = 1;
    while held_up.try_publish(&quote(sent + 1)).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "a ring is full at some time");
        // The data plane takes what still finds room.
        bridge.snapshot().expect("counters");
    }
    wait_until("a stall", || counters(&bridge, "counter").stalls > 0);
    for sequence in 1..=QUOTES {
        let signal = Signal {
            quote_sequence: sequence,
            ..Signal::default()
        };
        publish(&mut other, &signal);
        let got: Signal = expect(&mut reader);
        assert_eq!(got.quote_sequence, sequence);
    }
    assert!(is_stopped(pid));
    signal_to(pid, Sig::SIGCONT);
    wait_until("room for the publisher", || {
        held_up.try_publish(&quote(sent + 1)).is_ok()
    });
    sent += 1;
    wait_until("everything at the worker", || {
        counters(&bridge, "counter").frames_out == sent
    });
    bridge.shut_down().expect("control plane");
    assert_eq!(result(&place), (sent, 0, sent, true));
}

/// The policy is that of `[delivery]`, or of the contracts.
fn drop_oldest(place: Place, is_in_contracts: bool) -> Place {
    if !is_in_contracts {
        return place.table("[delivery]\nQuote = \"drop_oldest\"");
    }
    let contracts = repository().join("contracts/bandit.yaml");
    let text = std::fs::read_to_string(contracts).expect("the contracts");
    let quote_first = text.replacen("delivery: block", "delivery: drop_oldest", 1);
    assert_ne!(quote_first, text);
    let file = place.path().join("bandit.yaml");
    std::fs::write(&file, quote_first).expect("write the contracts");
    place.contracts_file(&file)
}

/// A client in another process than the bridge, and an actor in its own: each reads nothing for a while.
#[test]
fn rust_subscribers_are_told_what_they_miss() {
    for (transport, is_in_contracts) in [("auto", false), ("socket", true)] {
        let settings = format!(
            "ring_capacity = \"4KiB\"\nstage_capacity = \"8KiB\"\ntransport = {transport:?}"
        );
        let place = Place::new().listening().bridge(&settings);
        let place = drop_oldest(place, is_in_contracts);
        let bridge = place.start();
        let mut actor = bridge.attach("actor").expect("attach");
        let mut idle = bridge.attach("idle").expect("attach");
        subscribe::<Quote>(&bridge, &idle);
        let options = ConnectOptions::for_contracts(&mycelium_messages::bandit::CONTRACTS);
        let options = options.named("client");
        let mut client = Channel::connect(&place.address(), &options).expect("connect");
        client.subscribe::<Quote>().expect("subscribe");
        for sequence in 1..=QUOTES {
            publish(&mut actor, &quote(sequence));
        }
        wait_until("everything published", || {
            counters(&bridge, "actor").frames_in == QUOTES
        });
        let mut received = (0, 0);
        let mut last = (0, 0);
        while last.0 < QUOTES {
            let quote: Quote = client
                .recv(Some(WATCHDOG))
                .expect("a quote")
                .read()
                .expect("sound");
            assert!(quote.sequence > last.0, "order");
            (last.0, received.0) = (quote.sequence, received.0 + 1);
        }
        while last.1 < QUOTES {
            let quote: Quote = expect(&mut idle);
            assert!(quote.sequence > last.1, "order");
            (last.1, received.1) = (quote.sequence, received.1 + 1);
        }
        assert!(received.0 < QUOTES && received.1 < QUOTES, "{received:?}");
        wait_until("the word to the client", || {
            assert!(client.try_recv().expect("open").is_none());
            client.statistics().missed + received.0 == QUOTES
        });
        wait_until("the word to the actor", || {
            idle.missed() + received.1 == QUOTES
        });
        let status = bridge.link("client").expect("its link");
        assert_eq!(
            status.missed.get(&Quote::TOPIC_ID),
            Some(&(QUOTES - received.0))
        );
    }
}

/// Answers every quote with its own name and the symbol.
const MEMBER: &str = r#"
import os, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        text = f"{channel.name}:{channel.epoch}"
        signals.send(Signal(worker=text, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

#[test]
fn a_group_shares_a_topic_and_a_member_that_dies_keeps_its_keys() {
    const SYMBOLS: u64 = 24;
    let lines = "subscribe = [{ topic = \"Quote\", group = \"pricing\" }]\nrestart_backoff_ms = 1";
    let place = Place::new()
        .worker("first", MEMBER, lines)
        .worker("second", MEMBER, lines)
        .worker("third", MEMBER, lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let mut next = 0;
    // Publishes one quote of every symbol and says which member answered which.
    let mut round = |actor: &mut LocalChannel| -> (Vec<String>, u64) {
        let first = next + 1;
        for symbol in 0..SYMBOLS {
            next += 1;
            let mut message = quote(next);
            message.symbol = mycelium_messages::InlineString::truncated(&format!("S{symbol}"));
            publish(actor, &message);
        }
        let mut members = vec![String::new(); SYMBOLS as usize];
        let mut epochs = 0;
        while members.iter().any(String::is_empty) {
            let answer: Signal = expect(actor);
            let text = answer.worker.as_str().expect("text").to_owned();
            let (name, epoch) = text.split_once(':').expect("name and epoch");
            // A successor may answer what its predecessor has answered already.
            if answer.quote_sequence >= first {
                members[(answer.quote_sequence - first) as usize] = name.to_owned();
                epochs = epochs.max(epoch.parse().expect("a number"));
            }
        }
        (members, epochs)
    };
    let (before, _) = round(&mut actor);
    for name in ["first", "second", "third"] {
        assert!(
            before.iter().any(|it| it == name),
            "{name} has no share: {before:?}"
        );
    }
    assert_eq!(round(&mut actor).0, before);
    let pid = bridge
        .link("second")
        .and_then(|it| it.pid)
        .expect("it runs");
    signal_to(pid, Sig::SIGKILL);
    let (after, epoch) = round(&mut actor);
    assert_eq!((after, epoch), (before, 2), "its successor answers for it");
}

/// Dies over the quotes 5 and 9, unless it has been mended.
const FRAGILE: &str = r#"
import os, pathlib, mycelium
from mycelium.messages import Quote, Side, Signal
mended = pathlib.Path(__file__).with_suffix(".mended")
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        if quote.sequence in (5, 9) and not mended.exists():
            os._exit(41)
        signals.send(Signal(worker=str(channel.epoch), quote_sequence=quote.sequence, side=Side.HOLD))
"#;

fn a_poisonous_record(transport: &str) {
    let lines = format!(
        "subscribe = [\"Quote\"]\nrestart_backoff_ms = 1\nrestart_backoff_max_ms = 10\n{transport}"
    );
    let place = Place::new().listening().worker("fragile", FRAGILE, &lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    for sequence in 1..=20 {
        publish(&mut actor, &quote(sequence));
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 18 {
        let answer: Signal = expect(&mut actor);
        answered.insert(answer.quote_sequence);
    }
    let expected: Vec<u64> = (1..=20).filter(|it| ![5, 9].contains(it)).collect();
    assert_eq!(answered.into_iter().collect::<Vec<_>>(), expected);
    let gaps = bridge.snapshot().expect("counters").gaps;
    let link = bridge.link("fragile").expect("its link");
    assert_eq!(link.epoch, 7, "three deaths over each");
    let gap = gaps
        .iter()
        .find(|gap| gap.link == link.link)
        .expect("a gap");
    assert_eq!((gap.quarantined, gap.total()), (2, 2));
    wait_until("the notices", || {
        let status = bridge.link("fragile").expect("its link");
        status.missed.get(&Quote::TOPIC_ID) == Some(&2)
    });

    let listed = quarantine(&place, &["list"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.contains("fragile") && listed.contains("exit status: 41"),
        "{listed}"
    );
    let shown = quarantine(&place, &["show", "2"]);
    assert!(
        shown.contains("kills     3 in a row") && shown.contains("sequence u64"),
        "{shown}"
    );
    assert!(shown.contains("09 00 00 00 00 00 00 00"), "{shown}");

    std::fs::write(place.path().join("fragile.mended"), "").expect("mend it");
    let sent = quarantine(&place, &["reinject", "1"]);
    assert!(sent.starts_with("sent again"), "{sent}");
    let answer = wait_for("the answer to the quote that was sent again", || {
        let answer: Signal = expect(&mut actor);
        (answer.quote_sequence == 5).then_some(answer)
    });
    assert_eq!(answer.worker.as_str(), Ok("7"), "no further death");
    let listed = quarantine(&place, &["list"]);
    assert!(
        listed
            .lines()
            .nth(1)
            .is_some_and(|line| line.trim_end().ends_with(" 1")),
        "{listed}"
    );
}

/// What `mycelium-bridge quarantine` prints.
fn quarantine(place: &Place, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(mycelium_tests::bridge_binary());
    command.arg("quarantine").args(arguments);
    command
        .arg("--config")
        .arg(place.path().join("bridge.toml"));
    let output = command.output().expect("run the bridge's program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_record_that_kills_its_worker_again_and_again_is_moved_aside() {
    a_poisonous_record("");
}

#[test]
fn a_record_that_kills_its_worker_over_the_socket_is_moved_aside() {
    a_poisonous_record("transport = \"socket\"");
}

#[test]
fn a_worker_that_may_not_lose_anything_keeps_its_record_and_is_given_up() {
    let lines = "subscribe = [\"Quote\"]\nrestart_backoff_ms = 1\nrestart_backoff_max_ms = 10\nrestart_limit = 5\nquarantine_after = 0";
    let place = Place::new().worker("fragile", FRAGILE, lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    for sequence in 1..=20 {
        publish(&mut actor, &quote(sequence));
    }
    wait_until("the end of the link", || bridge.link("fragile").is_none());
    assert!(!place.path().join("mycelium-state").exists());
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.failed, ["fragile"]);
}
