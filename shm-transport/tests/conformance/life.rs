//! Cases about a link's life: waiting, requests, and every way to end.

use std::thread;
use std::time::Duration;

use mycelium_messages::Message as _;
use mycelium_messages::bandit::Quote;
use mycelium_messages::control::{Goodbye, Shutdown};
use shm_transport::error::ChannelError;

use crate::fixture::{LinkFixture, TOPIC, accept, join, link, memory, payload, send};
use crate::server::WATCHDOG;

pub(crate) fn what_was_sent_before_a_clean_close_is_read<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    for number in 0..10 {
        send(&mut channel, &payload(number, 100), Some(WATCHDOG)).expect("room");
    }
    channel.close().expect("goodbye");
    for number in 0..10 {
        assert_eq!(server.recv(), Some(payload(number, 100)));
    }
    assert_eq!(server.recv(), None);
    let (header, _) = server.control.pop_front().expect("a word of goodbye");
    assert_eq!(
        (header.topic_id, server.ended),
        (Goodbye::TOPIC_ID, Some(0))
    );
}

pub(crate) fn what_a_killed_process_had_sent_is_read<F: LinkFixture>() {
    let (mut child, stream) = F::echo();
    let mut server = accept::<F>(stream, memory::<F>());
    for number in 0..50 {
        server.publish(TOPIC, &payload(number, 200));
    }
    // Each is acknowledged after its echo was published.
    server.until("everything is acknowledged", |server| {
        server.unacknowledged() == 0
    });
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    for number in 0..50 {
        assert_eq!(server.recv(), Some(payload(number, 200)), "number={number}");
    }
    assert_eq!(server.recv(), None);
    assert!(server.control.is_empty(), "no goodbye");
}

pub(crate) fn a_successor_gets_what_was_not_acknowledged<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    assert_eq!(channel.epoch(), 1);
    for number in 0..20 {
        server.publish(TOPIC, &payload(number, 300));
    }
    for number in 0..5 {
        server.turn();
        let frame = channel.recv(Some(WATCHDOG)).expect("frame");
        assert_eq!(frame.to_vec(), payload(number, 300));
    }
    // Without a goodbye: a crash.
    drop(channel);
    server.until("it is noticed", |server| server.ended.is_some());
    let memory = server.into_memory();
    let (mut channel, mut server) = join::<F>(memory);
    assert_eq!(channel.epoch(), 2);
    server.turn();
    let first = channel.recv(Some(WATCHDOG)).expect("frame").to_vec();
    let from = (0..20).position(|number| payload(number, 300) == first);
    let from = from.expect("one of the frames");
    assert!(
        from <= 4,
        "a frame in hand counts as not acknowledged: from={from}"
    );
    for number in from + 1..20 {
        server.turn();
        let frame = channel.recv(Some(WATCHDOG)).expect("frame");
        assert_eq!(frame.to_vec(), payload(number, 300), "number={number}");
    }
    channel.close().expect("goodbye");
    server.until("all is acknowledged", |server| server.ended.is_some());
    assert_eq!(server.unacknowledged(), 0);
}

pub(crate) fn requests_are_answered_while_application_frames_wait_for_room<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    for number in 0..40 {
        let outcome = send(&mut channel, &payload(number, 5000), Some(Duration::ZERO));
        assert!(matches!(outcome, Ok(()) | Err(ChannelError::Full { .. })));
    }
    for number in 0..3 {
        server.publish(TOPIC, &payload(number, 100));
    }
    let peer = thread::spawn(move || {
        channel.subscribe::<Quote>().expect("an answer");
        channel
    });
    // Nothing is read from the ring.
    server.until("the request is answered", |_| peer.is_finished());
    assert_eq!(server.requests, 1);
    let mut channel = peer.join().expect("it was answered");
    for number in 0..3 {
        let frame = channel.recv(Some(WATCHDOG)).expect("kept");
        assert_eq!(frame.to_vec(), payload(number, 100));
    }
}

pub(crate) fn an_idle_side_sleeps<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let before = channel.statistics().parks;
    let outcome = channel.recv(Some(Duration::from_millis(30)));
    assert!(matches!(outcome, Err(ChannelError::TimedOut { .. })));
    let parks = channel.statistics().parks - before;
    assert!((1..=100).contains(&parks), "parks={parks}");
    server.publish(TOPIC, b"wake up");
    server.turn();
    assert_eq!(
        channel.recv(Some(WATCHDOG)).expect("frame").to_vec(),
        b"wake up"
    );
}

pub(crate) fn a_shutdown_comes_behind_what_was_sent<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    server.publish(TOPIC, b"last");
    server.turn();
    server.send_control(&Shutdown {
        deadline_ms: 1000,
        ..Shutdown::default()
    });
    server.turn();
    assert_eq!(
        channel.recv(Some(WATCHDOG)).expect("frame").to_vec(),
        b"last"
    );
    let end = channel.recv(Some(WATCHDOG));
    assert!(matches!(end, Err(ChannelError::Closed { .. })), "{end:?}");
}
