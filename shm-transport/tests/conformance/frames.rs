//! Cases about frames: what is sent arrives, whole and in order, and what finds no room is not lost.

use std::thread;
use std::time::Duration;

use mycelium_messages::bandit::Quote;
use mycelium_messages::zerocopy::IntoBytes as _;
use shm_transport::error::ChannelError;
use shm_transport::ring::Frame;

use crate::fixture::{CAPACITY, LinkFixture, TOPIC, link, payload, send};
use crate::server::WATCHDOG;

fn sizes() -> Vec<usize> {
    let max = CAPACITY / 4 - 8;
    let mut sizes: Vec<usize> = (0..100).collect();
    sizes.extend([1000, 4095, 4096, 4097, max - 9, max - 8, max - 1, max]);
    sizes.extend((0..300).map(|number| (number * 7919) % 3000));
    sizes
}

pub(crate) fn every_size_arrives_in_order_with_its_content<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let peer = thread::spawn(move || {
        for (number, len) in sizes().into_iter().enumerate() {
            send(&mut channel, &payload(number, len), Some(WATCHDOG)).expect("room");
        }
        for (number, len) in sizes().into_iter().enumerate() {
            let frame = channel.recv(Some(WATCHDOG)).expect("frame");
            assert!(
                frame.to_vec() == payload(number, len),
                "to the peer: number={number}"
            );
        }
        channel
    });
    for (number, len) in sizes().into_iter().enumerate() {
        let got = server.recv().expect("frame");
        assert!(
            got == payload(number, len),
            "from the peer: number={number} len={len}"
        );
    }
    for (number, len) in sizes().into_iter().enumerate() {
        server.publish(TOPIC, &payload(number, len));
    }
    server.until("the peer has everything", |_| peer.is_finished());
    let statistics = peer.join().expect("peer").statistics();
    let count = sizes().len() as u64;
    assert_eq!(
        (statistics.frames_in, statistics.frames_out),
        (count, count)
    );
}

pub(crate) fn back_pressure_loses_nothing<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    // The bridge's side does not read, so ring and stream fill up.
    let mut sent = 0;
    loop {
        match send(&mut channel, &payload(sent, 5000), Some(Duration::ZERO)) {
            Ok(()) => sent += 1,
            Err(ChannelError::Full { payload_len, .. }) => break assert_eq!(payload_len, 5000),
            Err(error) => panic!("{error}"),
        }
    }
    // A pipe holds 64 KiB, the others more.
    assert!(sent >= 8, "sent={sent}");
    // One more that waits wakes up once there is room.
    let waiting = thread::spawn(move || {
        send(&mut channel, &payload(sent, 5000), Some(WATCHDOG)).expect("room comes");
        channel
    });
    for number in 0..=sent {
        assert!(
            server.recv().expect("frame") == payload(number, 5000),
            "number={number}"
        );
    }
    let mut channel = waiting.join().expect("it woke up");
    // And the other way round.
    let mut published = 0;
    while server.try_publish(TOPIC, &payload(published, 5000)) {
        published += 1;
        assert!(published < 10_000, "nothing holds the publisher up");
    }
    for number in 0..published {
        while {
            server.turn();
            let frame = channel.try_recv().expect("open");
            frame
                .map(|frame| assert!(frame.to_vec() == payload(number, 5000)))
                .is_none()
        } {}
    }
}

pub(crate) fn a_payload_over_the_limit_is_refused_before_anything_is_written<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let max = CAPACITY / 4 - 8;
    match send(&mut channel, &payload(0, max + 1), None) {
        Err(ChannelError::TooLarge {
            payload_len,
            max_payload,
        }) => {
            assert_eq!((payload_len, max_payload), (max + 1, max));
        }
        other => panic!("{other:?}"),
    }
    send(&mut channel, &payload(1, 10), None).expect("room");
    assert_eq!(server.recv(), Some(payload(1, 10)));
}

pub(crate) fn a_full_stream_takes_far_fewer_calls_than_messages<F: LinkFixture>() {
    const COUNT: usize = 20_000;
    let (mut channel, mut server) = link::<F>();
    let before = server.traffic();
    let peer = thread::spawn(move || {
        for number in 0..COUNT {
            let frame = channel.recv(Some(WATCHDOG)).expect("frame");
            assert_eq!(frame.payload_len(), 64, "number={number}");
        }
        channel
    });
    for number in 0..COUNT {
        if !server.try_publish(TOPIC, &payload(number, 64)) {
            server.publish(TOPIC, &payload(number, 64));
        }
    }
    server.until("the peer has everything", |_| peer.is_finished());
    drop(peer.join().expect("peer"));
    let sends = server.traffic().sends - before.sends;
    assert!(
        sends < COUNT as u64 / 10,
        "sends={sends} of {COUNT} messages"
    );
}

pub(crate) fn a_burst_is_one_send_or_at_most_one_wakeup<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let quotes: Vec<Quote> = (0..200)
        .map(|number| Quote {
            bid: f64::from(number),
            ..Quote::default()
        })
        .collect();
    let before = channel.statistics();
    let published = channel.publish_all(&quotes, Some(WATCHDOG)).expect("room");
    let after = channel.statistics();
    assert_eq!(
        (published, after.frames_out - before.frames_out),
        (200, 200)
    );
    assert_eq!(after.sends - before.sends, u64::from(!F::SHM));
    assert!(after.wakeups_sent - before.wakeups_sent <= 1);
    for quote in &quotes {
        assert_eq!(server.recv().expect("a quote"), quote.as_bytes());
    }
    let nothing: [Quote; 0] = [];
    assert_eq!(channel.publish_all(&nothing, None).expect("no work"), 0);
}

pub(crate) fn a_burst_that_ends_early_says_how_many_went_out<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    // More than the buffers of any stream take.
    let payloads: Vec<_> = (0..61).map(|number| payload(number, 16_000)).collect();
    let frames = payloads.iter().cycle().take(4000);
    let error = channel
        .publish_frames(
            frames.clone().map(|it| Frame::new(TOPIC, it)),
            Some(Duration::ZERO),
        )
        .expect_err("nobody reads");
    assert!(matches!(error.source, ChannelError::Full { .. }), "{error}");
    let published = error.published;
    assert!(published > 0 && published < 4000, "{error}");
    assert_eq!(channel.statistics().frames_out, published as u64);
    let peer = thread::spawn(move || {
        let huge = vec![0; CAPACITY];
        let bad = [Frame::new(TOPIC, b"one"), Frame::new(TOPIC, &huge)];
        let error = channel.publish_frames(bad, Some(WATCHDOG));
        let error = error.expect_err("never fits");
        assert!(
            matches!(error.source, ChannelError::TooLarge { .. }),
            "{error}"
        );
        assert_eq!(error.published, 1);
        let bad = [Frame::new(TOPIC, b"two"), Frame::new(1, b"")];
        let error = channel.publish_frames(bad, Some(WATCHDOG));
        let text = error.expect_err("reserved").to_string();
        assert!(
            text.contains("published=1: topic_id=1 is reserved"),
            "{text}"
        );
        channel
    });
    for expected in frames.take(published) {
        assert!(server.recv().expect("a frame") == *expected);
    }
    for expected in [b"one", b"two"] {
        assert_eq!(server.recv().expect("a frame"), expected);
    }
    peer.join().expect("peer");
}
