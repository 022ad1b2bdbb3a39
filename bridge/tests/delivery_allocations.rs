//! A subscriber that does not keep up costs the data plane no allocation per frame, whatever its policy.

#[path = "../../shm-transport/tests/common/counting.rs"]
mod counting;

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_contracts::Delivery;
use mycelium_messages::bandit::Quote;
use mycelium_messages::{InlineString, Message};
use shm_transport::error::ChannelError;

use counting::allocations;

const FRAMES: u64 = 100_000;
/// Notices about what is missed go to the control plane now and then, at intervals.
const NOTICES_MAX: u64 = FRAMES / 100;

/// Allocations of this thread, which publishes and drives the data plane, and frames that a subscriber missed of which it reads
/// one of ten.
fn cost(policy: Delivery) -> (u64, u64) {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("bridge.toml");
    let contracts = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/bandit.yaml");
    let text = format!("[bridge]\ncontracts = '{contracts}'\nring_capacity = '4KiB'\n");
    std::fs::write(&file, text).expect("file");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    let (bridge, mut plane) = Bridge::start_inline(&config).expect("started");
    let mut publisher = bridge.attach("publisher").expect("attached");
    let mut slow = bridge.attach("slow").expect("attached");
    slow.subscribe_with::<Quote>(policy).expect("known");
    plane.poll();
    let mut quote = Quote::default();
    let mut before = 0;
    for number in 0..FRAMES {
        if number == 1000 {
            before = allocations();
        }
        quote.sequence = number;
        // 26 symbols, without an allocation for each.
        let letter = [b'A' + (number % 26) as u8];
        quote.symbol = InlineString::truncated(std::str::from_utf8(&letter).expect("a letter"));
        while let Err(error) = publisher.try_publish(&quote) {
            assert!(matches!(error, ChannelError::Full { .. }), "{error}");
            plane.poll();
        }
        plane.poll();
        if number % 10 == 0 {
            assert!(slow.try_recv().expect("sound").is_some());
        }
    }
    let allocations = allocations() - before;
    let gaps = plane.snapshot().gaps;
    let gap = gaps.iter().find(|gap| gap.link == slow.link());
    assert_eq!(gap.map(|gap| gap.topic_id), Some(Quote::TOPIC_ID));
    let missed = gap.map_or(0, |gap| gap.total());
    drop((publisher, slow));
    bridge.shut_down_inline(&mut plane).expect("stopped");
    (allocations, missed)
}

#[test]
fn dropping_and_conflating_allocate_nothing_per_frame() {
    for policy in [
        Delivery::DropNewest,
        Delivery::DropOldest,
        Delivery::Conflate,
    ] {
        let (allocations, missed) = cost(policy);
        assert!(missed > FRAMES / 2, "{policy:?}: missed={missed}");
        assert!(
            allocations <= NOTICES_MAX,
            "{policy:?}: allocations={allocations} max={NOTICES_MAX} for {FRAMES} frames"
        );
    }
}
