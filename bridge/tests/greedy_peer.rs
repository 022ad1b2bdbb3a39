//! A peer that asks and asks and reads none of the answers.

mod common;

use std::os::unix::net::UnixStream;
use std::time::Instant;

use common::{Site, WATCHDOG};
use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_messages::control::{
    Attached, AttachedTransport, Hello, HelloTransport, Settings, Unsubscribe, Welcome,
};
use mycelium_messages::{DynamicMessage as _, InlineString, Message};
use shm_transport::layout::PROTOCOL_VERSION;
use shm_transport::socket::{FrameStream, StreamError};

/// Far more answers than the bridge may keep for one peer: some 100 MB.
const REQUESTS: usize = 400_000;

#[test]
fn a_peer_that_reads_no_answers_is_cut_off_before_they_pile_up() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let bridge = Bridge::start(&Config::load(site.config()).expect("sound")).expect("bridge");
    let socket = UnixStream::connect(site.path("bridge.sock")).expect("the bridge listens");
    let mut stream = FrameStream::new(socket).expect("stream");
    let deadline = Instant::now() + WATCHDOG;
    stream.queue_message(&Hello {
        protocol_version: PROTOCOL_VERSION,
        transport: HelloTransport::SOCKET,
        name: InlineString::new("greedy").expect("short"),
        ..Hello::default()
    });
    stream.flush_until(deadline).expect("Hello");
    for expected in [Welcome::TOPIC_ID, Settings::TOPIC_ID] {
        let (header, _) = stream.receive_until(deadline).expect("handshake");
        assert_eq!(header.topic_id, expected);
    }
    stream.queue_message(&Attached {
        transport: AttachedTransport::SOCKET,
        ..Attached::default()
    });
    let mut outcome = Ok(());
    for _ in 0..REQUESTS {
        stream.queue_message(&Unsubscribe { topic_id: 1 });
        outcome = stream.flush_until(deadline);
        if outcome.is_err() {
            break;
        }
    }
    assert!(
        matches!(outcome, Err(StreamError::HangUp)),
        "the bridge keeps all answers: {outcome:?}"
    );
    common::wait_for("the end of the link", || {
        bridge.link("greedy").is_none().then_some(())
    });
    bridge.shut_down().expect("control plane");
}
