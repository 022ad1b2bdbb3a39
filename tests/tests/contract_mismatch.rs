//! Peers that were generated from other contracts than the bridge: one message with a changed field, one that only the
//! bridge has, one that only the peer has. The rest flows, the changed one is refused on both sides.

use std::time::Duration;

use mycelium_bridge::local::LocalChannel;
use mycelium_messages::Message as _;
use mycelium_messages::bandit::{CONTRACTS, Quote, ReplayMark, ReplayReport, Signal};
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, publish, quote, run_python, subscribe,
};
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};
use shm_transport::error::ChannelError;

/// The bridge's contracts: `Signal.price` is a u64, which leaves the size as it is; `ReplayReport` is gone and `Verdict`
/// is new. The peers are generated from the contracts of the repository.
fn differing(place: Place) -> Place {
    place.contracts(|ours| {
        let price = "      price:\n        type: \"f64\"";
        assert_eq!(ours.matches(price).count(), 1);
        ours.replace(price, &price.replace("f64", "u64")).replace(
            "  ReplayReport:\n    tlv_type: 1011",
            "  Verdict:\n    tlv_type: 1012",
        )
    })
}

fn connect(place: &Place, transport: TransportRequest) -> Channel {
    let options = ConnectOptions::for_contracts(&CONTRACTS)
        .named("rust")
        .over(transport);
    Channel::connect(&place.address(), &options).unwrap_or_else(|error| panic!("{error}"))
}

const PYTHON: &str = r#"
import logging, sys
import mycelium
from mycelium._publisher import Publisher
from mycelium.messages import Quote, ReplayMark, ReplayReport, Side, Signal

address, transport = sys.argv[1:]
logs = []
class Keep(logging.Handler):
    def emit(self, record):
        logs.append((record.levelname, record.getMessage()))
logging.getLogger("mycelium").addHandler(Keep())

with mycelium.connect(address, name="python", transport=transport) as channel:
    by_name = {it.message: it for it in channel.contract_differences}
    assert sorted(by_name) == ["ReplayReport", "Signal", "Verdict"], by_name
    assert [name for name, it in sorted(by_name.items()) if it.compatible] == ["ReplayReport", "Verdict"]
    signal = by_name["Signal"]
    assert signal.topic_id == 1002 and "field 'price': type u64 -> f64" in signal.text
    (warning,) = [text for level, text in logs if level == "WARNING" and "contracts differ" in text]
    assert "'Signal'" in warning and "field 'price'" in warning, warning
    for request in (lambda: channel.subscribe(Signal), lambda: channel.publisher(Signal)):
        try:
            request()
        except mycelium.ContractMismatch as error:
            assert error.topic_id == 1002 and error.differences == (signal,)
            assert error.actual == Signal.LAYOUT_DIGEST != error.expected == signal.expected
            assert "field 'price': type u64 -> f64" in str(error), error
        else:
            raise AssertionError("the layouts differ")
    try:
        channel.publisher(ReplayReport)
    except mycelium.UnknownTopic as error:
        assert error.topic_id == 1011
    else:
        raise AssertionError("the bridge has no such message")

    # Around the SDK's own check: the bridge drops it, and says so.
    Publisher(channel, Signal).send(Signal(worker="python", side=Side.BUY, price=1.0))
    channel.subscribe(ReplayMark)
    quotes = channel.publisher(Quote)
    for sequence in range(1, 101):
        quotes.send(Quote(symbol="EUR/USD", sequence=sequence))
        assert channel.recv(timeout=50).phase == sequence
    while channel.statistics().frames_rejected == 0:
        try:
            channel.recv(timeout=0.01)
        except TimeoutError:
            pass
    assert channel.statistics().frames_rejected == 1
    (dropped,) = [text for _, text in logs if "dropped" in text]
    assert "field 'price'" in dropped, dropped
print("done")
"#;

fn the_rest_flows(request: TransportRequest, transport: &'static str) {
    let place = differing(Place::new().listening());
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);

    let mut rust = connect(&place, request);
    let differences = rust.contract_differences().to_vec();
    let refused: Vec<_> = differences.iter().filter(|it| !it.compatible).collect();
    let [signal] = refused[..] else {
        panic!("one message is incompatible: {differences:?}")
    };
    assert_eq!((signal.topic_id, &*signal.message), (1002, "Signal"));
    assert!(
        signal.text.contains("field 'price': type u64 -> f64"),
        "{signal}"
    );
    assert_eq!(differences.len(), 3);
    for outcome in [
        rust.subscribe::<Signal>(),
        rust.advertise::<Signal>(),
        rust.publish(&Signal::default(), Some(WATCHDOG)),
    ] {
        let Err(ChannelError::ContractMismatch(mismatch)) = outcome else {
            panic!("the layouts differ: {outcome:?}")
        };
        assert_eq!(mismatch.topic_id, 1002);
        assert_eq!(mismatch.actual, Some(Signal::LAYOUT_DIGEST));
        assert!(mismatch.expected.is_some() && mismatch.expected != mismatch.actual);
        assert_eq!(mismatch.differences, std::slice::from_ref(signal));
        assert!(mismatch.to_string().contains("field 'price'"), "{mismatch}");
    }
    rust.subscribe::<Quote>().expect("the same on both sides");
    rust.advertise::<ReplayMark>()
        .expect("the same on both sides");

    let address = place.address();
    let python = std::thread::spawn(move || run_python(PYTHON, &[&address, transport]));
    for sequence in 1..=100 {
        let got: Quote = loop {
            match rust.recv(Some(Duration::from_millis(100))) {
                Ok(frame) => break frame.read().expect("a quote"),
                Err(error) if python.is_finished() => {
                    python.join().expect("the client").assert_done();
                    panic!("the client has ended: {error}");
                }
                Err(_) => {}
            }
        };
        assert_eq!(got.sequence, sequence);
        assert_eq!(expect::<Quote>(&mut actor).sequence, sequence);
        let mark = ReplayMark {
            phase: sequence as u32,
            ..ReplayMark::default()
        };
        rust.publish(&mark, Some(WATCHDOG)).expect("room");
    }
    python.join().expect("the client").assert_done();
    assert!(
        matches!(actor.try_recv(), Ok(None)),
        "no signal was delivered"
    );
    let status = bridge.link("rust").expect("the client's link");
    assert_eq!(status.contract_differences, differences);
}

