//! The channel as futures: both transports, both kinds of runtime, cancelled waits, and what idle channels cost.

use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures_core::Stream;
use mycelium_messages::Message as _;
use mycelium_messages::bandit::Quote;
use mycelium_messages::control::{FallbackCode, Shutdown, Subscribe, TopicReply, TopicReplyCode};
use mycelium_messages::message::Delivery;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shm_transport::channel::handshake::{Offer, OfferedTransport, offer, receive_hello};
use shm_transport::channel::{AsyncChannel, Channel, ConnectOptions, Fallback, LinkEnds};
use shm_transport::error::ChannelError;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{Fencing, Frame};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::{FillOutcome, FrameStream, Stream as ByteStream};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};
use tokio::runtime::{Builder, Runtime};

const TOPIC: u16 = 1001;
const WATCHDOG: Duration = Duration::from_secs(60);
const MAX_PAYLOAD: u32 = 1 << 20;

/// The bridge's end of one link.
struct Bridge {
    stream: FrameStream,
    /// Over shared memory.
    ends: Option<LinkEnds>,
}

impl Bridge {
    /// Sends a frame, waiting for room.
    fn send(&mut self, payload: &[u8]) {
        let frame = Frame::new(TOPIC, payload);
        let Some(ends) = &mut self.ends else {
            self.stream.queue_frame(&frame);
            self.stream
                .flush_until(Instant::now() + WATCHDOG)
                .expect("open");
            return;
        };
        let mut spin = SpinBudget::new(WaitStrategy::Park);
        let mut room = ends
            .reserve(&mut spin, frame.header(), Some(WATCHDOG))
            .expect("room");
        room.copy_from_slice(payload);
        room.commit();
    }

    /// The next application frame.
    fn receive(&mut self) -> Vec<u8> {
        if let Some(ends) = &mut self.ends {
            let mut spin = SpinBudget::new(WaitStrategy::Park);
            let frame = ends.read(&mut spin, Some(WATCHDOG)).expect("sound");
            let payload = frame.expect("watchdog: no frame").to_vec();
            ends.advance();
            return payload;
        }
        loop {
            let (header, payload) = self
                .stream
                .receive_until(Instant::now() + WATCHDOG)
                .expect("a frame");
            if !header.is_control() {
                return payload;
            }
        }
    }
}

fn accept(socket: ByteStream, shm: bool) -> Bridge {
    let deadline = Instant::now() + WATCHDOG;
    let mut stream = FrameStream::new(socket).expect("stream");
    receive_hello(&mut stream, deadline).expect("Hello");
    let segment = Segment::create(&SegmentOptions::new(4096)).expect("segment");
    let own = Doorbell::new().expect("doorbell");
    let (peer, peers_part) = Doorbell::pair().expect("doorbell");
    let transport = if shm {
        OfferedTransport::Shm {
            segment: segment.fd(),
            bridge_doorbell: own.as_fd(),
            peer_doorbell: peers_part.as_fd(),
        }
    } else {
        OfferedTransport::Socket(Fallback::new(FallbackCode::REQUESTED, "the test"))
    };
    let terms = Offer {
        name: "test",
        link_id: 1,
        epoch: 1,
        spin_us: 0,
        max_payload: MAX_PAYLOAD,
        ack_window: 4096,
        schema_digest: [0; 32],
        settings: "{}",
        fencing: Fencing::Fenced,
        transport,
    };
    offer(&mut stream, &terms, deadline).expect("Attached");
    stream.expect_data(MAX_PAYLOAD as usize);
    let ends = shm.then(|| {
        let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
        LinkEnds::attach(read, write, own, peer, Fencing::Fenced).expect("fresh rings")
    });
    Bridge { stream, ends }
}

fn connect(shm: bool, wait: WaitStrategy) -> (Channel, Bridge) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    join(ours.into(), theirs.into(), shm, wait)
}

/// Over two pipes, which have a descriptor for each direction.
fn connect_over_pipes() -> (Channel, Bridge) {
    let ((from_theirs, to_ours), (from_ours, to_theirs)) = (
        std::io::pipe().expect("pipe"),
        std::io::pipe().expect("pipe"),
    );
    let ours = ByteStream::from_pipes(from_theirs.into(), to_theirs.into()).expect("pipes");
    let theirs = ByteStream::from_pipes(from_ours.into(), to_ours.into()).expect("pipes");
    join(ours, theirs, false, WaitStrategy::Park)
}

