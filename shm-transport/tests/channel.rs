//! The peer's end of a link against a bridge made of the crate's own parts.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mycelium_messages::DynamicMessage as _;
use mycelium_messages::bandit::CONTRACTS;
use mycelium_messages::control::{ContractsOffer, ContractsReport, FallbackCode, Shutdown};
use shm_transport::channel::handshake::{
    Offer, OfferedTransport, announce, offer, receive_contracts, receive_hello,
};
use shm_transport::channel::{Channel, ConnectOptions, Fallback, LinkEnds};
use shm_transport::error::ChannelError;
use shm_transport::frame::Encoding;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{Fencing, Frame};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::{Doorbell, WaitStrategy};

const TOPIC: u16 = 1001;
const WATCHDOG: Duration = Duration::from_secs(30);

/// The bridge's end of one link.
struct Bridge {
    stream: FrameStream,
    /// Over shared memory.
    ends: Option<LinkEnds>,
}

fn connect(shm: bool, wait: WaitStrategy) -> (Channel, Bridge) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let bridge = thread::spawn(move || accept(ours, shm));
    let options = ConnectOptions {
        wait: Some(wait),
        ..ConnectOptions::default()
    };
    let channel = Channel::from_stream(theirs, &options).expect("handshake");
    (channel, bridge.join().expect("bridge"))
}

fn accept(socket: UnixStream, shm: bool) -> Bridge {
    let deadline = Instant::now() + WATCHDOG;
    let mut stream = FrameStream::new(socket).expect("stream");
    receive_hello(&mut stream, deadline).expect("Hello");
    let segment = Segment::create(&SegmentOptions::new(4096)).expect("segment");
    let (own, peer) = (
        Doorbell::new().expect("doorbell"),
        Doorbell::new().expect("doorbell"),
    );
    let transport = if shm {
        OfferedTransport::Shm {
            segment: segment.fd(),
            bridge_doorbell: own.as_fd(),
            peer_doorbell: peer.as_fd(),
        }
    } else {
        OfferedTransport::Socket(Fallback::new(FallbackCode::REQUESTED, "the test"))
    };
    let terms = Offer {
        name: "test",
        link_id: 1,
        epoch: 1,
        spin_us: 0,
        max_payload: 4 << 20,
        ack_window: 8,
        schema_digest: [0; 32],
        settings: "{}",
        fencing: Fencing::Fenced,
        transport,
    };
    offer(&mut stream, &terms, deadline).expect("Attached");
    stream.expect_data(4 << 20);
    let ends = shm.then(|| {
        LinkEnds::attach(
            segment.ring(RING_TO_BRIDGE),
            segment.ring(RING_TO_PEER),
            own,
            peer,
            Fencing::Fenced,
        )
        .expect("fresh rings")
    });
    Bridge { stream, ends }
}

/// Runs `work` on a thread of its own and fails if it hangs.
fn watched<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    outcome.recv_timeout(WATCHDOG).expect("hangs")
}

