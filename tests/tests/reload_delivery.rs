//! A new configuration for how frames are delivered: it holds for links that are there, and what waits is not lost.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::event_loop::{WorkerPhase, WorkerStatus};
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::Signal;
use mycelium_tests::reload::{edit, reload};
use mycelium_tests::{Place, expect, publish, quote, subscribe, wait_for, wait_until};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;

/// Answers every quote with its own name.
const ECHO: &str = r#"
import mycelium
from mycelium.messages import Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

const RINGS: &str = "ring_capacity = \"4KiB\"\nstage_capacity = \"64KiB\"";

fn up(bridge: &Bridge, name: &str) -> WorkerStatus {
    wait_for(&format!("{name} that is up"), || {
        bridge
            .worker(name)
            .filter(|status| status.phase == WorkerPhase::Up)
    })
}

fn send(status: &WorkerStatus, signal: Sig) {
    let pid = status.pid.expect("a process").cast_signed();
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

fn waiting(bridge: &Bridge, name: &str) -> (u64, u64) {
    let link = bridge.link(name).expect("a link").link;
    let snapshot = bridge.snapshot().expect("counters");
    let mut links = snapshot.links.iter();
    let (_, counters) = links.find(|(id, _)| *id == link).expect("its counters");
    (counters.waiting, counters.missed)
}

/// Reads answers up to one to this quote.
fn answers_up_to(actor: &mut LocalChannel, last: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        all.push(expect::<Signal>(actor).quote_sequence);
    }
    all
}

#[test]
fn a_stopped_worker_holds_nobody_up_once_its_topic_is_staged_and_everything_comes_once_it_goes_on()
{
    let place = Place::new().table("[delivery]\nQuote = \"block\"").worker(
        "echo",
        ECHO,
        &format!("subscribe = [\"Quote\"]\n{RINGS}"),
    );
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let worker = up(&bridge, "echo");
    send(&worker, Sig::SIGSTOP);
    // More than its ring holds: the rest waits at the publisher.
    for sequence in 1..=100 {
        publish(&mut actor, &quote(sequence));
    }
    wait_until("a publisher that waits", || {
        let link = bridge.link("echo").expect("a link").link;
        let snapshot = bridge.snapshot().expect("counters");
        snapshot
            .links
            .iter()
            .any(|(id, counters)| *id == link && counters.stalls > 0)
    });
    edit(&place, |text| {
        text.replace("Quote = \"block\"", "Quote = \"drop_oldest\"")
    });
    reload(&bridge);
    wait_until("the stage", || waiting(&bridge, "echo").0 > 0);
    for sequence in 101..=200 {
        publish(&mut actor, &quote(sequence));
    }
    // And back: what is in the stage by now goes ahead of what blocks.
    edit(&place, |text| {
        text.replace("Quote = \"drop_oldest\"", "Quote = \"block\"")
    });
    reload(&bridge);
    for sequence in 201..=300 {
        publish(&mut actor, &quote(sequence));
    }
    assert_eq!(waiting(&bridge, "echo").1, 0, "the stage was large enough");
    send(&worker, Sig::SIGCONT);
    assert_eq!(
        answers_up_to(&mut actor, 300),
        (1..=300).collect::<Vec<_>>()
    );
    assert_eq!(up(&bridge, "echo"), worker, "the same process");
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn members_come_to_a_group_and_leave_it_and_every_quote_is_answered_by_one() {
    let member = |name: &str, group: &str| {
        let table = match group {
            "" => "subscribe = [\"Quote\"]".to_owned(),
            group => format!("subscribe = [{{ topic = \"Quote\", group = \"{group}\" }}]"),
        };
        format!("env = {{ NAME = \"{name}\" }}\n{table}")
    };
    let place = Place::new()
        .worker("a", ECHO, &member("a", "g"))
        .worker("b", ECHO, &member("b", "g"))
        .worker("c", ECHO, &member("c", ""));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let before = ["a", "b", "c"].map(|name| up(&bridge, name));
    let mut sequence = 0;
    let mut who = |actor: &mut LocalChannel, count: usize| {
        sequence += 1;
        publish(actor, &quote(sequence));
        let mut names: Vec<String> = (0..count)
            .map(|_| {
                let signal: Signal = expect(actor);
                assert_eq!(signal.quote_sequence, sequence);
                signal.worker.as_str().expect("text").to_owned()
            })
            .collect();
        names.sort();
        names
    };
    let first = who(&mut actor, 2);
    assert!(first[1] == "c" && first[0] != "c", "{first:?}");

    edit(&place, |text| {
        text.replace(&member("c", ""), &member("c", "g"))
    });
    reload(&bridge);
    let owner = who(&mut actor, 1);
    assert_eq!(
        who(&mut actor, 1),
        owner,
        "one symbol stays with one member"
    );

    // Everybody is alone again, and each gets everything.
    edit(&place, |text| {
        ["a", "b", "c"].iter().fold(text.to_owned(), |text, name| {
            text.replace(&member(name, "g"), &member(name, ""))
        })
    });
    reload(&bridge);
    assert_eq!(who(&mut actor, 3), ["a", "b", "c"]);
    assert_eq!(
        ["a", "b", "c"].map(|name| up(&bridge, name)),
        before,
        "the same processes"
    );
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}