fn join(ours: ByteStream, theirs: ByteStream, shm: bool, wait: WaitStrategy) -> (Channel, Bridge) {
    let bridge = thread::spawn(move || accept(ours, shm));
    let options = ConnectOptions {
        wait: Some(wait),
        timeout: WATCHDOG,
        ..ConnectOptions::default()
    };
    let channel = Channel::from_stream(theirs, &options).expect("handshake");
    (channel, bridge.join().expect("bridge"))
}

fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime"),
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime"),
    ]
}

/// Fails if the future hangs.
async fn watched<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WATCHDOG, future)
        .await
        .expect("watchdog: hangs")
}

#[test]
fn frames_go_to_and_fro_on_both_transports_both_runtimes_and_with_every_strategy() {
    let strategies = [
        WaitStrategy::Park,
        WaitStrategy::Hybrid { spin_us: 50 },
        WaitStrategy::BusySpin,
    ];
    for runtime in runtimes() {
        for (shm, wait) in [true, false]
            .into_iter()
            .flat_map(|shm| strategies.map(|wait| (shm, wait)))
        {
            let (channel, mut bridge) = connect(shm, wait);
            let echo = thread::spawn(move || {
                for _ in 0..500 {
                    let payload = bridge.receive();
                    bridge.send(&payload);
                }
                bridge
            });
            let channel = runtime.block_on(watched(async move {
                let mut channel = channel.into_async().expect("registered");
                for number in 0..500_usize {
                    let payload = vec![number as u8; number];
                    channel
                        .publish_frame(&Frame::new(TOPIC, &payload))
                        .await
                        .expect("open");
                    assert_eq!(channel.recv().await.expect("open").to_vec(), payload);
                }
                channel
            }));
            assert_eq!(channel.get().statistics().frames_in, 500);
            echo.join().expect("echo");
        }
    }
}

#[test]
fn full_pipes_wake_a_publisher_and_bursts_lose_nothing() {
    let connections: [fn() -> (Channel, Bridge); 3] = [
        connect_over_pipes,
        || connect(false, WaitStrategy::Park),
        || connect(true, WaitStrategy::Park),
    ];
    for connect in connections {
        for runtime in runtimes() {
            let (channel, mut bridge) = connect();
            let (parked, may_read) = std::sync::mpsc::channel();
            let reader = thread::spawn(move || {
                // Nobody reads before the publisher sleeps, or nothing would have to wake it.
                may_read.recv().expect("publisher");
                for number in 0..4000_u32 {
                    assert_eq!(bridge.receive()[..4], number.to_le_bytes());
                }
                bridge
            });
            let statistics = runtime.block_on(watched(async move {
                let mut channel = channel.into_async().expect("registered");
                let payloads: Vec<[u8; 900]> = (0..4000_u32)
                    .map(|number| {
                        let mut payload = [0; 900];
                        payload[..4].copy_from_slice(&number.to_le_bytes());
                        payload
                    })
                    .collect();
                let frames = |range: std::ops::Range<usize>| {
                    payloads[range].iter().map(|it| Frame::new(TOPIC, it))
                };
                {
                    let mut burst = pin!(channel.publish_frames(frames(0..2000)));
                    assert!(poll_once(burst.as_mut()).await.is_none(), "all had room");
                    parked.send(()).expect("reader");
                    assert_eq!(burst.await.expect("open"), 2000);
                }
                for frame in frames(2000..4000) {
                    channel.publish_frame(&frame).await.expect("open");
                }
                channel.into_inner().statistics()
            }));
            assert_eq!(statistics.frames_out, 4000);
            reader.join().expect("reader");
        }
    }
}

#[test]
fn a_task_that_publishes_more_than_there_is_room_for_waits_and_loses_nothing() {
    for shm in [true, false] {
        for runtime in runtimes() {
            let (channel, mut bridge) = connect(shm, WaitStrategy::Park);
            let reader = thread::spawn(move || {
                for number in 0..3000_u32 {
                    let payload = bridge.receive();
                    assert_eq!(payload[..4], number.to_le_bytes());
                }
                bridge
            });
            let parks = runtime.block_on(watched(async move {
                let mut channel = channel.into_async().expect("registered");
                let mut payload = [0_u8; 900];
                for number in 0..3000_u32 {
                    payload[..4].copy_from_slice(&number.to_le_bytes());
                    channel
                        .publish_frame(&Frame::new(TOPIC, &payload))
                        .await
                        .expect("open");
                }
                let parks = channel.get().statistics().parks;
                channel.close().await.expect("open");
                parks
            }));
            assert!(!shm || parks > 0, "a ring of 4 KiB takes four of them");
            reader.join().expect("reader");
        }
    }
}