#[test]
fn a_peer_that_only_looks_notices_that_the_bridge_is_gone() {
    let (mut channel, bridge) = connect(true, WaitStrategy::Park);
    drop(bridge);
    let error = watched(move || {
        loop {
            match channel.try_recv() {
                Ok(frame) => assert!(frame.is_none()),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(error, ChannelError::PeerLost { .. }), "{error}");
}

#[test]
fn a_peer_that_spins_for_ever_notices_that_the_bridge_is_gone() {
    let (mut channel, bridge) = connect(true, WaitStrategy::BusySpin);
    drop(bridge);
    let error = watched(move || {
        channel
            .recv(None)
            .map(|_| ())
            .expect_err("the bridge is gone")
    });
    assert!(matches!(error, ChannelError::PeerLost { .. }), "{error}");
}

#[test]
fn after_a_shutdown_a_peer_still_waits_for_room_to_publish_its_last_answers() {
    let (mut channel, mut bridge) = connect(true, WaitStrategy::Park);
    let ends = bridge.ends.as_mut().expect("shared memory");
    let payload = [7_u8; 1000];
    while channel
        .publish_frame(&Frame::new(TOPIC, &payload), Some(Duration::ZERO))
        .is_ok()
    {}
    bridge.stream.queue_message(&Shutdown {
        deadline_ms: 20_000,
        ..Shutdown::default()
    });
    assert!(bridge.stream.flush().expect("open"));
    // Nothing is left to read, so the shutdown shows.
    let error = channel.recv(None).map(|_| ()).expect_err("shutdown");
    assert!(matches!(error, ChannelError::Closed { .. }), "{error}");

    let publisher = thread::spawn(move || {
        let last = Frame::new(TOPIC, &payload);
        let outcome = channel.publish_frame(&last, Some(WATCHDOG));
        (channel, outcome)
    });
    let deadline = Instant::now() + WATCHDOG;
    let mut received = 0;
    while received < 5 && Instant::now() < deadline && !publisher.is_finished() || received < 4 {
        if ends.peek().expect("sound").is_some() {
            ends.advance();
            received += 1;
        }
        ends.publish_head();
    }
    let (channel, outcome) = publisher.join().expect("publisher");
    outcome.expect("there was room in time");
    drop(channel);
}

#[test]
fn what_was_published_over_the_socket_is_sent_although_the_peer_does_nothing_more() {
    let (mut channel, mut bridge) = connect(false, WaitStrategy::Park);
    let payload = vec![3_u8; 3 << 20];
    let (finish, finished) = mpsc::channel::<()>();
    let publisher = thread::spawn(move || {
        let outcome = channel.publish_frame(&Frame::new(TOPIC, &payload), Some(WATCHDOG));
        // The channel stays open and idle.
        let _ = finished.recv();
        outcome
    });
    let deadline = Instant::now() + WATCHDOG;
    let received = bridge.stream.receive_until(deadline);
    drop(finish);
    publisher.join().expect("publisher").expect("published");
    let (header, payload) = received.expect("the whole frame");
    assert_eq!((header.topic_id, payload.len()), (TOPIC, 3 << 20));
}

#[test]
fn everything_that_arrived_over_the_socket_is_read_before_the_loss_of_the_bridge_is_told() {
    let (mut channel, mut bridge) = connect(false, WaitStrategy::Park);
    for number in 0..3 {
        bridge.stream.queue_frame(&Frame::new(TOPIC, &[number; 16]));
    }
    assert!(bridge.stream.flush().expect("open"));
    drop(bridge);
    for number in 0..3 {
        let frame = channel.recv(Some(WATCHDOG)).expect("it has arrived");
        assert_eq!(frame.to_vec(), [number; 16]);
    }
    let error = channel.recv(Some(WATCHDOG)).map(|_| ()).expect_err("gone");
    assert!(matches!(error, ChannelError::PeerLost { .. }), "{error}");
}

/// What a peer says of a bridge that answers the contracts with this frame.
fn told_of_contracts(topic_id: u16, payload: &[u8]) -> String {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let options = ConnectOptions::for_contracts(&CONTRACTS);
    let peer = thread::spawn(move || Channel::from_stream(theirs, &options).map(drop));
    let deadline = Instant::now() + WATCHDOG;
    let mut stream = FrameStream::new(ours).expect("stream");
    receive_hello(&mut stream, deadline).expect("Hello");
    let terms = Offer {
        name: "test",
        link_id: 1,
        epoch: 1,
        spin_us: 0,
        max_payload: 4 << 20,
        ack_window: 8,
        schema_digest: [7; 32],
        settings: "{}",
        fencing: Fencing::Fenced,
        transport: OfferedTransport::Socket(Fallback::new(FallbackCode::REQUESTED, "the test")),
    };
    announce(&mut stream, &terms, deadline).expect("Welcome");
    let offered = receive_contracts(&mut stream, deadline).expect("the peer's contracts");
    assert_eq!(offered, CONTRACTS.to_json().as_bytes());
    let frame = Frame::new(topic_id, payload).with_encoding(Encoding::Json);
    stream.queue_frame(&frame);
    // A peer that has seen enough hangs up before it has everything.
    let _ = stream.flush_until(deadline);
    let outcome = watched(move || peer.join().expect("no panic"));
    outcome.expect_err("no report").to_string()
}

#[test]
fn a_report_of_contracts_that_breaks_the_protocol_is_refused_by_its_field() {
    let report = ContractsReport::TOPIC_ID;
    let long = vec![b' '; ContractsReport::MAX_SIZE + 1];
    let deep = vec![b'['; 100_000];
    let cases: [(&str, u16, &[u8], &str); 9] = [
        ("over-long", report, &long, "payload_len=1048577"),
        ("deep", report, &deep, "no JSON array"),
        ("empty", report, b"", "no JSON array"),
        ("not UTF-8", report, b"\xff\x00", "no JSON array"),
        ("an object", report, b"{}", "no JSON array"),
        ("no topic", report, b"[{\"id\":-1}]", "id of difference 0"),
        (
            "no name",
            report,
            b"[{\"id\":1,\"name\":[]}]",
            "name of difference 0",
        ),
        (
            "no verdict",
            report,
            br#"[{"id":1,"name":"A","text":"","compatible":"no"}]"#,
            "compatible of difference 0",
        ),
        (
            "the other direction",
            ContractsOffer::TOPIC_ID,
            b"[]",
            "topic_id=14",
        ),
    ];
    for (name, topic_id, payload, named) in cases {
        let text = told_of_contracts(topic_id, payload);
        assert!(text.contains(named), "{name}: {text}");
        assert!(text.len() < 600, "{name}: {text}");
    }
}
