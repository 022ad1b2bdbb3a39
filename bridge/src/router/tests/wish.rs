//! Policies that peers ask for: who decides, and what becomes of frames that wait when one changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::delivery::{TICK, key_of, number_of, numbers, rest, tick, ticks};
use super::*;

const ASKED: [Delivery; 4] = [
    Delivery::Block,
    Delivery::DropNewest,
    Delivery::DropOldest,
    Delivery::Conflate,
];

fn wish(delivery: Option<Delivery>) -> Wish {
    Wish {
        delivery,
        may_block: true,
    }
}

fn configured(delivery: Option<Delivery>) -> DeliveryTerms {
    let subscription = Subscription {
        topic_id: TICK,
        delivery,
        group: None,
    };
    DeliveryTerms {
        subscriptions: vec![subscription],
        ..DeliveryTerms::default()
    }
}

/// What happens to the frames of the topic for this link.
fn policy(router: &Router, slot: usize) -> Option<Delivery> {
    match router.routes.lookup(TICK, Encoding::Contract, 16) {
        Lookup::Wanted(route) => {
            let mut subscribers = route.subscribers.iter();
            subscribers.find(|it| it.slot == slot).map(|it| it.policy)
        }
        other => panic!("a known topic, got {other:?}"),
    }
}

#[test]
fn the_configuration_goes_before_the_peer_and_the_peer_before_the_contract() {
    let mut router = ticks(Delivery::DropNewest);
    let peer = link(&mut router, 1, 4096, &[]);
    let slot = peer.slot;
    let granted = router.ask(slot, TICK, wish(None));
    assert_eq!(granted, Granted::As(Delivery::DropNewest));
    for asked in ASKED {
        let granted = router.ask(slot, TICK, wish(Some(asked)));
        assert_eq!(granted, Granted::As(asked));
        assert_eq!(policy(&router, slot), Some(asked));
    }
    // The configuration names the topic and no policy: that leaves it to the peer.
    router.change_terms(slot, configured(None), &[], &[]);
    assert!(router.subscribe(slot, TICK));
    assert_eq!(policy(&router, slot), Some(Delivery::Conflate));
    router.change_terms(slot, configured(Some(Delivery::Block)), &[], &[]);
    let granted = router.ask(slot, TICK, wish(Some(Delivery::DropOldest)));
    assert_eq!(granted, Granted::As(Delivery::Block));
    assert_eq!(policy(&router, slot), Some(Delivery::Block));
    // What the peer had asked for counts again once the configuration says nothing.
    router.change_terms(slot, DeliveryTerms::default(), &[], &[]);
    assert!(router.subscribe(slot, TICK));
    assert_eq!(policy(&router, slot), Some(Delivery::DropOldest));
    assert!(router.take_back(slot, TICK));
    assert_eq!(policy(&router, slot), None);
    assert!(router.subscribe(slot, TICK));
    assert_eq!(policy(&router, slot), Some(Delivery::DropNewest));
}

#[test]
fn a_wish_lasts_while_the_topic_rests() {
    let mut router = ticks(Delivery::Block);
    let peer = link(&mut router, 1, 4096, &[]);
    router.ask(peer.slot, TICK, wish(Some(Delivery::Conflate)));
    router.refuse(peer.slot, 0, Refused::Topics(vec![TICK]));
    assert_eq!(policy(&router, peer.slot), None);
    router.refuse(peer.slot, 0, Refused::Topics(Vec::new()));
    assert_eq!(policy(&router, peer.slot), Some(Delivery::Conflate));
}

