//! What becomes of frames that find no room, policy by policy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mycelium_messages::control::Cause;
use proptest::prelude::*;

use super::*;
use crate::routes::KeyPart;

/// Sixteen bytes: a key, then a number that rises with each frame.
pub(super) const TICK: u16 = 1004;

pub(super) fn ticks(delivery: Delivery) -> Router {
    Router::new(vec![Topic {
        topic_id: TICK,
        message: "Tick".into(),
        payload_len: 16..=16,
        encoding: Encoding::Contract,
        delivery,
        key: vec![KeyPart { offset: 0, len: 8 }],
    }])
}

pub(super) fn tick(key: u64, number: u64) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&key.to_le_bytes());
    payload[8..].copy_from_slice(&number.to_le_bytes());
    payload
}

pub(super) fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[8..].try_into().expect("eight bytes"))
}

pub(super) fn key_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))
}

/// Publishes `count` ticks with the keys 0, 1, 2, 0, …, and gives the router its turns.
pub(super) fn publish(router: &mut Router, publisher: &mut Peer, range: std::ops::Range<u64>) {
    for number in range {
        publisher.send(TICK, &tick(number % 3, number));
        router.poll();
    }
}

pub(super) fn numbers(peer: &mut Peer) -> Vec<u64> {
    peer.recv_all().iter().map(|it| number_of(it)).collect()
}

/// Everything that still comes, with the router's help.
pub(super) fn rest(router: &mut Router, peer: &mut Peer) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let some = numbers(peer);
        router.poll();
        if some.is_empty() && router.counters(peer.slot).waiting == 0 && peer.consumer.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[test]
fn drop_newest_keeps_what_came_first_and_holds_nobody_up() {
    let mut router = ticks(Delivery::DropNewest);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut fast = link(&mut router, 2, 65536, &[TICK]);
    let mut publisher = link(&mut router, 3, 4096, &[]);
    publish(&mut router, &mut publisher, 0..1000);
    assert_eq!(numbers(&mut fast), (0..1000).collect::<Vec<_>>());
    let counters = router.counters(slow.slot);
    assert_eq!(counters.missed + counters.frames_out, 1000);
    assert!(counters.missed > 0 && counters.waiting == 0 && counters.stalls == 0);
    assert!(!router.is_stalled() && !router.has_work());
    let got = rest(&mut router, &mut slow);
    assert_eq!(got, (0..counters.frames_out).collect::<Vec<_>>());
    // With room again, it goes on with the newest.
    publish(&mut router, &mut publisher, 1000..1001);
    assert_eq!(numbers(&mut slow), [1000]);
}

#[test]
fn drop_oldest_keeps_what_came_last_in_its_order() {
    let mut router = ticks(Delivery::DropOldest);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    publish(&mut router, &mut publisher, 0..1000);
    let before = router.counters(slow.slot);
    assert_eq!(before.frames_out + before.waiting + before.missed, 1000);
    assert!(before.missed > 0 && before.waiting > 0);
    let got = rest(&mut router, &mut slow);
    let in_ring: Vec<u64> = (0..before.frames_out).collect();
    let staged: Vec<u64> = (1000 - before.waiting..1000).collect();
    assert_eq!(got, [in_ring, staged].concat());
    let after = router.counters(slow.slot);
    assert_eq!((after.missed, after.waiting), (before.missed, 0));
    let gap = router.gaps()[0];
    assert_eq!(
        (gap.link, gap.topic_id, gap.drop_oldest, gap.total()),
        (LinkId(1), TICK, before.missed, before.missed)
    );
}

