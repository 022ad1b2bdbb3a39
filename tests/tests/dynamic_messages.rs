//! Dynamic messages between Rust and Python, over shared memory and over the socket: JSON, MessagePack and plain bytes.

use std::time::Duration;

use mycelium_messages::DynamicMessage;
use mycelium_tests::dynamic::{CONTRACTS, FixedQuote, JsonQuote, PackedQuote, RawQuote};
use mycelium_tests::{Place, WATCHDOG, repository, run_python, wait_for};
use serde::{Deserialize, Serialize};
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};
use shm_transport::error::{ChannelError, DecodeError, PayloadError};
use shm_transport::frame::Encoding;
use shm_transport::ring::Frame;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Quote {
    symbol: String,
    sequence: u64,
    bid: f64,
    venues: Vec<String>,
}

fn quote(sequence: u64) -> Quote {
    Quote {
        symbol: "EUR/USD é".into(),
        sequence,
        bid: 1.1 + sequence as f64,
        venues: vec!["A".into(); (sequence % 5) as usize],
    }
}

fn place() -> Place {
    let contracts = repository().join("tests/contracts/dynamic.yaml");
    Place::new().contracts_file(&contracts).listening()
}

fn connect(place: &Place, name: &str, transport: TransportRequest) -> Channel {
    let options = ConnectOptions::for_contracts(&CONTRACTS)
        .named(name)
        .over(transport);
    Channel::connect(&place.address(), &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Sends back what it gets, with the sequence as a negative number, until a raw message says so.
const ECHO: &str = r#"
import sys
address, transport, folder = sys.argv[1:]
sys.path.insert(0, folder)
import dynamic_messages as messages
import mycelium

with mycelium.connect(address, name="python", transport=transport, contracts=messages) as channel:
    assert channel.contract_differences == ()
    echo = {it: channel.publisher(it) for it in (messages.JsonQuote, messages.PackedQuote, messages.RawQuote)}
    channel.subscribe(*echo)
    echo[messages.RawQuote].send(b"ready")
    for message in channel:
        if bytes(message.payload) == b"end":
            break
        value = message.value
        if isinstance(value, bytes):
            echo[type(message)].send(value[::-1])
        else:
            assert sorted(value) == ["bid", "sequence", "symbol", "venues"], value
            value["sequence"] += 1_000_000
            echo[type(message)].send(value)
print("done")
"#;

fn both_languages_exchange_values(request: TransportRequest, transport: &'static str) {
    let place = place();
    let _bridge = place.start();
    let mut rust = connect(&place, "rust", request);
    rust.subscribe_dynamic::<JsonQuote>().expect("known");
    rust.subscribe_dynamic::<PackedQuote>().expect("known");
    rust.subscribe_dynamic::<RawQuote>().expect("known");
    rust.advertise_dynamic::<JsonQuote>().expect("known");
    let address = place.address();
    let folder = repository().join("tests/contracts");
    let python = std::thread::spawn(move || {
        run_python(
            ECHO,
            &[&address, transport, folder.to_str().expect("UTF-8")],
        )
    });
    let mut raw = Vec::new();
    loop {
        match rust.recv(Some(Duration::from_millis(100))) {
            Ok(frame) => {
                frame.read_raw::<RawQuote>(&mut raw).expect("raw bytes");
                break;
            }
            Err(error) if python.is_finished() => {
                python.join().expect("the client").assert_done();
                panic!("the client has ended: {error}");
            }
            Err(_) => {}
        }
    }
    assert_eq!(raw, b"ready");
    for sequence in 0..50 {
        let sent = quote(sequence);
        let expected = Quote {
            sequence: sequence + 1_000_000,
            ..sent.clone()
        };
        rust.publish_dynamic::<JsonQuote, _>(&sent, Some(WATCHDOG))
            .expect("room");
        let frame = rust.recv(Some(WATCHDOG)).expect("a frame");
        let json: Quote = frame.decode::<JsonQuote, _>().expect("a quote");
        assert_eq!(json, expected);
        rust.publish_dynamic::<PackedQuote, _>(&sent, Some(WATCHDOG))
            .expect("room");
        let frame = rust.recv(Some(WATCHDOG)).expect("a frame");
        let packed: Quote = frame.decode::<PackedQuote, _>().expect("a quote");
        assert_eq!(packed, expected);
        let bytes: Vec<u8> = (0..sequence as u8).collect();
        rust.publish_raw::<RawQuote>(&bytes, Some(WATCHDOG))
            .expect("room");
        raw.clear();
        let frame = rust.recv(Some(WATCHDOG)).expect("a frame");
        frame.read_raw::<RawQuote>(&mut raw).expect("raw bytes");
        raw.reverse();
        assert_eq!(raw, bytes);
    }
    rust.publish_raw::<RawQuote>(b"end", Some(WATCHDOG))
        .expect("room");
    python.join().expect("the client").assert_done();
}

#[test]
fn both_languages_exchange_values_over_the_transport_that_is_to_be_had() {
    both_languages_exchange_values(TransportRequest::Auto, "auto");
}

#[test]
fn both_languages_exchange_values_over_the_socket() {
    both_languages_exchange_values(TransportRequest::Socket, "socket");
}

#[test]
fn values_that_do_not_fit_are_refused_before_anything_is_sent() {
    let place = place();
    let _bridge = place.start();
    let mut rust = connect(&place, "rust", TransportRequest::Auto);
    let long = "x".repeat(1000);
    let too_large = |outcome: Result<(), ChannelError>, topic: u16| match outcome {
        Err(ChannelError::Payload(PayloadError::TooLarge {
            topic_id,
            payload_len,
            max_size: 256,
            ..
        })) => assert!(topic_id == topic && payload_len > 256, "{payload_len}"),
        other => panic!("too large: {other:?}"),
    };
    too_large(rust.publish_dynamic::<JsonQuote, _>(&long, None), 1102);
    too_large(rust.publish_dynamic::<PackedQuote, _>(&long, None), 1103);
    too_large(rust.publish_raw::<RawQuote>(long.as_bytes(), None), 1104);
    let error = rust
        .publish_dynamic::<RawQuote, _>(&1, None)
        .expect_err("raw bytes are no values");
    assert!(error.to_string().contains("publish_raw"), "{error}");
    let no_json = std::collections::HashMap::from([(vec![1], 2)]);
    let error = rust
        .publish_dynamic::<JsonQuote, _>(&no_json, None)
        .expect_err("keys of JSON are texts");
    assert!(
        matches!(
            &error,
            ChannelError::Payload(PayloadError::Unencodable { topic_id: 1102, .. })
        ),
        "{error}"
    );
    assert_eq!(rust.statistics().frames_out, 0);
}

#[test]
fn what_is_no_value_of_the_message_is_an_error_that_names_it() {
    fn frame<M: DynamicMessage>(payload: &[u8]) -> Frame<'_> {
        Frame::new(M::TOPIC_ID, payload).with_encoding(M::ENCODING)
    }
    for error in [
        frame::<JsonQuote>(b"{").decode::<JsonQuote, Quote>(),
        frame::<JsonQuote>(b"[]").decode::<JsonQuote, Quote>(),
        frame::<PackedQuote>(b"\xc1").decode::<PackedQuote, Quote>(),
    ]
    .map(|outcome| outcome.expect_err("no quote"))
    {
        let text = error.to_string();
        assert!(
            matches!(error, PayloadError::Undecodable { max_size: 256, .. }),
            "{text}"
        );
        assert!(
            text.contains("topic_id=110") && text.contains("payload_len="),
            "{text}"
        );
    }
    let behind = frame::<PackedQuote>(b"\x01\x02").decode::<PackedQuote, u8>();
    assert!(
        behind
            .expect_err("two values")
            .to_string()
            .contains("1 bytes behind")
    );
    let json = Frame::new(JsonQuote::TOPIC_ID, b"1").with_encoding(Encoding::MsgPack);
    assert_eq!(
        json.decode::<JsonQuote, u8>(),
        Err(PayloadError::Frame(DecodeError::Encoding {
            message: "JsonQuote",
            expected: "json",
            actual: "msgpack"
        }))
    );
    assert!(matches!(
        frame::<JsonQuote>(b"1").decode::<PackedQuote, u8>(),
        Err(PayloadError::Frame(DecodeError::Topic { .. }))
    ));
    assert!(matches!(
        frame::<RawQuote>(&[0; 257]).read_raw::<RawQuote>(&mut Vec::new()),
        Err(PayloadError::TooLarge {
            payload_len: 257,
            ..
        })
    ));
    let layout = [0; size_of::<FixedQuote>()];
    let fixed = Frame::new(
        <FixedQuote as mycelium_messages::Message>::TOPIC_ID,
        &layout,
    );
    assert!(fixed.read::<FixedQuote>().is_ok());
    assert!(matches!(
        fixed.with_encoding(Encoding::Json).read::<FixedQuote>(),
        Err(DecodeError::Encoding { actual: "json", .. })
    ));
}

#[test]
fn the_bridge_drops_frames_of_another_encoding_and_says_so() {
    let place = place();
    let bridge = place.start();
    let mut sender = connect(&place, "sender", TransportRequest::Auto);
    let mut reader = connect(&place, "reader", TransportRequest::Auto);
    reader.subscribe_dynamic::<JsonQuote>().expect("known");
    let wrong = Frame::new(JsonQuote::TOPIC_ID, b"1").with_encoding(Encoding::MsgPack);
    sender.publish_frame(&wrong, Some(WATCHDOG)).expect("room");
    sender
        .publish_dynamic::<JsonQuote, _>(&2, Some(WATCHDOG))
        .expect("room");
    let frame = reader.recv(Some(WATCHDOG)).expect("a frame");
    assert_eq!(frame.decode::<JsonQuote, u8>(), Ok(2));
    wait_for("the bridge's word that it dropped the frame", || {
        assert!(matches!(sender.try_recv(), Ok(None)));
        (sender.statistics().dropped == 1).then_some(())
    });
    let link = bridge.link("sender").expect("known").link;
    let snapshot = bridge.snapshot().expect("counters");
    let (_, counters) = snapshot
        .links
        .iter()
        .find(|(other, _)| *other == link)
        .expect("known");
    assert_eq!((counters.frames_in, counters.dropped), (2, 1));
}

#[test]
fn an_actor_in_the_bridges_process_has_the_same_calls() {
    let bridge = place().start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut reader = bridge.attach("reader").expect("attach");
    actor.advertise_dynamic::<JsonQuote>().expect("known");
    reader.subscribe_dynamic::<JsonQuote>().expect("known");
    reader.subscribe_dynamic::<PackedQuote>().expect("known");
    reader.subscribe_dynamic::<RawQuote>().expect("known");
    bridge.snapshot().expect("after the subscriptions");

    let wait = Some(WATCHDOG);
    for sequence in 1..=20 {
        let sent = quote(sequence);
        actor
            .publish_dynamic::<JsonQuote, _>(&sent, wait)
            .expect("room");
        actor
            .publish_dynamic::<PackedQuote, _>(&sent, wait)
            .expect("room");
        let raw = vec![sequence as u8; sequence as usize];
        actor.publish_raw::<RawQuote>(&raw, wait).expect("room");

        let frame = reader.recv(wait).expect("a frame");
        assert_eq!(frame.decode::<JsonQuote, Quote>().as_ref(), Ok(&sent));
        let frame = reader.recv(wait).expect("a frame");
        assert_eq!(frame.decode::<PackedQuote, Quote>().as_ref(), Ok(&sent));
        let frame = reader.recv(wait).expect("a frame");
        let mut got = Vec::new();
        frame.read_raw::<RawQuote>(&mut got).expect("bytes");
        assert_eq!(got, raw);
    }

    let long = "x".repeat(300);
    for outcome in [
        actor.publish_dynamic::<JsonQuote, _>(&long, wait),
        actor.publish_raw::<RawQuote>(long.as_bytes(), wait),
    ] {
        let Err(ChannelError::Payload(PayloadError::TooLarge { max_size, .. })) = outcome else {
            panic!("too long: {outcome:?}")
        };
        assert_eq!(max_size, 256);
    }
    assert!(matches!(reader.try_recv(), Ok(None)));

    // A message of contracts that the bridge does not have.
    let other = actor.publish(&mycelium_messages::bandit::Quote::default(), wait);
    let Err(ChannelError::Topic {
        topic_id: 1001,
        name: "UNKNOWN_TOPIC",
        ..
    }) = other
    else {
        panic!("unknown: {other:?}")
    };
}

/// What `JsonQuote` was before somebody gave it more room.
struct OldQuote;

impl DynamicMessage for OldQuote {
    const NAME: &'static str = JsonQuote::NAME;
    const TOPIC: &'static str = JsonQuote::TOPIC;
    const TOPIC_ID: u16 = JsonQuote::TOPIC_ID;
    const LAYOUT_DIGEST: [u8; 32] = [7; 32];
    const SCHEMA_DIGEST: [u8; 32] = [7; 32];
    const DELIVERY: mycelium_messages::message::Delivery = JsonQuote::DELIVERY;
    const LOG_PAYLOAD: bool = true;
    const ENCODING: mycelium_messages::message::Encoding = JsonQuote::ENCODING;
    const MAX_SIZE: usize = 128;
}

#[test]
fn an_actor_with_another_form_of_a_dynamic_message_is_refused() {
    let bridge = place().start();
    let mut actor = bridge.attach("actor").expect("attach");
    for outcome in [
        actor.subscribe_dynamic::<OldQuote>(),
        actor.advertise_dynamic::<OldQuote>(),
        actor.publish_dynamic::<OldQuote, _>(&1, Some(WATCHDOG)),
        actor.publish_raw::<OldQuote>(b"1", Some(WATCHDOG)),
    ] {
        let Err(ChannelError::ContractMismatch(mismatch)) = outcome else {
            panic!("the forms differ: {outcome:?}")
        };
        assert_eq!(mismatch.actual, Some([7; 32]));
        assert_eq!(mismatch.expected, Some(JsonQuote::LAYOUT_DIGEST));
        let text = mismatch.to_string();
        assert!(text.contains("256") && text.contains("128"), "{text}");
    }
}