/// Polls a future once and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_dropped_receive_loses_no_frame_and_a_dropped_publish_publishes_at_most_once() {
    for shm in [true, false] {
        for runtime in runtimes() {
            let (channel, mut bridge) = connect(shm, WaitStrategy::Park);
            runtime.block_on(watched(async move {
                let mut channel = channel.into_async().expect("registered");
                let sender = thread::spawn(move || {
                    for number in 0..400_u32 {
                        bridge.send(&number.to_le_bytes());
                    }
                    bridge
                });
                let mut next = 0_u32;
                let mut dropped = 0;
                while next < 400 {
                    match poll_once(channel.recv()).await {
                        Some(frame) => {
                            assert_eq!(frame.expect("open").to_vec(), next.to_le_bytes());
                            next += 1;
                        }
                        None => {
                            dropped += 1;
                            // Waits until there is something, and drops that wait too when it wins.
                            tokio::select! {
                                biased;
                                () = tokio::task::yield_now() => {}
                                frame = channel.recv() => {
                                    assert_eq!(frame.expect("open").to_vec(), next.to_le_bytes());
                                    next += 1;
                                }
                            }
                        }
                    }
                }
                assert!(
                    poll_once(channel.recv()).await.is_none(),
                    "all were seen once"
                );
                let mut bridge = sender.join().expect("sender");
                let mut published = 0_u32;
                while let Some(outcome) =
                    poll_once(channel.publish_frame(&Frame::new(TOPIC, &[7; 1000]))).await
                {
                    outcome.expect("open");
                    published += 1;
                }
                if shm {
                    for _ in 0..published {
                        assert_eq!(bridge.receive(), [7; 1000]);
                    }
                    let mut spin = SpinBudget::new(WaitStrategy::Park);
                    let ends = bridge.ends.as_mut().expect("shared memory");
                    assert!(
                        ends.read(&mut spin, Some(Duration::ZERO))
                            .expect("sound")
                            .is_none()
                    );
                }
                assert!(dropped > 0 || next == 400);
            }));
        }
    }
}

#[test]
fn the_answer_to_a_dropped_request_is_not_taken_for_that_to_the_next() {
    for shm in [true, false] {
        let (channel, mut bridge) = connect(shm, WaitStrategy::Park);
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async move {
            let mut channel = channel.into_async().expect("registered");
            let dropped = poll_once(channel.subscribe_with::<Quote>(Delivery::Block)).await;
            assert!(dropped.is_none(), "nobody has answered");
            let answers = thread::spawn(move || {
                for _ in 0..2 {
                    let deadline = Instant::now() + WATCHDOG;
                    let (header, payload) = bridge.stream.receive_until(deadline).expect("asked");
                    let asked: Subscribe = Frame::new(header.topic_id, &payload)
                        .read()
                        .expect("a request");
                    bridge.stream.queue_message(&TopicReply {
                        request: Subscribe::TOPIC_ID,
                        topic_id: asked.topic_id,
                        code: TopicReplyCode::OK,
                        delivery: asked.delivery,
                        ..TopicReply::default()
                    });
                    bridge.stream.flush_until(deadline).expect("open");
                }
                bridge
            });
            let granted = watched(channel.subscribe_with::<Quote>(Delivery::DropOldest)).await;
            assert_eq!(granted.expect("granted"), Delivery::DropOldest);
            drop(answers.join().expect("both were asked"));
        });
    }
}

#[test]
fn timers_run_while_frames_come_without_end() {
    let (channel, mut bridge) = connect(true, WaitStrategy::Park);
    let stop = Arc::new(AtomicU64::new(0));
    let sender = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            while stop.load(Ordering::Relaxed) == 0 {
                let frame = Frame::new(TOPIC, &[1; 8]);
                let _ = bridge
                    .ends
                    .as_mut()
                    .expect("shared memory")
                    .try_publish(&frame);
            }
        })
    };
    let [runtime, _] = runtimes();
    let ticks = runtime.block_on(watched(async move {
        let mut channel = channel.into_async().expect("registered");
        let mut interval = tokio::time::interval(Duration::from_millis(1));
        let mut ticks = 0;
        while ticks < 20 {
            tokio::select! {
                biased;
                frame = channel.recv() => drop(frame.expect("open")),
                _ = interval.tick() => ticks += 1,
            }
        }
        ticks
    }));
    stop.store(1, Ordering::Relaxed);
    sender.join().expect("sender");
    assert_eq!(ticks, 20);
}

