//! A Rust client in another place than the bridge, over the listening socket.

use std::time::Duration;

use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_messages::message::Contracts;
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expect, expected_transport, publish, quote, subscribe,
    wait_for, wait_until,
};
use shm_transport::channel::{Channel, ConnectOptions, PeerContracts, Transport, TransportRequest};
use shm_transport::error::{ChannelError, HandshakeError};
use shm_transport::ring::Frame;

const SHORT: Option<Duration> = Some(Duration::from_millis(50));

fn options(name: &str) -> ConnectOptions {
    ConnectOptions::for_contracts(&CONTRACTS).named(name)
}

fn connect(place: &Place, options: &ConnectOptions) -> Channel {
    Channel::connect(&place.address(), options).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(place: &Place, options: &ConnectOptions) -> (&'static str, String) {
    match Channel::connect(&place.address(), options) {
        Err(HandshakeError::Refused { name, message, .. }) => (name, message),
        other => panic!("a refusal was due: {other:?}"),
    }
}

fn signal(sequence: u64) -> Signal {
    Signal {
        quote_sequence: sequence,
        price: 1.5,
        ..Signal::default()
    }
}

fn receive(channel: &mut Channel) -> Signal {
    channel
        .recv(Some(WATCHDOG))
        .expect("a frame")
        .read()
        .expect("a signal")
}

fn a_client_publishes_and_receives(request: TransportRequest, transport: Transport) {
    let place = Place::new().listening();
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut client = connect(&place, &options("client").over(request));
    assert_eq!(
        (client.name(), client.epoch(), client.transport()),
        ("client", 1, transport)
    );
    assert_eq!(client.fallback().is_some(), transport == Transport::Socket);
    client.subscribe::<Signal>().expect("subscribe");
    client.advertise::<Quote>().expect("advertise");
    subscribe::<Quote>(&bridge, &actor);
    for round in 1..=1000 {
        client
            .publish(&quote(round), Some(WATCHDOG))
            .expect("publish");
        assert_eq!(expect::<Quote>(&mut actor), quote(round));
        publish(&mut actor, &signal(round));
        assert_eq!(receive(&mut client).quote_sequence, round);
    }
    assert!(
        matches!(client.try_recv(), Ok(None)),
        "nothing more was sent"
    );
    client.unsubscribe::<Signal>().expect("unsubscribe");
    publish(&mut actor, &signal(0));
    wait_until("an unrouted signal", || {
        let snapshot = bridge.snapshot().expect("counters");
        let link = snapshot
            .links
            .iter()
            .find(|(link, _)| *link == actor.link());
        link.is_some_and(|(_, counters)| counters.unrouted == 1)
    });
    let status = bridge.link("client").expect("the client's link");
    assert_eq!(
        (status.transport, status.pid),
        (Some(transport), Some(std::process::id()))
    );
    client.close().expect("close");
    wait_until("the end of the link", || bridge.link("client").is_none());
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_client_publishes_and_receives_over_the_transport_that_is_to_be_had() {
    a_client_publishes_and_receives(TransportRequest::Auto, expected_transport());
}

#[test]
fn a_client_publishes_and_receives_over_the_socket() {
    a_client_publishes_and_receives(TransportRequest::Socket, Transport::Socket);
}

#[test]
fn a_topic_that_the_bridge_does_not_have_is_refused_and_the_link_goes_on() {
    let place = Place::new().listening().contracts(|ours| {
        ours.replace("  Signal:\n", "  Verdict:\n")
            .replace("tlv_type: 1002", "tlv_type: 1003")
    });
    let bridge = place.start();
    let mut client = connect(
        &place,
        &ConnectOptions {
            contracts: PeerContracts::default(),
            ..options("client")
        },
    );
    let error = client
        .subscribe::<Signal>()
        .expect_err("the topic is unknown");
    let text = error.to_string();
    assert!(
        matches!(
            error,
            ChannelError::Topic {
                topic_id: 1002,
                name: "UNKNOWN_TOPIC",
                ..
            }
        ),
        "{text}"
    );
    assert!(
        text.contains("message=Signal")
            && text.contains("topic_id=1002")
            && text.contains("contracts.yaml"),
        "{text}"
    );
    assert!(matches!(
        client.advertise::<Signal>(),
        Err(ChannelError::Topic { topic_id: 1002, .. })
    ));

    // Published all the same, it is dropped, counted and said.
    client.publish(&signal(1), Some(WATCHDOG)).expect("publish");
    wait_for("the bridge's word that it dropped the frame", || {
        assert!(matches!(client.try_recv(), Ok(None)));
        (client.statistics().dropped == 1).then_some(())
    });
    client.subscribe::<Quote>().expect("the link goes on");
    let mut actor = bridge.attach("actor").expect("attach");
    publish(&mut actor, &quote(7));
    let got: Quote = client
        .recv(Some(WATCHDOG))
        .expect("a frame")
        .read()
        .expect("a quote");
    assert_eq!(got, quote(7));
}

#[test]
fn a_message_with_another_layout_is_refused_with_both_digests() {
    let place = Place::new().listening().contracts(|ours| {
        ours.replacen(
            "        type: \"f64\"\n        description: \"Highest price",
            "        type: \"f32\"\n        description: \"Highest price",
            1,
        )
    });
    let _bridge = place.start();
    let mut client = connect(
        &place,
        &ConnectOptions {
            contracts: PeerContracts::default(),
            ..options("client")
        },
    );
    let error = client
        .subscribe::<Quote>()
        .expect_err("the layouts differ")
        .to_string();
    let ours: String = <Quote as mycelium_messages::Message>::LAYOUT_DIGEST[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        error.contains("LAYOUT_MISMATCH") && error.contains("layout of Quote differs"),
        "{error}"
    );
    assert!(
        error.contains(&format!("peer={ours}")) && error.contains("bridge="),
        "{error}"
    );
    client
        .subscribe::<Signal>()
        .expect("the other message is the same on both sides");
}

#[test]
fn a_strict_bridge_refuses_other_contracts_with_both_digests() {
    let place = Place::new()
        .listening()
        .table("[contracts]\non_mismatch = \"refuse\"");
    let bridge = place.start();
    static THEIRS: Contracts = Contracts {
        schema_digest: [7; 32],
        ..CONTRACTS
    };
    let theirs = THEIRS.schema_digest;
    let asked = ConnectOptions::for_contracts(&THEIRS).named("client");
    let refused = Channel::connect(&place.address(), &asked);
    let Err(HandshakeError::Refused {
        name,
        expected_digest,
        actual_digest,
        message,
        ..
    }) = refused
    else {
        panic!("a refusal was due: {refused:?}")
    };
    assert_eq!(
        (name, expected_digest, actual_digest),
        ("SCHEMA_MISMATCH", CONTRACTS.schema_digest, theirs)
    );
    let ours: String = CONTRACTS
        .schema_digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        message.contains(&ours) && message.contains(&"07".repeat(32)),
        "{message}"
    );
    assert_eq!(bridge.links(), []);
}

#[test]
fn a_taken_name_is_refused_until_its_client_has_left() {
    let place = Place::new().listening();
    let bridge = place.start();
    let first = connect(&place, &options("risk"));
    let (name, message) = refusal(&place, &options("risk"));
    assert_eq!(name, "NAME_TAKEN");
    let pid = std::process::id();
    assert!(
        message.contains("name=risk") && message.contains(&format!("pid={pid}")),
        "{message}"
    );
    first.close().expect("close");
    // At once, before the bridge can have seen the goodbye.
    let second = connect(&place, &options("risk"));
    assert_eq!(second.name(), "risk");
    // Left without a goodbye, it is free as well.
    drop(second);
    assert_eq!(connect(&place, &options("risk")).epoch(), 1);
    wait_until("a free name", || bridge.link("risk").is_none());
}

#[test]
fn the_name_of_an_actor_is_taken_too() {
    let place = Place::new().listening();
    let bridge = place.start();
    let actor = bridge.attach("pricing").expect("attach");
    assert_eq!(refusal(&place, &options("pricing")).0, "NAME_TAKEN");
    drop(actor);
    assert_eq!(connect(&place, &options("pricing")).name(), "pricing");
}

fn a_payload_that_never_fits_is_refused_before_anything_is_written(request: TransportRequest) {
    let place = Place::new().listening().bridge("ring_capacity = \"4KiB\"");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let mut client = connect(&place, &options("client").over(request));
    let error = client
        .publish_frame(&Frame::new(1001, &[0; 2000]), None)
        .expect_err("it never fits");
    assert!(
        matches!(
            error,
            ChannelError::TooLarge {
                payload_len: 2000,
                max_payload: 1016
            }
        ),
        "{error}"
    );
    let reserved = client
        .publish_frame(&Frame::new(1, &[0; 8]), None)
        .expect_err("a control topic");
    assert!(
        matches!(reserved, ChannelError::ReservedTopic { topic_id: 1 }),
        "{reserved}"
    );
    client.publish(&quote(1), Some(WATCHDOG)).expect("publish");
    assert_eq!(expect::<Quote>(&mut actor), quote(1));
    let link = bridge.link("client").expect("the client's link").link;
    let snapshot = bridge.snapshot().expect("counters");
    let counters = snapshot
        .links
        .iter()
        .find(|(id, _)| *id == link)
        .expect("the client's counters")
        .1;
    assert_eq!((counters.frames_in, counters.dropped), (1, 0));
    assert_eq!(client.statistics().frames_out, 1);
}

#[test]
fn a_payload_that_never_fits_is_refused_before_anything_is_written_to_a_ring() {
    a_payload_that_never_fits_is_refused_before_anything_is_written(TransportRequest::Auto);
}

#[test]
fn a_payload_that_never_fits_is_refused_before_anything_is_written_to_the_socket() {
    a_payload_that_never_fits_is_refused_before_anything_is_written(TransportRequest::Socket);
}

/// A client that only publishes, and never waits for anything.
fn who_only_publishes_can_look(request: TransportRequest) {
    let place = Place::new().listening();
    let bridge = place.start();
    let mut client = connect(&place, &options("client").over(request));
    assert_eq!(client.take_rejected().expect("open"), []);
    let short = Frame::new(1001, &[0; 8]);
    let unknown = Frame::new(4711, &[0; 8]);
    for frame in [&short, &unknown, &short, &unknown] {
        client.publish_frame(frame, Some(WATCHDOG)).expect("room");
    }
    let mut rejected = Vec::new();
    wait_until("the bridge's word on both topics", || {
        rejected.extend(client.take_rejected().expect("open"));
        rejected.len() == 2
    });
    let said: Vec<_> = rejected.iter().map(|it| (it.topic_id, it.name)).collect();
    assert_eq!(said, [(1001, "WRONG_SIZE"), (4711, "UNKNOWN_TOPIC")]);
    for part in ["Quote", "expected=64..=64", "actual=8"] {
        let reason = &rejected[0].reason;
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(client.statistics().dropped, 2, "once per topic");
    let link = bridge.link("client").expect("its link").link;
    wait_until("four dropped frames", || {
        let snapshot = bridge.snapshot().expect("counters");
        let mut links = snapshot.links.iter();
        links.any(|(id, counters)| *id == link && counters.dropped == 4)
    });
}

#[test]
fn who_only_publishes_can_look_for_rejections() {
    who_only_publishes_can_look(TransportRequest::Auto);
}

#[test]
fn who_only_publishes_can_look_for_rejections_over_the_socket() {
    who_only_publishes_can_look(TransportRequest::Socket);
}

#[test]
fn a_payload_of_the_wrong_size_is_dropped_and_the_publisher_told() {
    let place = Place::new().listening();
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let mut client = connect(&place, &options("client"));
    client
        .publish_frame(&Frame::new(1001, &[1; 8]), Some(WATCHDOG))
        .expect("it fits into the ring");
    wait_for("the bridge's word that it dropped the frame", || {
        assert!(matches!(client.try_recv(), Ok(None)));
        (client.statistics().dropped == 1).then_some(())
    });
    client.publish(&quote(2), Some(WATCHDOG)).expect("publish");
    assert_eq!(expect::<Quote>(&mut actor), quote(2));
}

#[test]
fn another_user_is_refused_readably() {
    let place = Place::new().listening().bridge("allowed_uids = [12345]");
    let bridge = place.start();
    let (name, message) = refusal(&place, &options("client"));
    assert_eq!(name, "NOT_ALLOWED");
    let own = nix::unistd::getuid().as_raw();
    assert!(
        message.contains(&format!("uid={own}")) && message.contains("12345"),
        "{message}"
    );
    assert_eq!(bridge.links(), []);
}

#[test]
fn shared_memory_that_is_required_and_not_to_be_had_is_refused() {
    let place = Place::new().listening();
    let _bridge = BridgeProcess::listening(&place, Some("memfd"));
    let (name, message) = refusal(&place, &options("client").over(TransportRequest::Shm));
    assert_eq!(name, "SHM_REQUIRED");
    assert!(
        message.contains("the peer requires shared memory")
            && message.contains("MEMFD_UNAVAILABLE"),
        "{message}"
    );
    let client = connect(&place, &options("client"));
    let fallback = client.fallback().expect("the link runs over the socket");
    assert_eq!(fallback.code_name(), "MEMFD_UNAVAILABLE");
}

#[test]
fn a_place_where_nobody_listens_is_named() {
    let place = Place::new();
    let error = Channel::connect(&place.address(), &options("client"))
        .expect_err("nobody listens")
        .to_string();
    assert!(
        error.contains("bridge.sock") && error.contains("step=connect"),
        "{error}"
    );
}

fn a_publisher_waits_for_a_slow_subscriber(request: TransportRequest) {
    let place = Place::new().listening().bridge("ring_capacity = \"4KiB\"");
    let bridge = place.start();
    let mut reader = connect(&place, &options("reader").over(request));
    reader.subscribe::<Quote>().expect("subscribe");
    let mut writer = connect(&place, &options("writer").over(request));
    let mut sent = 0;
    let error = loop {
        match writer.publish(&quote(sent + 1), SHORT) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    let ChannelError::Full {
        payload_len,
        waited_ms,
    } = error
    else {
        panic!("full was due: {error}")
    };
    assert_eq!(payload_len, size_of::<Quote>());
    assert!(waited_ms >= 50, "it waited for {waited_ms} ms");
    assert!(sent > 0);

    // A publisher that waits goes on as soon as the subscriber does.
    const MORE: u64 = 500;
    let waiting = std::thread::spawn(move || {
        for sequence in sent + 1..=sent + MORE {
            writer
                .publish(&quote(sequence), Some(WATCHDOG))
                .expect("there is room again");
        }
        writer
    });
    for sequence in 1..=sent + MORE {
        let got: Quote = reader
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a quote");
        assert_eq!(got, quote(sequence));
    }
    let writer = waiting.join().expect("the publisher");
    assert_eq!(writer.statistics().frames_out, sent + MORE);
    drop((reader, writer));
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_publisher_waits_for_a_slow_subscriber_over_the_transport_that_is_to_be_had() {
    a_publisher_waits_for_a_slow_subscriber(TransportRequest::Auto);
}

#[test]
fn a_publisher_waits_for_a_slow_subscriber_over_the_socket() {
    a_publisher_waits_for_a_slow_subscriber(TransportRequest::Socket);
}
