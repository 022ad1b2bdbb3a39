//! A worker that is started again with other contracts than the process before it: each process is judged by its own, and
//! nothing of a topic is read by the layout of another.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::local::LocalChannel;
use mycelium_contracts::{Config, generate};
use mycelium_messages::Message as _;
use mycelium_messages::bandit::Signal;
use mycelium_messages::zerocopy::IntoBytes as _;
use mycelium_tests::{Place, publish, quote, wait_for};
use shm_transport::ring::Frame;

/// `ORDER` says whose contracts the first process has, and whose the second. Before it reads, each publishes three signals,
/// around the check of the SDK.
const WORKER: &str = r#"
import os, sys
import mycelium, mycelium.messages
from mycelium._publisher import Publisher

here = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, here)
import bridge_messages

def path(name):
    return os.path.join(here, name)

def say(name, line):
    with open(path(name), "a") as file:
        file.write(line + "\n")

def signals(channel, messages, price):
    side = messages.Side.BUY
    for number in range(3):
        Publisher(channel, messages.Signal).send(messages.Signal(worker="w", side=side, price=price + number))

first = not os.path.exists(path("first"))
modules = {"ours": mycelium.messages, "bridge": bridge_messages}
messages = modules[ORDER[0 if first else 1]]
with mycelium.connect(contracts=messages) as channel:
    if first:
        signals(channel, messages, 100)
        say("first", f"epoch={channel.epoch} differences={len(channel.contract_differences)}")
        while not os.path.exists(path("die")):
            pass
        os._exit(1)
    signals(channel, messages, 200)
    for message in channel:
        counted = channel.statistics()
        value = message.price if isinstance(message, messages.Signal) else message.sequence
        say("second", f"{type(message).__name__} {value} skipped={counted.frames_skipped} epoch={channel.epoch}")
"#;

/// A worker with the bridge's contracts, who writes down every price that comes.
const READER: &str = r#"
import os, sys
import mycelium

here = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, here)
import bridge_messages

with mycelium.connect(contracts=bridge_messages) as channel:
    assert channel.contract_differences == ()
    for message in channel:
        with open(os.path.join(here, "prices"), "a") as file:
            file.write(f"{message.price}\n")
"#;

/// The bridge's `Signal.price` is a u64, that of the repository an f64. `order`: whose contracts the worker has, first
/// the one process and then the other.
fn place(order: [&str; 2], transport: &str) -> Place {
    let place = Place::new().contracts(|ours| {
        let price = "      price:\n        type: \"f64\"";
        assert_eq!(ours.matches(price).count(), 1);
        ours.replace(price, &price.replace("f64", "u64"))
    });
    let config = place.path().join("generate.toml");
    let target = "[[contracts]]\nfile = 'contracts.yaml'\npython = 'bridge_messages.py'\n";
    std::fs::write(&config, target).expect("write the configuration");
    let config = Config::load(&config).expect("valid");
    generate(&config, false).unwrap_or_else(|failed| panic!("{failed}"));
    let worker = WORKER.replace("ORDER", &format!("{order:?}"));
    let transport = format!("transport = {transport:?}");
    let subscribe =
        format!("subscribe = [\"Signal\", \"Quote\"]\nrestart_backoff_ms = 1\n{transport}");
    let reader = format!("subscribe = [\"Signal\"]\n{transport}");
    place
        .worker("reader", READER, &reader)
        .worker("successor", &worker, &subscribe)
}

/// What the data plane counted on the worker's link.
fn counted(bridge: &Bridge, what: &str, found: impl Fn(u64, u64, u64) -> bool) {
    let link = bridge.link("successor").expect("known").link;
    wait_for(what, || {
        let snapshot = bridge.snapshot().expect("counters");
        let mut links = snapshot.links.iter();
        let (_, it) = links.find(|(other, _)| *other == link)?;
        found(it.frames_in, it.frames_out, it.dropped).then_some(())
    });
}

/// A signal in the bridge's layout.
fn signal(actor: &mut LocalChannel, price: u64) {
    let signal = Signal {
        price: f64::from_bits(price),
        ..Signal::default()
    };
    let frame = Frame::new(Signal::TOPIC_ID, signal.as_bytes());
    actor.try_publish_frame(&frame).expect("room");
}

