//! The router over real segments, without threads: every poll is a step of the test. A peer that breaks the rules
//! writes into the segment's file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use shm_transport::channel::LinkEnds;
use shm_transport::frame::{Encoding, FrameHeader};
use shm_transport::layout::{
    RING_CONTROL_LEN, RING_HEAD_OFFSET, RING_TAIL_OFFSET, RING_TO_BRIDGE, RING_TO_PEER,
    SEGMENT_HEADER_LEN,
};
use shm_transport::ring::{Consumer, Producer};
use shm_transport::segment::{Segment, SegmentOptions};

use super::*;

mod changes;
mod delivery;
mod wish;

const QUOTE: u16 = 1001;
const SIGNAL: u16 = 1002;

/// The peer's side of a link.
struct Peer {
    slot: usize,
    producer: Producer,
    consumer: Consumer,
    file: File,
    capacity: usize,
}

impl Peer {
    fn send(&mut self, topic_id: u16, payload: &[u8]) {
        self.producer
            .try_push(FrameHeader::new(topic_id, payload.len() as u32), payload)
            .expect("room");
    }

    fn recv(&mut self) -> Option<(u16, Vec<u8>)> {
        let guard = self.consumer.try_read().expect("sound")?;
        Some((guard.frame().topic_id(), guard.frame().to_vec()))
    }

    /// Overwrites the first header word of the ring to the bridge.
    fn overwrite_first_header(&self, word: u64) {
        let data = SEGMENT_HEADER_LEN + RING_CONTROL_LEN + self.capacity + RING_CONTROL_LEN;
        self.file
            .write_all_at(&word.to_le_bytes(), data as u64)
            .expect("write");
    }

    /// Overwrites the head of the ring to the peer.
    fn overwrite_head(&self, head: u64) {
        let offset = SEGMENT_HEADER_LEN + RING_HEAD_OFFSET;
        self.file
            .write_all_at(&head.to_le_bytes(), offset as u64)
            .expect("write");
    }

    fn recv_all(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.recv())
            .map(|(_, payload)| payload)
            .collect()
    }
}

fn router() -> Router {
    let topic = |topic_id, message: &str| Topic {
        topic_id,
        message: message.into(),
        payload_len: 8..=8,
        encoding: Encoding::Contract,
        delivery: Delivery::Block,
        key: Vec::new(),
    };
    let open = Topic {
        topic_id: 1003,
        message: "Open".into(),
        payload_len: 0..=5000,
        encoding: Encoding::Contract,
        delivery: Delivery::Block,
        key: Vec::new(),
    };
    Router::new(vec![topic(QUOTE, "Quote"), topic(SIGNAL, "Signal"), open])
}

fn link(router: &mut Router, id: u32, capacity: usize, topics: &[u16]) -> Peer {
    let options = SegmentOptions::new(capacity);
    let ours = Segment::create(&options).expect("segment");
    let theirs = Segment::open(ours.fd().try_clone_to_owned().expect("dup")).expect("sound");
    let doorbell = || Doorbell::new().expect("eventfd");
    let (read, write) = (ours.ring(RING_TO_BRIDGE), ours.ring(RING_TO_PEER));
    let ends = LinkEnds::attach(read, write, doorbell(), doorbell(), Fencing::Fenced);
    let slot = router.add(LinkId(id), ends.expect("attach"), DeliveryTerms::default());
    for &topic_id in topics {
        assert!(router.subscribe(slot, topic_id));
    }
    let producer = Producer::attach(theirs.ring(RING_TO_BRIDGE)).expect("producer");
    let consumer = Consumer::attach(theirs.ring(RING_TO_PEER)).expect("consumer");
    let file = File::from(ours.fd().try_clone_to_owned().expect("dup"));
    Peer {
        slot,
        producer,
        consumer,
        file,
        capacity,
    }
}