#[test]
fn what_cannot_be_granted_changes_nothing() {
    let mut router = router();
    let peer = link(&mut router, 1, 4096, &[]);
    let conflate = wish(Some(Delivery::Conflate));
    assert_eq!(router.ask(peer.slot, QUOTE, conflate), Granted::NoKey);
    assert_eq!(router.ask(peer.slot, 4711, conflate), Granted::UnknownTopic);
    for delivery in [None, Some(Delivery::Block)] {
        let wish = Wish {
            delivery,
            may_block: false,
        };
        assert_eq!(router.ask(peer.slot, QUOTE, wish), Granted::MayNotBlock);
    }
    assert!(!router.routes.is_subscribed(QUOTE, peer.slot));
    let lossy = Wish {
        delivery: Some(Delivery::DropOldest),
        may_block: false,
    };
    let granted = router.ask(peer.slot, QUOTE, lossy);
    assert_eq!(granted, Granted::As(Delivery::DropOldest));
    // Where the configuration wants it so, it may hold up publishers.
    let subscription = Subscription {
        topic_id: QUOTE,
        delivery: Some(Delivery::Block),
        group: None,
    };
    let terms = DeliveryTerms {
        subscriptions: vec![subscription],
        ..DeliveryTerms::default()
    };
    router.change_terms(peer.slot, terms, &[], &[]);
    let granted = router.ask(peer.slot, QUOTE, lossy);
    assert_eq!(granted, Granted::As(Delivery::Block));
}

#[test]
fn what_waits_comes_before_everything_that_comes_after_the_change() {
    let mut router = ticks(Delivery::DropOldest);
    let mut slow = link(&mut router, 1, 4096, &[TICK]);
    let mut publisher = link(&mut router, 2, 1 << 20, &[]);
    let mut publish = |router: &mut Router, range: std::ops::Range<u64>| {
        for number in range {
            publisher.send(TICK, &tick(number % 3, number));
            router.poll();
        }
    };
    publish(&mut router, 0..1000);
    let before = router.counters(slow.slot);
    assert!(before.waiting > 0);
    let granted = router.ask(slow.slot, TICK, wish(Some(Delivery::Block)));
    assert_eq!(granted, Granted::As(Delivery::Block));
    assert_eq!(router.counters(slow.slot).waiting, before.waiting);
    publish(&mut router, 1000..1100);
    assert!(router.is_stalled(), "it blocks from now on");
    router.arm();
    assert!(!router.has_work());
    assert!(!router.has_passed(&router.staged()));
    let got = rest(&mut router, &mut slow);
    let first = 1000 - before.waiting;
    let expected: Vec<u64> = (0..before.frames_out).chain(first..1100).collect();
    assert_eq!(got, expected);
    assert_eq!(router.counters(slow.slot).missed, before.missed);
    assert!(!router.is_stalled() && router.has_passed(&router.staged()));
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u64),
    Read,
    Ask(Delivery),
}

proptest! {
    #[test]
    fn changes_in_any_order_lose_nothing_uncounted_and_keep_the_order_of_each_key(
        steps in proptest::collection::vec(prop_oneof![
            4 => (1..120_u64).prop_map(Step::Publish),
            1 => Just(Step::Read),
            3 => (0..4_usize).prop_map(|at| Step::Ask(ASKED[at])),
        ], 1..60),
    ) {
        let mut router = ticks(Delivery::Block);
        let mut slow = link(&mut router, 1, 4096, &[TICK]);
        let mut publisher = link(&mut router, 2, 1 << 20, &[]);
        let (mut published, mut got) = (0, Vec::new());
        let read = |slow: &mut Peer, got: &mut Vec<(u64, u64)>| {
            let payloads = slow.recv_all();
            got.extend(payloads.iter().map(|it| (key_of(it), number_of(it))));
            payloads.is_empty()
        };
        for step in steps {
            match step {
                Step::Publish(count) => for _ in 0..count {
                    publisher.send(TICK, &tick(published % 3, published));
                    published += 1;
                },
                Step::Read => { read(&mut slow, &mut got); }
                Step::Ask(delivery) => {
                    let granted = router.ask(slow.slot, TICK, wish(Some(delivery)));
                    prop_assert_eq!(granted, Granted::As(delivery));
                }
            }
            while router.poll() > 0 {}
        }
        loop {
            let nothing = read(&mut slow, &mut got);
            let moved = router.poll();
            if nothing && moved == 0 {
                break;
            }
        }
        let counters = router.counters(slow.slot);
        prop_assert_eq!(counters.waiting, 0);
        prop_assert_eq!(got.len() as u64 + counters.missed, published);
        prop_assert!(numbers(&mut slow).is_empty() && router.has_passed(&router.staged()));
        let mut last = BTreeMap::new();
        for (key, number) in got {
            let before = last.insert(key, number);
            prop_assert!(before.is_none_or(|it| it < number), "key={} {:?} before {}", key, before, number);
        }
    }
}