#[test]
fn conflate_keeps_the_latest_of_each_key_in_the_order_of_the_keys() {
    let mut router = ticks(Delivery::Conflate);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    publish(&mut router, &mut publisher, 0..1000);
    let before = router.counters(slow.slot);
    assert_eq!(before.waiting, 3, "one per key");
    assert_eq!(before.frames_out + before.waiting + before.missed, 1000);
    let got = rest(&mut router, &mut slow);
    let (in_ring, staged) = got.split_at(before.frames_out as usize);
    assert_eq!(in_ring, (0..before.frames_out).collect::<Vec<_>>());
    // The key of the first staged frame came first and stays there.
    let first = before.frames_out % 3;
    let latest = |key: u64| (0..1000).rev().find(|number| number % 3 == key);
    let expected: Vec<u64> = (first..first + 3)
        .filter_map(|key| latest(key % 3))
        .collect();
    assert_eq!(staged, expected);
    assert_eq!(router.gaps()[0].conflated, before.missed);
}

#[test]
fn more_keys_than_the_stage_holds_cost_the_keys_that_came_first() {
    let mut router = ticks(Delivery::Conflate);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    for number in 0..1000 {
        publisher.send(TICK, &tick(number, number));
        router.poll();
    }
    let counters = router.counters(slow.slot);
    assert!(
        counters.waiting > 0 && counters.waiting <= 4096 / 16,
        "{counters:?}"
    );
    let gap = router.gaps()[0];
    assert_eq!((gap.conflated, gap.drop_oldest), (0, counters.missed));
    let got = rest(&mut router, &mut slow);
    let newest: Vec<u64> = (1000 - counters.waiting..1000).collect();
    assert_eq!(got[counters.frames_out as usize..], newest);
}

#[test]
fn a_stopped_subscriber_costs_no_turns() {
    for policy in [
        Delivery::DropNewest,
        Delivery::DropOldest,
        Delivery::Conflate,
    ] {
        let mut router = ticks(policy);
        let mut stopped = link(&mut router, 1, 4096, &[TICK]);
        let mut publisher = link(&mut router, 2, 4096, &[]);
        publish(&mut router, &mut publisher, 0..1000);
        assert_eq!(router.poll(), 0, "{policy:?}");
        router.arm();
        assert!(!router.has_work() && !router.is_stalled(), "{policy:?}");
        // Its acknowledgement wakes the router, which follows how long that takes; the room is work if something waits for it.
        let waits = router.counters(stopped.slot).waiting > 0;
        assert!(!numbers(&mut stopped).is_empty());
        assert!(stopped.consumer.wakeup_due(), "{policy:?}");
        assert_eq!(router.has_work(), waits, "{policy:?}");
    }
}

#[test]
fn policies_differ_between_the_subscribers_of_one_topic() {
    let mut router = ticks(Delivery::Block);
    let mut blocked = link(&mut router, 1, 4096, &[TICK]);
    let mut lossy = link(&mut router, 2, 4096, &[]);
    assert!(router.subscribe_as(lossy.slot, TICK, Some(Delivery::DropOldest), None));
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..1000 {
        publisher.send(TICK, &tick(0, number));
    }
    while router.poll() > 0 {}
    assert!(
        router.is_stalled(),
        "the one that blocks holds the publisher"
    );
    let mut got = Vec::new();
    while got.len() < 1000 {
        got.extend(numbers(&mut blocked));
        router.poll();
    }
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
    let counters = router.counters(lossy.slot);
    let kept = rest(&mut router, &mut lossy);
    assert_eq!(kept.len() as u64 + counters.missed, 1000);
    assert!(kept.is_sorted() && kept.last() == Some(&999));
}

#[test]
fn frames_that_are_too_long_are_told_although_others_wait() {
    let topic = Topic {
        topic_id: TICK,
        message: "Open".into(),
        payload_len: 0..=5000,
        encoding: Encoding::Contract,
        delivery: Delivery::DropOldest,
        key: Vec::new(),
    };
    let mut router = Router::new(vec![topic]);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 65536, &[]);
    for number in 0..300 {
        publisher.send(TICK, &tick(0, number));
    }
    publisher.send(TICK, &[7; 4000]);
    publisher.send(TICK, &tick(0, 300));
    while router.poll() > 0 {}
    assert_eq!(router.counters(publisher.slot).dropped, 1);
    assert_eq!(rest(&mut router, &mut slow).last(), Some(&300));
}