fn payload(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

#[test]
fn a_frame_reaches_every_subscriber_but_not_its_sender() {
    let mut router = router();
    let mut first = link(&mut router, 1, 4096, &[QUOTE]);
    let mut second = link(&mut router, 2, 4096, &[QUOTE, SIGNAL]);
    let mut third = link(&mut router, 3, 4096, &[SIGNAL]);
    first.send(QUOTE, &payload(7));
    third.send(SIGNAL, &payload(8));
    assert_eq!(router.poll(), 2);
    assert_eq!(
        second.recv_all(),
        [payload(7).to_vec(), payload(8).to_vec()]
    );
    assert_eq!(first.recv(), None);
    assert_eq!(third.recv(), None);
    let counters = router.counters(first.slot);
    assert_eq!(
        (counters.frames_in, counters.bytes_in, counters.frames_out),
        (1, 8, 0)
    );
    assert_eq!(router.counters(second.slot).frames_out, 2);
}

#[test]
fn a_full_subscriber_holds_its_publisher_back_and_nobody_else() {
    let mut router = router();
    let mut fast = link(&mut router, 1, 65536, &[QUOTE]);
    let mut slow = link(&mut router, 2, 4096, &[QUOTE]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    let mut other = link(&mut router, 4, 4096, &[]);
    let mut bystander = link(&mut router, 5, 4096, &[SIGNAL]);
    for number in 0..1000 {
        publisher.send(QUOTE, &payload(number));
    }
    while router.poll() > 0 {}
    let delivered = router.counters(slow.slot).frames_out;
    assert!(delivered < 1000, "delivered={delivered}");
    assert_eq!(
        router.counters(fast.slot).frames_out,
        delivered + 1,
        "the fast one already has the stalled frame"
    );
    assert_eq!(router.counters(slow.slot).stalls, 1);

    other.send(SIGNAL, &payload(1));
    assert_eq!(router.poll(), 1);
    assert_eq!(bystander.recv_all(), [payload(1).to_vec()]);

    let (mut got_fast, mut got_slow) = (Vec::new(), Vec::new());
    while got_slow.len() < 1000 {
        got_slow.extend(slow.recv_all());
        got_fast.extend(fast.recv_all());
        router.poll();
    }
    got_fast.extend(fast.recv_all());
    let expected: Vec<Vec<u8>> = (0..1000).map(|number| payload(number).to_vec()).collect();
    assert_eq!(got_slow, expected);
    assert_eq!(got_fast, expected, "nothing is delivered twice");
}

#[test]
fn removing_a_full_subscriber_frees_its_publisher() {
    let mut router = router();
    let slow = link(&mut router, 1, 4096, &[QUOTE]);
    let mut fast = link(&mut router, 2, 65536, &[QUOTE]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..1000 {
        publisher.send(QUOTE, &payload(number));
    }
    while router.poll() > 0 {}
    assert!(!router.has_work());
    router.remove(slow.slot);
    assert!(router.has_work());
    while router.poll() > 0 {}
    assert_eq!(fast.recv_all().len(), 1000);
}

#[test]
fn unknown_topics_and_wrong_sizes_are_dropped_counted_and_told_once() {
    let mut router = router();
    let mut subscriber = link(&mut router, 1, 4096, &[QUOTE]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    for _ in 0..3 {
        publisher.send(4711, &payload(1));
        publisher.send(QUOTE, &[1, 2, 3]);
        publisher.send(13, &payload(1));
    }
    publisher.send(SIGNAL, &payload(1));
    publisher.send(QUOTE, &payload(2));
    assert_eq!(router.poll(), 11);
    assert_eq!(subscriber.recv_all(), [payload(2).to_vec()]);
    let counters = router.counters(publisher.slot);
    assert_eq!(
        (counters.dropped, counters.unrouted, counters.frames_in),
        (9, 1, 11)
    );
    let rejected: Vec<_> = router
        .take_events()
        .into_iter()
        .map(|event| match event {
            RouterEvent::Rejected {
                link,
                topic_id,
                why,
            } => (link.0, topic_id, why),
            RouterEvent::Violation { .. } | RouterEvent::Gap { .. } => {
                panic!("no violation happened: {event:?}")
            }
        })
        .collect();
    let wrong_size = Rejection::WrongSize {
        message: "Quote".into(),
        expected: 8..=8,
        actual: 3,
    };
    assert_eq!(
        rejected,
        [
            (2, 4711, Rejection::UnknownTopic),
            (2, QUOTE, wrong_size),
            (2, 13, Rejection::UnknownTopic)
        ]
    );
}

#[test]
fn a_payload_that_no_ring_of_a_subscriber_takes_is_dropped_there_and_delivered_elsewhere() {
    let mut router = router();
    let mut small = link(&mut router, 1, 4096, &[1003]);
    let mut large = link(&mut router, 2, 65536, &[1003]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    publisher.send(1003, &[9; 4000]);
    router.poll();
    assert_eq!(large.recv_all(), [vec![9; 4000]]);
    assert_eq!(small.recv(), None);
    let why = Rejection::TooLarge {
        subscriber: LinkId(1),
        payload_len: 4000,
        max_payload: 1016,
    };
    assert_eq!(
        router.take_events(),
        [RouterEvent::Rejected {
            link: LinkId(3),
            topic_id: 1003,
            why
        }]
    );
}

#[test]
fn a_corrupt_ring_closes_its_own_link_and_no_other() {
    let mut router = router();
    let mut subscriber = link(&mut router, 1, 4096, &[QUOTE]);
    let hostile = link(&mut router, 2, 4096, &[QUOTE]);
    let mut sound = link(&mut router, 3, 4096, &[]);
    hostile.overwrite_first_header(u64::MAX);
    sound.send(QUOTE, &payload(1));
    router.poll();
    router.poll();
    assert_eq!(subscriber.recv_all(), [payload(1).to_vec()]);
    let events = router.take_events();
    let [RouterEvent::Violation { link, corrupt }] = &events[..] else {
        panic!("one violation, got {events:?}")
    };
    assert_eq!((link.0, corrupt.word), (2, u64::MAX));
    assert!(
        router.is_drained(hostile.slot, u64::MAX),
        "nothing more is read from it"
    );
}

#[test]
fn a_link_that_is_to_go_is_not_kept_by_a_peer_that_goes_on_publishing() {
    let mut router = router();
    let mut subscriber = link(&mut router, 1, 4096, &[QUOTE]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    for number in 0..3 {
        publisher.send(QUOTE, &payload(number));
    }
    let end = router.end_of(publisher.slot);
    assert!(!router.is_drained(publisher.slot, end), "three are to come");
    publisher.send(QUOTE, &payload(3));
    router.poll();
    publisher.send(QUOTE, &payload(4));
    assert!(router.is_drained(publisher.slot, end));
    assert_eq!(subscriber.recv_all().len(), 4);
    assert!(router.take_events().is_empty(), "and broke no rule");
}

#[test]
fn a_ring_without_an_end_does_not_outlive_its_peer() {
    let mut router = router();
    let hostile = link(&mut router, 1, 4096, &[]);
    let data = SEGMENT_HEADER_LEN + RING_CONTROL_LEN + hostile.capacity + RING_CONTROL_LEN;
    let word = FrameHeader::new(QUOTE, 8).to_word().to_le_bytes();
    for index in (0..hostile.capacity).step_by(16) {
        let at = (data + index) as u64;
        hostile.file.write_all_at(&word, at).expect("write");
    }
    for _ in 0..100 {
        assert!(
            router.poll() > 0,
            "what a peer of the moment sends is taken"
        );
    }
    let end = router.end_of(hostile.slot);
    assert!(router.is_drained(hostile.slot, end));
    assert_eq!(router.poll(), 0);
    let events = router.take_events();
    let [RouterEvent::Violation { link, corrupt }] = &events[..] else {
        panic!("one violation, got {events:?}")
    };
    assert_eq!((link.0, corrupt.field), (1, "header word"));
}

#[test]
fn a_successor_is_not_led_astray_by_a_tail_that_its_predecessor_has_forged() {
    let mut router = router();
    let mut subscriber = link(&mut router, 1, 4096, &[QUOTE]);
    let mut worker = link(&mut router, 2, 4096, &[QUOTE]);
    worker.send(QUOTE, &payload(1));
    router.poll();
    assert_eq!(subscriber.recv_all().len(), 1);
    // Sound so far, also if the tail was not stored any more.
    let control = SEGMENT_HEADER_LEN + RING_CONTROL_LEN + worker.capacity;
    let store_tail = |worker: &Peer, tail: u64| {
        let at = (control + RING_TAIL_OFFSET) as u64;
        let written = worker.file.write_all_at(&tail.to_le_bytes(), at);
        written.expect("write");
    };
    store_tail(&worker, 0);
    router.check_left(worker.slot);
    assert!(router.take_events().is_empty());

    // A successor would go on at 1024, and the router look at 16 for ever.
    store_tail(&worker, 1024);
    router.check_left(worker.slot);
    router.check_left(worker.slot);
    let events = router.take_events();
    let [RouterEvent::Violation { link, corrupt }] = &events[..] else {
        panic!("one violation, got {events:?}")
    };
    assert_eq!((link.0, corrupt.field, corrupt.value), (2, "tail", 1024));
    assert!(router.is_drained(worker.slot, u64::MAX), "it is given up");
}

#[test]
fn an_impossible_head_breaks_only_the_link_that_wrote_it() {
    let mut router = router();
    let hostile = link(&mut router, 1, 4096, &[QUOTE]);
    let mut subscriber = link(&mut router, 2, 65536, &[QUOTE]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..500 {
        publisher.send(QUOTE, &payload(number));
    }
    while router.poll() > 0 {}
    hostile.overwrite_head(1 << 50);
    while router.poll() > 0 {}
    let events = router.take_events();
    let [RouterEvent::Violation { link, corrupt }] = &events[..] else {
        panic!("one violation, got {events:?}")
    };
    assert_eq!((link.0, corrupt.field, corrupt.value), (1, "head", 1 << 50));
    assert_eq!(subscriber.recv_all().len(), 500);
    assert!(router.counters(publisher.slot).dropped > 0);
}

#[test]
fn each_of_several_full_subscribers_gets_the_frame_as_soon_as_it_has_room() {
    let mut router = router();
    let mut first = link(&mut router, 1, 4096, &[QUOTE]);
    let _second = link(&mut router, 2, 4096, &[QUOTE]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..1000 {
        publisher.send(QUOTE, &payload(number));
    }
    while router.poll() > 0 {}
    let delivered = router.counters(first.slot).frames_out;

    router.arm();
    assert!(!router.has_work());
    assert_eq!(first.recv_all().len() as u64, delivered);
    assert!(
        first.consumer.wakeup_due(),
        "the router sleeps for this room too"
    );
    assert!(router.has_work());
    assert_eq!(router.poll(), 0, "the other one is still full");
    assert_eq!(first.recv_all(), [payload(delivered).to_vec()]);
    assert_eq!(router.poll(), 0);
    assert_eq!(first.recv_all(), Vec::<Vec<u8>>::new(), "once is enough");
}

#[test]
fn a_rejected_delivery_is_counted_although_another_subscriber_was_full() {
    let mut router = router();
    let _small = link(&mut router, 1, 4096, &[1003]);
    let mut full = link(&mut router, 2, 16384, &[1003, QUOTE]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..1022 {
        publisher.send(QUOTE, &payload(number));
    }
    publisher.send(1003, &[1; 2000]);
    while router.poll() > 0 {}
    assert_eq!(router.counters(publisher.slot).frames_in, 1022);
    assert_eq!(router.counters(publisher.slot).dropped, 0);
    assert_eq!(full.recv_all().len(), 1022);
    assert_eq!(router.poll(), 1);
    assert_eq!(full.recv_all(), [vec![1; 2000]]);
    assert_eq!(router.counters(publisher.slot).dropped, 1);
    assert!(matches!(
        router.take_events()[..],
        [RouterEvent::Rejected { topic_id: 1003, .. }]
    ));
}

#[test]
fn a_router_that_sleeps_for_room_has_acknowledged_what_it_delivered() {
    let mut router = router();
    let slow = link(&mut router, 1, 4096, &[QUOTE]);
    let mut publisher = link(&mut router, 2, 65536, &[]);
    for number in 0..1000 {
        publisher.send(QUOTE, &payload(number));
    }
    while router.poll() > 0 {}
    router.arm();
    let offset = SEGMENT_HEADER_LEN + RING_CONTROL_LEN + publisher.capacity + RING_HEAD_OFFSET;
    let mut head = [0; 8];
    publisher
        .file
        .read_exact_at(&mut head, offset as u64)
        .expect("read");
    let delivered = router.counters(slow.slot).frames_out;
    assert_eq!(u64::from_le_bytes(head), 16 * delivered);
}

/// What is known of how long frames lie in the ring to a peer: samples, and whether one is followed.
fn residence(router: &mut Router, peer: &Peer) -> (u64, bool) {
    let id = router.links[peer.slot].as_ref().expect("the link").id;
    let views = router.view();
    let view = views.iter().find(|view| view.link == id).expect("its view");
    (
        view.residence.counts.iter().sum(),
        view.unacknowledged_for.is_some(),
    )
}

#[test]
fn residence_is_sampled_once_the_subscriber_has_acknowledged() {
    let mut router = router();
    let mut publisher = link(&mut router, 1, 4096, &[]);
    let mut subscriber = link(&mut router, 2, 4096, &[QUOTE]);
    assert_eq!(residence(&mut router, &subscriber), (0, false));
    publisher.send(QUOTE, &payload(1));
    publisher.send(QUOTE, &payload(2));
    assert_eq!(router.poll(), 2);
    assert_eq!(residence(&mut router, &subscriber), (0, true));
    // It has read one of two, then both, and has not said so.
    subscriber.recv().expect("a frame");
    subscriber.consumer.publish_head();
    router.poll();
    assert_eq!(residence(&mut router, &subscriber), (0, true));
    subscriber.recv().expect("a frame");
    router.poll();
    assert_eq!(residence(&mut router, &subscriber), (0, true));
    subscriber.consumer.publish_head();
    router.poll();
    assert_eq!(residence(&mut router, &subscriber), (1, false));
    assert_eq!(residence(&mut router, &publisher), (0, false));
}

#[test]
fn a_router_that_sleeps_is_woken_by_the_acknowledgement_that_it_waits_for() {
    let mut router = router();
    let mut publisher = link(&mut router, 1, 4096, &[]);
    let mut subscriber = link(&mut router, 2, 4096, &[QUOTE]);
    publisher.send(QUOTE, &payload(1));
    assert_eq!(router.poll(), 1);
    router.arm();
    assert!(!router.has_work());
    subscriber.recv().expect("a frame");
    subscriber.consumer.publish_head();
    assert!(subscriber.consumer.wakeup_due());
    router.disarm_room();
    assert_eq!(router.poll(), 0);
    assert_eq!(residence(&mut router, &subscriber), (1, false));
}

#[test]
fn a_frame_that_is_taken_out_of_a_ring_is_followed_no_further() {
    let mut router = router();
    let mut publisher = link(&mut router, 1, 4096, &[]);
    let subscriber = link(&mut router, 2, 4096, &[QUOTE]);
    publisher.send(QUOTE, &payload(1));
    router.poll();
    assert_eq!(residence(&mut router, &subscriber), (0, true));
    router.recall(subscriber.slot).expect("sound");
    assert_eq!(residence(&mut router, &subscriber), (0, false));
    // A head that cannot be ends it as well, and breaks the link as before.
    let mut router = self::router();
    let mut publisher = link(&mut router, 1, 4096, &[]);
    let subscriber = link(&mut router, 2, 4096, &[QUOTE]);
    publisher.send(QUOTE, &payload(1));
    router.poll();
    subscriber.overwrite_head(1 << 40);
    assert_eq!(residence(&mut router, &subscriber), (0, false));
}
