//! A Python client over the listening socket: what works, and what each mistake raises.

use mycelium_messages::bandit::{Quote, Side, Signal, SignalFields};
use mycelium_tests::{
    BridgeProcess, Place, expect, expected_transport, publish, quote, run_python, subscribe,
    wait_until,
};

/// What the scripts share: `raises` runs something that has to fail and returns the exception.
const TOOLS: &str = r#"
import sys, threading, time
import mycelium
from mycelium.messages import Quote, Side, Signal
address, *arguments = sys.argv[1:]

def raises(kind, call, *parts):
    try:
        call()
    except kind as error:
        for part in parts:
            assert part in str(error), f"{part!r} is not in: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")
"#;

fn run(place: &Place, body: &str, arguments: &[&str]) {
    let address = place.address();
    let arguments: Vec<&str> = std::iter::once(address.as_str())
        .chain(arguments.iter().copied())
        .collect();
    run_python(&format!("{TOOLS}{body}\nprint('done')\n"), &arguments).assert_done();
}

fn a_client_publishes_and_receives(asked: &str, transport: &str) {
    let place = Place::new().listening();
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let address = place.address();
    let (asked, transport) = (asked.to_owned(), transport.to_owned());
    let client = std::thread::spawn(move || {
        let body = r#"
asked, transport = arguments
with mycelium.connect(address, name="client", transport=asked) as channel:
    assert (channel.name, channel.transport, channel.epoch, channel.settings) == ("client", transport, 1, {})
    assert (channel.fallback_code == "NONE") == (transport == "shm"), channel.fallback_code
    channel.subscribe(Signal)
    quotes = channel.publisher(Quote)
    for number in range(1, 1001):
        bid = 1.1 + (number % 1000) * 1e-5
        quotes.send(Quote(symbol="EUR/USD", sequence=number, timestamp_ns=1_577_898_000_000_000_000 + number * 1_000_000, bid=bid, ask=bid + 2e-4, volume=float(number % 7)))
        signal = channel.recv(timeout=50)
        assert (signal.quote_sequence, signal.side, signal.worker) == (number, Side.SELL, "actor"), signal
    kept = signal.copy()
    raises(TimeoutError, lambda: channel.recv(timeout=0.01), "no message in time")
    raises(mycelium.StaleMessageError, lambda: signal.price, "no longer valid", ".copy()")
    assert kept.quote_sequence == 1000
    counted = channel.statistics()
    assert (counted.frames_in, counted.frames_out, counted.frames_rejected) == (1000, 1000, 0), counted
    channel.unsubscribe(Signal)
raises(mycelium.ChannelClosed, lambda: channel.recv(timeout=1), "closed")
channel.close()
"#;
        run_python(
            &format!("{TOOLS}{body}\nprint('done')\n"),
            &[&address, &asked, &transport],
        )
    });
    for sequence in 1..=1000 {
        assert_eq!(expect::<Quote>(&mut actor), quote(sequence));
        let signal = Signal::new(SignalFields {
            worker: "actor",
            quote_sequence: sequence,
            side: Side::SELL,
            ..SignalFields::default()
        })
        .expect("valid");
        publish(&mut actor, &signal);
    }
    client.join().expect("the client").assert_done();
    wait_until("the end of the link", || bridge.link("client").is_none());
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_client_publishes_and_receives_over_the_transport_that_is_to_be_had() {
    a_client_publishes_and_receives("auto", expected_transport().name());
}

#[test]
fn a_client_publishes_and_receives_over_the_socket() {
    a_client_publishes_and_receives("socket", "socket");
}

#[test]
fn a_topic_that_the_bridge_does_not_have_is_refused_and_the_link_goes_on() {
    let place = Place::new().listening().contracts(|ours| {
        ours.replace("  Signal:\n", "  Verdict:\n")
            .replace("tlv_type: 1002", "tlv_type: 1003")
    });
    let _bridge = place.start();
    let body = r#"
for transport in ("auto", "socket"):
    with mycelium.connect(address, contracts=[Quote, Signal], transport=transport) as channel:
        unknown = raises(mycelium.UnknownTopic, lambda: channel.subscribe(Signal), "Signal", "topic_id=1002", "contracts.yaml")
        assert unknown.topic_id == 1002 and isinstance(unknown, LookupError)
        raises(mycelium.UnknownTopic, lambda: channel.publisher(Signal), "topic_id=1002")
        channel.subscribe(Quote)
        with mycelium.connect(address, contracts=[Quote], transport=transport) as other:
            other.publisher(Quote).send(Quote(symbol="EUR/USD", sequence=7))
            assert channel.recv(timeout=50).sequence == 7
"#;
    run(&place, body, &[]);
}

#[test]
fn a_strict_bridge_refuses_other_contracts_with_both_digests() {
    let place = Place::new()
        .listening()
        .table("[contracts]\non_mismatch = \"refuse\"")
        .contracts(|ours| ours.replace("tlv_type: 1002", "tlv_type: 1003"));
    let _bridge = place.start();
    let body = r#"
refused = raises(mycelium.SchemaRefused, lambda: mycelium.connect(address), "contracts differ", "bridge=", "peer=")
assert isinstance(refused, mycelium.HandshakeRefused) and isinstance(refused, mycelium.ContractMismatch)
assert refused.code == 2 and refused.actual == Quote.SCHEMA_DIGEST != refused.expected and len(refused.expected) == 32
assert refused.actual.hex() in str(refused) and refused.expected.hex() in str(refused)
with mycelium.connect(address, contracts=None) as channel:
    channel.subscribe(Quote)
"#;
    run(&place, body, &[]);
}

#[test]
fn a_message_with_another_layout_is_refused_with_both_digests() {
    let place = Place::new().listening().contracts(|ours| {
        let wide = "        type: \"f64\"\n        description: \"Highest price";
        ours.replacen(wide, &wide.replace("f64", "f32"), 1)
    });
    let _bridge = place.start();
    let body = r#"
with mycelium.connect(address, contracts=None) as channel:
    for request in (lambda: channel.subscribe(Quote), lambda: channel.publisher(Quote)):
        mismatch = raises(mycelium.ContractMismatch, request, "layout of Quote differs", f"peer={Quote.LAYOUT_DIGEST.hex()[:16]}", "bridge=")
        assert mismatch.actual == Quote.LAYOUT_DIGEST
    channel.subscribe(Signal)
"#;
    run(&place, body, &[]);
}

#[test]
fn a_taken_name_is_refused_until_its_client_has_left() {
    let place = Place::new().listening();
    let bridge = place.start();
    let _actor = bridge.attach("pricing").expect("attach");
    let body = r#"
import os
with mycelium.connect(address, name="risk"):
    taken = raises(mycelium.HandshakeRefused, lambda: mycelium.connect(address, name="risk"), "name=risk", f"pid={os.getpid()}")
    assert taken.code == 3
assert mycelium.connect(address, name="risk").name == "risk"
raises(mycelium.HandshakeRefused, lambda: mycelium.connect(address, name="pricing"), "name=pricing")
"#;
    run(&place, body, &[]);
}

#[test]
fn a_payload_that_never_fits_is_refused_before_anything_is_written() {
    let place = Place::new().listening().bridge("ring_capacity = \"4KiB\"");
    let bridge = place.start();
    let body = r#"
class Note(mycelium.DynamicMessage):
    NAME, TOPIC, TOPIC_ID, ENCODING, MAX_SIZE = "Note", "Note", Quote.TOPIC_ID, 2, 4096
    LAYOUT_DIGEST, SCHEMA_DIGEST, LOG_PAYLOAD = Quote.LAYOUT_DIGEST, Quote.SCHEMA_DIGEST, True

for transport in ("auto", "socket"):
    with mycelium.connect(address, contracts=[Note], transport=transport) as channel:
        assert channel.max_payload == 1016, channel.max_payload
        notes = channel.publisher(Note)
        large = raises(mycelium.FrameTooLarge, lambda: notes.send("x" * 2000), "payload_len=2002", "1016", "ring_capacity")
        assert (large.payload_len, large.max_payload) == (2002, 1016) and isinstance(large, ValueError)
        raises(mycelium.FrameTooLarge, lambda: notes.send("x" * 5000), "payload_len=5002", "4096")
        assert channel.statistics().frames_out == 0
        # One that fits, but has not the encoding of the message, is dropped by the bridge, which says so.
        notes.send("short")
        end = time.monotonic() + 50
        while channel.statistics().frames_rejected == 0 and time.monotonic() < end:
            raises(TimeoutError, lambda: channel.recv(timeout=0.01))
        assert (channel.statistics().frames_out, channel.statistics().frames_rejected) == (1, 1)
"#;
    run(&place, body, &[]);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn another_user_is_refused_readably() {
    let place = Place::new().listening().bridge("allowed_uids = [12345]");
    let _bridge = place.start();
    let body = r#"
import os
refused = raises(mycelium.HandshakeRefused, lambda: mycelium.connect(address), f"uid={os.getuid()}", "12345")
assert refused.code == 4
"#;
    run(&place, body, &[]);
}

#[test]
fn shared_memory_that_is_demanded_and_not_to_be_had_is_refused() {
    let place = Place::new().listening();
    let _bridge = BridgeProcess::listening(&place, Some("memfd"));
    let body = r#"
refused = raises(mycelium.HandshakeRefused, lambda: mycelium.connect(address, transport="shm"), "shared memory", "MEMFD_UNAVAILABLE")
assert refused.code == 5
with mycelium.connect(address) as channel:
    assert (channel.transport, channel.fallback_code) == ("socket", "MEMFD_UNAVAILABLE")
    assert "memfd_create failed" in channel.fallback_reason
"#;
    run(&place, body, &[]);
}

#[test]
fn addresses_that_lead_nowhere_are_named() {
    let place = Place::new();
    let body = r#"
raises(mycelium.PeerLost, lambda: mycelium.connect(address), "bridge.sock")
raises(mycelium.AddressError, lambda: mycelium.connect("http://example"), "http://example")
raises(mycelium.AddressError, lambda: mycelium.connect(), "MYCELIUM_FD")
"#;
    run(&place, body, &[]);
}

#[test]
fn a_publisher_waits_for_a_slow_subscriber() {
    let place = Place::new().listening().bridge("ring_capacity = \"4KiB\"");
    let _bridge = place.start();
    let body = r#"
for transport in ("auto", "socket"):
    reader = mycelium.connect(address, transport=transport)
    reader.subscribe(Quote)
    writer = mycelium.connect(address, transport=transport)
    quotes = writer.publisher(Quote)
    sent = 0
    try:
        while True:
            quotes.send(Quote(symbol="EUR/USD", sequence=sent + 1), timeout=0.05)
            sent += 1
    except mycelium.ChannelFull as error:
        assert isinstance(error, TimeoutError) and "no room in time" in str(error), error
        assert error.needed > 0
    assert sent > 0
    raises(mycelium.ChannelFull, lambda: quotes.send(Quote(symbol="EUR/USD", sequence=0), timeout=0))
    def go_on():
        for number in range(sent + 1, sent + 301):
            quotes.send(Quote(symbol="EUR/USD", sequence=number), timeout=50)
    waiting = threading.Thread(target=go_on)
    waiting.start()
    for number in range(1, sent + 301):
        got = reader.recv(timeout=50).sequence
        assert got == number, (transport, got, number)
    waiting.join()
    raises(TimeoutError, lambda: reader.recv(timeout=0.02))
    reader.close()
    writer.close()
"#;
    run(&place, body, &[]);
}