#[test]
fn peers_are_told_what_they_miss_at_intervals_and_at_the_end() {
    let mut router = ticks(Delivery::DropNewest);
    let _slow = link(&mut router, 7, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    publish(&mut router, &mut publisher, 0..200);
    assert!(router.has_gaps());
    let start = Instant::now();
    assert_eq!(router.tell_gaps(start), None);
    publish(&mut router, &mut publisher, 200..300);
    let due = router.tell_gaps(start + Duration::from_millis(1));
    assert!(due.is_some_and(|due| due > start) && router.has_gaps());
    assert_eq!(router.tell_gaps(due.expect("due")), None);
    assert!(!router.has_gaps());
    let told: Vec<_> = router
        .take_events()
        .into_iter()
        .map(|event| match event {
            RouterEvent::Gap {
                link,
                topic_id,
                missed,
                cause,
            } => (link.0, topic_id, missed, cause),
            other => panic!("only gaps, got {other:?}"),
        })
        .collect();
    let before = told[0].2;
    let expected = [
        (7, TICK, before, Cause::DROP_NEWEST),
        (7, TICK, 100, Cause::DROP_NEWEST),
    ];
    assert_eq!(told, expected);
    assert_eq!(router.gaps()[0].total(), before + 100);
}

#[test]
fn a_group_shares_the_frames_by_key() {
    let mut router = ticks(Delivery::Block);
    let mut members: Vec<Peer> = (1..=3)
        .map(|id| {
            let member = link(&mut router, id, 65536, &[]);
            let link = router.links[member.slot].as_mut().expect("added");
            link.terms.name = format!("worker-{id}");
            assert!(router.subscribe_as(member.slot, TICK, None, Some("share")));
            member
        })
        .collect();
    let mut alone = link(&mut router, 4, 65536, &[TICK]);
    let mut publisher = link(&mut router, 5, 4096, &[]);
    for number in 0..900 {
        publisher.send(TICK, &tick(number % 90, number));
        router.poll();
    }
    assert_eq!(numbers(&mut alone).len(), 900);
    let mut owner = BTreeMap::new();
    let mut all = Vec::new();
    for (member, peer) in members.iter_mut().enumerate() {
        let payloads = peer.recv_all();
        assert!(
            payloads.len() > 100,
            "member={member} got {}",
            payloads.len()
        );
        for payload in payloads {
            let first = *owner.entry(key_of(&payload)).or_insert(member);
            assert_eq!(first, member, "key={} has one member", key_of(&payload));
            all.push(number_of(&payload));
        }
    }
    all.sort_unstable();
    assert_eq!(
        all,
        (0..900).collect::<Vec<_>>(),
        "each frame went to one of them"
    );
}

#[test]
fn what_a_full_member_of_a_group_waits_for_is_delivered_once() {
    let mut router = ticks(Delivery::Block);
    let mut member = link(&mut router, 1, 4096, &[]);
    assert!(router.subscribe_as(member.slot, TICK, None, Some("share")));
    let mut other = link(&mut router, 2, 65536, &[TICK]);
    let mut publisher = link(&mut router, 3, 65536, &[]);
    for number in 0..1000 {
        publisher.send(TICK, &tick(number, number));
    }
    while router.poll() > 0 {}
    assert!(router.is_stalled());
    let (mut got, mut seen) = (Vec::new(), Vec::new());
    while got.len() < 1000 {
        got.extend(numbers(&mut member));
        seen.extend(numbers(&mut other));
        router.poll();
    }
    seen.extend(numbers(&mut other));
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
    assert_eq!(seen, got);
}

/// The next process of a worker: it goes on with the ring of the one before.
fn successor(peer: Peer) -> Peer {
    let Peer {
        slot,
        producer,
        consumer,
        file,
        capacity,
    } = peer;
    drop((producer, consumer));
    let segment = Segment::open(file.try_clone().expect("dup").into()).expect("sound");
    let producer = Producer::attach(segment.ring(RING_TO_BRIDGE)).expect("producer");
    let consumer = Consumer::attach(segment.ring(RING_TO_PEER)).expect("consumer");
    Peer {
        slot,
        producer,
        consumer,
        file,
        capacity,
    }
}

#[test]
fn recalled_records_come_one_at_a_time_and_the_one_set_aside_never_again() {
    let mut router = ticks(Delivery::Block);
    let mut worker = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 65536, &[]);
    for number in 0..400 {
        publisher.send(TICK, &tick(0, number));
    }
    while router.poll() > 0 {}
    let in_ring = router.counters(worker.slot).frames_out;
    // It has handled ten records, acknowledged none, and died.
    for _ in 0..10 {
        assert!(worker.consumer.peek().expect("sound").is_some());
        worker.consumer.advance();
    }
    assert_eq!(worker.consumer.acknowledged_position(), 0);
    router.recall(worker.slot).expect("sound");
    assert_eq!(router.counters(worker.slot).waiting, in_ring);
    let mut worker = successor(worker);
    let mut got = Vec::new();
    for expected in 0..11_u64 {
        router.poll();
        let progress = router.progress(worker.slot).expect("link").expect("sound");
        let in_hand = progress.in_hand.expect("one record");
        assert_eq!(number_of(&in_hand.frame.payload), expected);
        assert_eq!(
            (in_hand.number, in_hand.offset),
            (expected + 1, expected * 24)
        );
        if expected == 10 {
            break;
        }
        got.extend(numbers(&mut worker));
        assert_eq!(got.len() as u64, expected + 1, "one at a time");
    }
    // It dies over the eleventh.
    assert_eq!(
        router.set_aside(worker.slot, 10),
        Ok(false),
        "not the one in hand"
    );
    assert_eq!(router.set_aside(worker.slot, 11), Ok(true));
    let mut worker = successor(worker);
    router.poll();
    let burst = numbers(&mut worker);
    assert!(burst.len() > 1, "the others follow without a break");
    got.extend(burst);
    while got.len() < 399 {
        router.poll();
        got.extend(numbers(&mut worker));
    }
    assert_eq!(got, (0..400).filter(|it| *it != 10).collect::<Vec<_>>());
    let gap = router.gaps()[0];
    assert_eq!((gap.quarantined, gap.total()), (1, 1));
    let counters = router.counters(worker.slot);
    assert_eq!(
        (counters.frames_out, counters.bytes_out, counters.waiting),
        (400, 400 * 16, 0),
        "what came a second time was delivered once"
    );
}