#[test]
fn the_rest_flows_over_the_transport_that_is_to_be_had() {
    the_rest_flows(TransportRequest::Auto, "auto");
}

#[test]
fn the_rest_flows_over_the_socket() {
    the_rest_flows(TransportRequest::Socket, "socket");
}

#[test]
fn an_actor_in_the_bridges_process_is_refused_by_topic_too() {
    let place = differing(Place::new());
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let requests = |actor: &mut LocalChannel| {
        [
            actor.subscribe::<Signal>(),
            actor.advertise::<Signal>(),
            actor.try_publish(&Signal::default()),
            actor.publish(&Signal::default(), Some(WATCHDOG)),
        ]
    };
    for outcome in requests(&mut actor) {
        let Err(ChannelError::ContractMismatch(mismatch)) = outcome else {
            panic!("the layouts differ: {outcome:?}")
        };
        assert_eq!(mismatch.topic_id, Signal::TOPIC_ID);
        assert_eq!(mismatch.actual, Some(Signal::LAYOUT_DIGEST));
        let [difference] = &mismatch.differences[..] else {
            panic!("only what concerns the topic: {mismatch:?}")
        };
        assert!(!difference.compatible && difference.message == "Signal");
        assert_eq!(difference.bridge_digest, mismatch.expected);
        assert_ne!(mismatch.expected, mismatch.actual);
        let text = mismatch.to_string();
        assert!(text.contains("field 'price': type u64 -> f64"), "{text}");
    }
    let known = bridge.link("actor").expect("known").contract_differences;
    assert_eq!(
        known.len(),
        1,
        "once, however often it was asked: {known:?}"
    );
    assert!(known[0].refuses(Signal::TOPIC_ID));

    let unknown = actor.advertise::<ReplayReport>();
    let Err(ChannelError::Topic {
        topic_id,
        message,
        name,
        reason,
        ..
    }) = unknown
    else {
        panic!("the bridge has no such message: {unknown:?}")
    };
    assert_eq!(
        (topic_id, message, name),
        (1011, "ReplayReport", "UNKNOWN_TOPIC")
    );
    assert!(reason.contains("topic_id=1011"), "{reason}");

    // The other topics flow, before and after a refusal, and nothing of the refused one was published.
    let mut reader = bridge.attach("reader").expect("attach");
    subscribe::<Quote>(&bridge, &reader);
    for sequence in 1..=10 {
        publish(&mut actor, &quote(sequence));
        assert!(actor.try_publish(&Signal::default()).is_err());
        assert_eq!(expect::<Quote>(&mut reader).sequence, sequence);
    }
    let snapshot = bridge.snapshot().expect("counters");
    let counters = snapshot
        .links
        .iter()
        .find(|(link, _)| *link == actor.link());
    let (_, counters) = counters.expect("known");
    assert_eq!(
        (counters.frames_in, counters.unrouted, counters.dropped),
        (10, 0, 0)
    );
}

#[test]
fn an_actor_may_call_a_message_by_another_name() {
    let place = Place::new().contracts(|ours| {
        assert_eq!(ours.matches("\n  Quote:\n").count(), 1);
        ours.replace("\n  Quote:\n", "\n  Tick:\n")
    });
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut reader = bridge.attach("reader").expect("attach");
    actor.advertise::<Quote>().expect("the same bytes");
    subscribe::<Quote>(&bridge, &reader);
    publish(&mut actor, &quote(3));
    assert_eq!(expect::<Quote>(&mut reader).sequence, 3);
}

#[test]
fn the_bridge_says_once_per_link_what_differs() {
    let place = differing(Place::new().listening());
    let bridge = BridgeProcess::listening(&place, None);
    let rust = connect(&place, TransportRequest::Auto);
    let _ = bridge.wait_for_log(&["peer attached"]);
    let log = bridge.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("some topics are refused"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("one warning per link: {log}")
    };
    for part in ["refused=\"Signal\"", "ReplayReport", "Verdict"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert!(log.contains("field 'price': type u64 -> f64"), "{log}");
    drop(rust);
}