#[test]
fn the_stream_ends_with_the_bridge_and_tells_how() {
    for shm in [true, false] {
        for with_goodbye in [true, false] {
            let (channel, mut bridge) = connect(shm, WaitStrategy::Park);
            let [runtime, _] = runtimes();
            runtime.block_on(watched(async move {
                let mut channel = channel.into_async().expect("registered");
                for number in 0..3 {
                    bridge.send(&[number; 5]);
                }
                if with_goodbye {
                    bridge.stream.queue_message(&Shutdown::default());
                    assert!(bridge.stream.flush().expect("open"));
                } else {
                    drop(bridge);
                }
                let mut frames = pin!(channel.frames());
                let mut items = Vec::new();
                while let Some(item) = poll_fn(|cx| frames.as_mut().poll_next(cx)).await {
                    items.push(item);
                }
                let end = (!with_goodbye).then(|| items.pop().expect("an error"));
                let payloads: Vec<_> = items
                    .into_iter()
                    .map(|it| it.expect("a frame").payload().to_vec())
                    .collect();
                assert_eq!(payloads, [[0; 5], [1; 5], [2; 5]]);
                assert!(
                    matches!(end, None | Some(Err(ChannelError::PeerLost { .. }))),
                    "{end:?}"
                );
            }));
        }
    }
}

#[test]
fn thousands_of_idle_channels_are_not_polled_and_do_not_wake_anybody() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("limit");
    // Both ends of every channel are here: about 14 descriptors each.
    let count = usize::try_from(hard)
        .unwrap_or(usize::MAX)
        .saturating_sub(500)
        .div_euclid(16)
        .min(1000);
    assert!(count > 10, "limit of open files: {hard}");
    let [runtime, _] = runtimes();
    let mut bridges = Vec::new();
    let mut channels = Vec::new();
    for _ in 0..count {
        let (channel, bridge) = connect(true, WaitStrategy::Hybrid { spin_us: 10 });
        bridges.push(bridge);
        channels.push(channel);
    }
    let (busy, mut feeder) = connect(true, WaitStrategy::Park);
    let polls = Arc::new(AtomicU64::new(0));
    runtime.block_on(watched(async {
        let idle: Vec<_> = channels
            .into_iter()
            .map(|channel| {
                let polls = Arc::clone(&polls);
                tokio::spawn(async move {
                    let mut channel: AsyncChannel = channel.into_async().expect("registered");
                    let received = {
                        let mut receive: Pin<Box<dyn Future<Output = bool> + Send + '_>> =
                            Box::pin(async { channel.recv().await.is_ok() });
                        poll_fn(|cx| {
                            polls.fetch_add(1, Ordering::Relaxed);
                            receive.as_mut().poll(cx)
                        })
                        .await
                    };
                    (received, channel.get().statistics().parks)
                })
            })
            .collect();
        let mut busy = busy.into_async().expect("registered");
        let work = thread::spawn(move || {
            for number in 0..2000_u32 {
                feeder.send(&number.to_le_bytes());
            }
            feeder
        });
        for number in 0..2000_u32 {
            assert_eq!(
                busy.recv().await.expect("open").to_vec(),
                number.to_le_bytes()
            );
        }
        let at_rest = polls.load(Ordering::Relaxed);
        // The first poll finds the doorbell rung, as attaching rings it; the second goes to sleep.
        assert!(
            at_rest <= 3 * count as u64,
            "polls={at_rest} channels={count}"
        );
        let mut feeder = work.join().expect("feeder");
        feeder.send(&[1]);
        busy.recv().await.expect("open");
        assert_eq!(
            polls.load(Ordering::Relaxed),
            at_rest,
            "somebody was polled for nothing"
        );
        for bridge in &mut bridges {
            bridge.send(&[9]);
        }
        for task in idle {
            let (received, parks) = task.await.expect("task");
            assert!(received && parks <= 3, "parks={parks}");
        }
    }));
}

#[test]
fn frames_that_are_there_cost_no_sleep_and_no_wakeup() {
    let (channel, mut bridge) = connect(true, WaitStrategy::Park);
    let [runtime, _] = runtimes();
    runtime.block_on(watched(async move {
        let mut channel = channel.into_async().expect("registered");
        for round in 0..200_u32 {
            for part in 0..20 {
                bridge.send(&[round as u8, part]);
            }
            for part in 0..20 {
                assert_eq!(
                    channel.recv().await.expect("open").to_vec(),
                    [round as u8, part]
                );
            }
            channel
                .publish_frame(&Frame::new(TOPIC, &[3; 100]))
                .await
                .expect("open");
            assert_eq!(bridge.receive(), [3; 100]);
        }
        let statistics = channel.get().statistics();
        assert_eq!(
            (statistics.parks, statistics.wakeups_sent),
            (0, 0),
            "{statistics:?}"
        );
        assert!(matches!(bridge.stream.fill(), Ok(FillOutcome::WouldBlock)));
    }));
}