#[test]
fn a_recalled_ring_that_is_handled_goes_on_as_usual() {
    let mut router = ticks(Delivery::DropOldest);
    let worker = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 65536, &[]);
    publish(&mut router, &mut publisher, 0..5);
    router.recall(worker.slot).expect("sound");
    router.recall(worker.slot).expect("twice is once");
    let mut worker = {
        publish(&mut router, &mut publisher, 5..10);
        successor(worker)
    };
    assert_eq!(rest(&mut router, &mut worker), (0..10).collect::<Vec<_>>());
    publish(&mut router, &mut publisher, 10..20);
    assert_eq!(
        numbers(&mut worker),
        (10..20).collect::<Vec<_>>(),
        "no longer one at a time"
    );
    assert_eq!(router.counters(worker.slot).missed, 0);
}

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    Publish(u64),
    Read(usize),
    Poll,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_uncounted_and_order_is_kept(
        policy in prop_oneof![
            Just(Delivery::Block), Just(Delivery::DropNewest), Just(Delivery::DropOldest), Just(Delivery::Conflate)
        ],
        steps in proptest::collection::vec(prop_oneof![
            6 => (0..40_u64).prop_map(Step::Publish),
            2 => (0..60_usize).prop_map(Step::Read),
            3 => Just(Step::Poll),
        ], 0..1500),
    ) {
        let mut router = ticks(policy);
        let mut worker = link(&mut router, 1, 4096, &[TICK]);
        let mut publisher = link(&mut router, 2, 65536, &[]);
        let mut published = Vec::new();
        let mut got: Vec<(u64, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Publish(key) => {
                    let number = published.len() as u64;
                    publisher.send(TICK, &tick(key, number));
                    published.push(key);
                }
                Step::Read(count) => {
                    let read = std::iter::from_fn(|| worker.recv()).take(count);
                    got.extend(read.map(|(_, it)| (key_of(&it), number_of(&it))));
                }
                Step::Poll => drop(router.poll()),
            }
            if policy != Delivery::Block {
                prop_assert!(!router.is_stalled());
            }
        }
        loop {
            let some = worker.recv_all();
            let moved = router.poll();
            if some.is_empty() && moved == 0 && worker.consumer.is_empty() {
                break;
            }
            got.extend(some.iter().map(|it| (key_of(it), number_of(it))));
        }
        let counters = router.counters(worker.slot);
        prop_assert_eq!(counters.waiting, 0);
        prop_assert_eq!(got.len() as u64 + counters.missed, published.len() as u64);
        prop_assert_eq!(counters.missed, router.gaps().iter().map(LinkGap::total).sum::<u64>());
        for (key, number) in &got {
            prop_assert_eq!(published[*number as usize], *key);
        }
        if policy == Delivery::Conflate {
            // Of each key, what came is in order, and the last one that was published came.
            let mut last = BTreeMap::new();
            for (key, number) in &got {
                let before = last.insert(*key, *number);
                prop_assert!(before.is_none_or(|before| before < *number));
            }
            for (number, key) in published.iter().enumerate() {
                prop_assert!(last.get(key).is_some_and(|last| *last >= number as u64));
            }
        } else {
            prop_assert!(got.windows(2).all(|pair| pair[0].1 < pair[1].1));
        }
        if policy == Delivery::Block {
            prop_assert_eq!(got.len(), published.len());
        }
    }
}

