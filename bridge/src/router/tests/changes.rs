//! Other policies, groups and topics for links that are there, while frames wait for them.

use super::super::Subscription;
use super::delivery::{TICK, numbers, publish, rest, tick, ticks};
use super::*;

/// Publishes until there is no more room for the subscriber, or at it.
fn fill(router: &mut Router, publisher: &mut Peer, from: u64) -> u64 {
    let mut number = from;
    while publisher
        .producer
        .try_push(FrameHeader::new(TICK, 16), &tick(0, number))
        .is_ok()
    {
        number += 1;
        router.poll();
    }
    number
}

#[test]
fn what_waits_at_a_publisher_moves_on_when_its_topic_blocks_no_longer() {
    let mut router = ticks(Delivery::Block);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    let sent = fill(&mut router, &mut publisher, 0);
    assert!(router.is_stalled() && !router.has_work());
    router.set_default_delivery(TICK, Delivery::DropOldest);
    assert!(router.has_work(), "a router that sleeps would sleep on");
    while router.poll() > 0 {}
    assert!(!router.is_stalled() && publisher.producer.is_empty().expect("sound"));
    let got = rest(&mut router, &mut slow);
    let missed = router.counters(slow.slot).missed;
    assert_eq!(got.len() as u64 + missed, sent);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{got:?}");
}

#[test]
fn what_waits_in_a_stage_goes_ahead_of_frames_that_block() {
    for before in [Delivery::DropOldest, Delivery::Conflate] {
        let mut router = ticks(before);
        let mut slow = link(&mut router, 1, 4096, &[TICK]);
        let mut publisher = link(&mut router, 2, 4096, &[]);
        publish(&mut router, &mut publisher, 0..500);
        let counters = router.counters(slow.slot);
        assert!(counters.waiting > 0, "{before:?}");
        router.set_default_delivery(TICK, Delivery::Block);
        // Room for all of it, and frames that would fit before it.
        let mut got = numbers(&mut slow);
        let missed = router.counters(slow.slot).missed;
        for number in 500..1500 {
            while publisher
                .producer
                .try_push(FrameHeader::new(TICK, 16), &tick(0, number))
                .is_err()
            {
                router.poll();
                got.extend(numbers(&mut slow));
            }
            router.poll();
        }
        got.extend(rest(&mut router, &mut slow));
        let first = got.iter().position(|it| *it >= 500).expect("they came");
        assert_eq!(got[first..], (500..1500).collect::<Vec<_>>(), "{before:?}");
        let after = router.counters(slow.slot);
        assert_eq!(after.missed, missed, "nothing is lost since: {before:?}");
        assert_eq!(got.len() as u64 + after.missed, 1500);
    }
}

#[test]
fn a_stage_goes_ahead_of_the_stage_of_the_next_policy() {
    let mut router = ticks(Delivery::DropOldest);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 4096, &[]);
    publish(&mut router, &mut publisher, 0..500);
    router.set_default_delivery(TICK, Delivery::Conflate);
    publish(&mut router, &mut publisher, 500..503);
    let got = rest(&mut router, &mut slow);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{got:?}");
    assert_eq!(got[got.len() - 3..], [500, 501, 502]);
    assert_eq!(got.len() as u64 + router.counters(slow.slot).missed, 503);
}

#[test]
fn a_policy_of_its_own_stays_when_that_of_the_topic_changes() {
    let mut router = ticks(Delivery::DropOldest);
    let mut own = link(&mut router, 1, 4096, &[]);
    assert!(router.subscribe_as(own.slot, TICK, Some(Delivery::DropNewest), None));
    let mut publisher = link(&mut router, 2, 4096, &[]);
    router.set_default_delivery(TICK, Delivery::Block);
    publish(&mut router, &mut publisher, 0..500);
    let counters = router.counters(own.slot);
    assert!(counters.missed > 0 && !router.is_stalled());
    assert_eq!(
        rest(&mut router, &mut own).len() as u64 + counters.missed,
        500
    );
}

#[test]
fn other_terms_change_the_group_and_the_policy_of_a_link_and_nothing_that_it_gave_up() {
    const OTHER: u16 = 1005;
    let mut tick_topic = ticks(Delivery::Block)
        .routes
        .topic(TICK)
        .expect("a topic")
        .clone();
    let mut router = Router::new(vec![tick_topic.clone(), {
        tick_topic.topic_id = OTHER;
        tick_topic
    }]);
    let mut peers: Vec<_> = (1..=2)
        .map(|number| link(&mut router, number, 65536, &[TICK]))
        .collect();
    let mut publisher = link(&mut router, 3, 65536, &[]);
    let terms = |name: &str, group: Option<&str>| DeliveryTerms {
        name: name.to_owned(),
        stage_capacity: 0,
        subscriptions: [TICK, OTHER]
            .map(|topic_id| Subscription {
                topic_id,
                delivery: Some(Delivery::DropNewest),
                group: group.map(str::to_owned),
            })
            .to_vec(),
    };
    for (peer, name) in peers.iter().zip(["a", "b"]) {
        let both = [TICK, OTHER];
        router.change_terms(peer.slot, terms(name, Some("g")), &both, &both);
    }
    for number in 0..100 {
        publisher.send(TICK, &tick(number, number));
        publisher.send(OTHER, &tick(number, number));
        router.poll();
    }
    let shares: Vec<_> = peers.iter_mut().map(numbers).collect();
    assert_eq!(
        shares[0].len() + shares[1].len(),
        100,
        "shared, and once each"
    );
    assert!(shares.iter().all(|share| share.len() > 20), "{shares:?}");
    // Out of the group again: both get everything.
    for (peer, name) in peers.iter().zip(["a", "b"]) {
        router.change_terms(peer.slot, terms(name, None), &[TICK], &[TICK]);
    }
    publish(&mut router, &mut publisher, 0..10);
    for peer in &mut peers {
        assert_eq!(numbers(peer), (0..10).collect::<Vec<_>>());
    }
}