fn prices(place: &Place, count: usize) -> Vec<String> {
    wait_for("the prices", || {
        let lines = place.lines("prices");
        (lines.len() >= count).then_some(lines)
    })
}

fn others_after_the_bridges(transport: &str) {
    let place = place(["bridge", "ours"], transport);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    assert_eq!(place.first_line("first"), "epoch=1 differences=0");
    assert_eq!(prices(&place, 3), ["100", "101", "102"]);
    for price in 1..=3 {
        signal(&mut actor, price);
    }
    publish(&mut actor, &quote(7));
    counted(&bridge, "the frames in the worker's ring", |_, out, _| {
        out == 4
    });
    std::fs::write(place.path().join("die"), "").expect("a file");

    // What was kept for the predecessor and would be misread is skipped and counted; the rest arrives.
    assert_eq!(place.first_line("second"), "Quote 7 skipped=3 epoch=2");
    // What the successor publishes in its own layout does not pass.
    counted(&bridge, "three dropped frames", |_, _, dropped| {
        dropped == 3
    });
    let status = bridge.link("successor").expect("known");
    let refused: Vec<_> = status
        .contract_differences
        .iter()
        .filter(|it| it.refuses(Signal::TOPIC_ID))
        .collect();
    let [refused] = refused[..] else {
        panic!("the signal is refused: {status:?}")
    };
    assert!(
        refused.text.contains("field 'price': type u64 -> f64"),
        "{refused}"
    );

    // Later signals do not even reach its ring, and reach the reader.
    signal(&mut actor, 8);
    publish(&mut actor, &quote(9));
    let second = wait_for("the next quote", || {
        let lines = place.lines("second");
        (lines.len() >= 2).then_some(lines)
    });
    assert_eq!(second[1], "Quote 9 skipped=3 epoch=2");
    assert_eq!(prices(&place, 7), ["100", "101", "102", "1", "2", "3", "8"]);
}

fn the_bridges_after_others(transport: &str) {
    let place = place(["ours", "bridge"], transport);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    assert_eq!(place.first_line("first"), "epoch=1 differences=1");
    counted(&bridge, "three dropped frames", |_, _, dropped| {
        dropped == 3
    });
    for price in 1..=3 {
        signal(&mut actor, price);
    }
    publish(&mut actor, &quote(7));
    counted(&bridge, "the quote in the worker's ring", |_, out, _| {
        out == 1
    });
    std::fs::write(place.path().join("die"), "").expect("a file");

    // The signals were for nobody; the successor gets what its predecessor could have read, and may have all topics.
    assert_eq!(place.first_line("second"), "Quote 7 skipped=0 epoch=2");
    counted(
        &bridge,
        "six frames, three of them dropped",
        |frames, _, dropped| (frames, dropped) == (6, 3),
    );
    let status = bridge.link("successor").expect("known");
    assert_eq!(status.contract_differences, []);
    signal(&mut actor, 8);
    let second = wait_for("a signal", || {
        let lines = place.lines("second");
        (lines.len() >= 2).then_some(lines)
    });
    assert_eq!(second[1], "Signal 8 skipped=0 epoch=2");
    let mut prices = prices(&place, 7);
    // The successor's signals and those of the actor are in no order.
    prices.sort_unstable();
    assert_eq!(prices, ["1", "2", "200", "201", "202", "3", "8"]);
}

#[test]
fn a_successor_with_other_contracts_does_not_get_what_it_would_misread() {
    others_after_the_bridges("auto");
}

#[test]
fn a_successor_with_other_contracts_does_not_get_what_it_would_misread_over_the_socket() {
    others_after_the_bridges("socket");
}

#[test]
fn a_successor_with_the_bridges_contracts_is_not_judged_by_those_of_its_predecessor() {
    the_bridges_after_others("auto");
}

#[test]
fn a_successor_with_the_bridges_contracts_is_not_judged_by_those_of_its_predecessor_over_the_socket()
 {
    the_bridges_after_others("socket");
}
