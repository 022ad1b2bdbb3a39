//! Subscribers that choose their delivery policy themselves: over both transports, in both languages, and against an
//! operator who has another opinion.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::router::LinkCounters;
use mycelium_messages::Message;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_messages::message::Delivery;
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, publish, quote, run_python, subscribe, wait_until,
};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use shm_transport::channel::{AsyncChannel, Channel, ConnectOptions};
use shm_transport::error::ChannelError;

const QUOTES: u64 = 3000;

fn counters(bridge: &Bridge, name: &str) -> LinkCounters {
    let link = bridge.link(name).expect("the link").link;
    let snapshot = bridge.snapshot().expect("counters");
    let found = snapshot.links.iter().find(|(id, _)| *id == link);
    found.expect("its counters").1
}

fn connect(address: &str) -> Channel {
    let options = ConnectOptions::for_contracts(&CONTRACTS).named("client");
    Channel::connect(address, &options).unwrap_or_else(|error| panic!("{error}"))
}

fn small_rings(transport: &str) -> Place {
    let lines = format!("ring_capacity = \"4KiB\"\ntransport = {transport:?}");
    Place::new().listening().bridge(&lines)
}

fn next(client: &mut Channel) -> u64 {
    let frame = client.recv(Some(WATCHDOG)).expect("a quote");
    frame.read::<Quote>().expect("sound").sequence
}

/// A client that reads nothing for a while; the contract would have it hold up the publisher.
fn a_client_that_drops(transport: &str) {
    for delivery in [
        Delivery::DropNewest,
        Delivery::DropOldest,
        Delivery::Conflate,
    ] {
        let place = small_rings(transport);
        let bridge = place.start();
        let mut actor = bridge.attach("actor").expect("attach");
        let mut client = connect(&place.address());
        let in_effect = client.subscribe_with::<Quote>(delivery).expect("granted");
        assert_eq!(in_effect, delivery);
        for sequence in 1..=QUOTES {
            publish(&mut actor, &quote(sequence));
        }
        wait_until("everything published", || {
            counters(&bridge, "actor").frames_in == QUOTES
        });
        let (mut received, mut last) = (0, 0);
        wait_until("everything received or told", || {
            while let Some(frame) = client.try_recv().expect("open") {
                let quote: Quote = frame.read().expect("sound");
                assert!(quote.sequence > last, "order");
                (received, last) = (received + 1, quote.sequence);
            }
            received + client.statistics().missed == QUOTES
        });
        assert!(received < QUOTES, "{delivery:?}");
        assert_eq!(last == QUOTES, delivery != Delivery::DropNewest);
        assert_eq!(counters(&bridge, "client").stalls, 0);
    }
}

#[test]
fn a_client_may_drop_what_the_contract_would_block_for() {
    a_client_that_drops("auto");
}

#[test]
fn a_client_may_drop_over_the_socket() {
    a_client_that_drops("socket");
}

/// From dropping to blocking in the middle: what waited comes first, and nothing is lost from there on.
fn a_change(transport: &str) {
    let place = small_rings(transport);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut client = connect(&place.address());
    let dropping = client.subscribe_with::<Quote>(Delivery::DropOldest);
    assert_eq!(dropping.expect("granted"), Delivery::DropOldest);
    for sequence in 1..=QUOTES {
        publish(&mut actor, &quote(sequence));
    }
    wait_until("everything published", || {
        counters(&bridge, "actor").frames_in == QUOTES
    });
    let blocking = client.subscribe_with::<Quote>(Delivery::Block);
    assert_eq!(blocking.expect("granted"), Delivery::Block);
    let missed = counters(&bridge, "client").missed;
    assert!(missed > 0);
    let mut sent = QUOTES;
    while actor.try_publish(&quote(sent + 1)).is_ok() {
        sent += 1;
        assert!(sent < 10 * QUOTES, "it blocks");
        bridge.snapshot().expect("counters");
    }
    let (mut received, mut last) = (0, 0);
    while last < sent {
        let sequence = next(&mut client);
        assert!(sequence > last, "{sequence} behind {last}");
        assert!(
            last < QUOTES || sequence == last + 1,
            "a loss behind {last}"
        );
        (received, last) = (received + 1, sequence);
    }
    assert_eq!(counters(&bridge, "client").missed, missed);
    assert_eq!(received + missed, sent);
    wait_until("the word of what was missed", || {
        assert!(client.try_recv().expect("open").is_none());
        client.statistics().missed == missed
    });
}