#[test]
fn what_waits_is_not_overtaken_when_the_policy_changes() {
    use Delivery::{Block, Conflate, DropNewest, DropOldest};
    let changes = [
        (DropOldest, DropNewest),
        (DropOldest, Block),
        (DropOldest, Conflate),
        (Conflate, DropNewest),
        (Conflate, DropOldest),
        (Conflate, Block),
    ];
    // The router looks at publishers and at what waits by turns.
    for ((before, after), turns) in changes.into_iter().flat_map(|it| [(it, 0), (it, 1)]) {
        let mut router = ticks(before);
        let mut slow = link(&mut router, 1, 4096, &[TICK]);
        let mut publisher = link(&mut router, 2, 65536, &[]);
        publish(&mut router, &mut publisher, 0..1000);
        assert!(router.counters(slow.slot).waiting > 0);
        for _ in 0..turns {
            router.poll();
        }
        // Room, and at once something that would take it.
        let mut got = numbers(&mut slow);
        assert!(router.subscribe_as(slow.slot, TICK, Some(after), None));
        for number in 1000..1100 {
            publisher.send(TICK, &tick(number % 3, number));
        }
        got.extend(rest(&mut router, &mut slow));
        for key in 0..3 {
            let of_key: Vec<_> = got.iter().filter(|number| *number % 3 == key).collect();
            assert!(of_key.is_sorted(), "{before:?} to {after:?}: {of_key:?}");
        }
        let counters = router.counters(slow.slot);
        assert_eq!(
            (
                got.len() as u64,
                counters.frames_out + counters.missed,
                counters.waiting
            ),
            (counters.frames_out, 1100, 0),
            "{before:?} to {after:?}"
        );
    }
}