#[test]
fn a_change_of_policy_loses_nothing_that_waits() {
    a_change("auto");
}

#[test]
fn a_change_of_policy_over_the_socket() {
    a_change("socket");
}

#[test]
fn an_async_client_chooses_likewise() {
    let place = small_rings("auto");
    let _bridge = place.start();
    let runtime = tokio_runtime();
    runtime.block_on(async {
        let options = ConnectOptions::for_contracts(&CONTRACTS).named("client");
        let mut client = AsyncChannel::connect(&place.address(), &options)
            .await
            .expect("connect");
        let conflating = client.subscribe_with::<Quote>(Delivery::Conflate).await;
        assert_eq!(conflating.expect("granted"), Delivery::Conflate);
        let refused = client.subscribe_with::<Signal>(Delivery::Conflate).await;
        assert!(
            matches!(&refused, Err(ChannelError::Topic { name: "BAD_DELIVERY", topic_id, .. }) if *topic_id == Signal::TOPIC_ID),
            "{refused:?}"
        );
        client.subscribe::<Signal>().await.expect("granted");
    });
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("runtime")
}

#[test]
fn what_cannot_be_is_refused_with_the_reason_and_the_link_goes_on() {
    let second = "[[listen]]\naddress = \"unix:lossy.sock\"\nallow_block = false\n";
    let place = small_rings("auto").table(second);
    let bridge = BridgeProcess::listening(&place, None);
    let mut client = connect(&place.address());
    let refused = client.subscribe_with::<Signal>(Delivery::Conflate);
    let error = refused.expect_err("no key").to_string();
    for part in [
        "Signal",
        "BAD_DELIVERY",
        "asked=conflate",
        "key=none",
        "drop_oldest",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    client.close().expect("close");

    let lossy = format!("unix:{}", place.path().join("lossy.sock").display());
    let mut client = connect(&lossy);
    for refused in [
        client.subscribe::<Quote>(),
        client.subscribe_with::<Quote>(Delivery::Block).map(drop),
    ] {
        let error = refused.expect_err("it may not block").to_string();
        for part in [
            "BLOCK_NOT_ALLOWED",
            "asked=",
            "block",
            "allow_block=false",
            "ask for drop_oldest",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
    let granted = client.subscribe_with::<Quote>(Delivery::DropOldest);
    assert_eq!(granted.expect("granted"), Delivery::DropOldest);
    client.publish(&quote(1), Some(WATCHDOG)).expect("room");
    client.close().expect("close");

    let script = r#"
import sys
import mycelium
from mycelium import _control as control
from mycelium._waits import drive
from mycelium.messages import Quote, Signal
with mycelium.connect(sys.argv[1]) as channel:
    for number in (5, 9, 255):
        request = bytearray(control.Subscribe(topic_id=Quote.TOPIC_ID, layout_digest=Quote.LAYOUT_DIGEST).to_bytes())
        assert request[34] == 0
        request[34] = number
        try:
            drive(channel._request_steps(control.Subscribe.TOPIC_ID, Quote, bytes(request)))
        except mycelium.DeliveryRefused as error:
            assert error.name == "BAD_DELIVERY" and f"delivery={number} legal=0..=4" in str(error), error
        else:
            raise AssertionError(number)
    try:
        channel.subscribe(Signal, delivery="conflate")
    except mycelium.DeliveryRefused as error:
        assert "Signal cannot be conflated" in str(error), error
    else:
        raise AssertionError("no key")
    channel.subscribe(Quote, delivery="conflate")
    channel.subscribe(Signal)
    assert (channel.delivery(Quote), channel.delivery(Signal)) == ("conflate", "block")
print("done")
"#;
    run_python(script, &[&place.address()]).assert_done();
    bridge.wait_for_log(&["request for a topic refused", "conflated"]);
    let log = bridge.log();
    assert!(
        !log.contains("panicked") && !log.contains("broke a rule"),
        "{log}"
    );
}

/// Subscribes itself, counts until the bridge ends, and hears by events what it missed.
const COUNTER: &str = r#"
import pathlib, mycelium
from mycelium import events
from mycelium.messages import Quote
place = pathlib.Path(__file__)
missed = []
def hear(event):
    if isinstance(event, events.Missed):
        missed.append(event.count)
received, last, in_order = 0, 0, True
with mycelium.connect(on_event=hear) as channel:
    channel.subscribe(Quote, delivery="drop_oldest")
    place.with_suffix(".ready").write_text(f"{channel.delivery(Quote)}\n")
    for quote in channel:
        received += 1
        in_order = in_order and quote.sequence > last
        last = quote.sequence
place.with_suffix(".result").write_text(f"{received} {sum(missed)} {last} {in_order}\n")
"#;

fn a_stopped_python_subscriber(transport: &str) {
    let lines = format!("ring_capacity = \"4KiB\"\n{transport}");
    let place = Place::new()
        .bridge("shutdown_timeout_ms = 30000")
        .worker("counter", COUNTER, &lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut other = bridge.attach("other").expect("attach");
    subscribe::<Quote>(&bridge, &other);
    assert_eq!(place.first_line("counter.ready"), "drop_oldest");
    let pid = bridge.link("counter").and_then(|it| it.pid).expect("runs");
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Sig::SIGSTOP).expect("the worker is there");
    for sequence in 1..=QUOTES {
        publish(&mut actor, &quote(sequence));
        assert_eq!(expect::<Quote>(&mut other).sequence, sequence);
    }
    let stopped = counters(&bridge, "counter");
    assert!(stopped.missed > 0 && stopped.stalls == 0, "{stopped:?}");
    kill(pid, Sig::SIGCONT).expect("the worker is there");
    wait_until("an empty stage", || {
        counters(&bridge, "counter").waiting == 0
    });
    let missed = counters(&bridge, "counter").missed;
    wait_until("the notices", || {
        let status = bridge.link("counter").expect("its link");
        status.missed.get(&Quote::TOPIC_ID) == Some(&missed)
    });
    bridge.shut_down().expect("control plane");
    let line = place.first_line("counter.result");
    assert_eq!(line, format!("{} {missed} {QUOTES} True", QUOTES - missed));
}

#[test]
fn a_stopped_python_subscriber_holds_nobody_up() {
    a_stopped_python_subscriber("");
}

#[test]
fn a_stopped_python_subscriber_holds_nobody_up_over_the_socket() {
    a_stopped_python_subscriber("transport = \"socket\"");
}

/// Asks by both kinds of worker, and writes down what it got.
const ASKING: &str = r#"
import pathlib, mycelium
from mycelium.messages import Quote, Signal
place = pathlib.Path(__file__)
worker = mycelium.Worker()

@worker.on(Quote, delivery="conflate")
def on_quote(quote):
    place.with_suffix(".got").write_text(f"{worker.channel.delivery(Quote)}\n")

worker.run()
"#;

#[test]
fn the_configuration_decides_for_its_workers_and_says_so() {
    let place = Place::new()
        .listening()
        .worker(
            "decided",
            ASKING,
            "subscribe = [{ topic = \"Quote\", delivery = \"drop_oldest\" }]",
        )
        .worker("free", ASKING, "subscribe = [\"Quote\"]")
        .table("[delivery]\nQuote = \"drop_newest\"");
    let bridge = BridgeProcess::listening(&place, None);
    let mut client = connect(&place.address());
    client.publish(&quote(1), Some(WATCHDOG)).expect("room");
    assert_eq!(place.first_line("decided.got"), "drop_oldest");
    assert_eq!(
        place.first_line("free.got"),
        "conflate",
        "more than a default"
    );
    let log = bridge.wait_for_log(&["another policy than the peer asked for"]);
    assert!(
        log.contains("delivery asked=conflate in effect=drop_oldest"),
        "{log}"
    );
    // The worker's own warning, out of its standard error.
    bridge.wait_for_log(&["another delivery than asked for"]);
    let default = client.subscribe_with::<Quote>(Delivery::Block);
    assert_eq!(default.expect("granted"), Delivery::Block);
}
