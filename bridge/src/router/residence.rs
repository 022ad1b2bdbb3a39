//! How long frames lie in the ring of a subscriber before it acknowledges them: sampled, so that no frame costs anything.
//!
//! A probe is a position in the ring, right behind what a round has written, and the time of that. Once the subscriber's
//! head has passed the position, the time between is a sample. A link has one probe in flight at most, and begins one per
//! [`INTERVAL`] at most. A router that goes to sleep with probes in flight asks to be woken for room, which the
//! acknowledgement makes: so a sample never holds a sleep of the router, and long ones are as likely to be seen as short ones.

use std::time::{Duration, Instant};

/// Upper bounds of the buckets, in microseconds; one more bucket is for what took longer.
pub(crate) const BOUNDS_US: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Least time between the beginnings of two probes of a link.
const INTERVAL: Duration = Duration::from_millis(250);
/// While the router does not sleep, the clock is looked at once in so many rounds that bring the link something.
const ROUNDS: u32 = 64;

/// Samples by how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Residence {
    /// How many fell between a bound and the one before it; the last for those above all bounds.
    pub(crate) counts: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum: Duration,
}

impl Residence {
    fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|&bound| bound < micros)] += 1;
        self.sum += took;
    }
}

/// The probes of one link.
#[derive(Debug, Default)]
pub(super) struct Probe {
    in_flight: Option<(u64, Instant)>,
    /// Rounds to let pass before the next look at the clock.
    rounds_left: u32,
    begun: Option<Instant>,
    pub(super) residence: Residence,
}

impl Probe {
    /// Asked once per round that has written something: whether it is time to look at the clock.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        if self.rounds_left > 0 {
            self.rounds_left -= 1;
            return false;
        }
        self.in_flight.is_none()
    }

    /// Says that a sleep lies behind the next round: one look at the clock does not count beside it.
    pub(super) fn after_sleep(&mut self) {
        self.rounds_left = 0;
    }

    /// Begins a probe unless the last one has just begun; says whether it did.
    pub(super) fn begin(&mut self, position: u64, now: Instant) -> bool {
        self.rounds_left = ROUNDS;
        if self.begun.is_some_and(|begun| now < begun + INTERVAL) {
            return false;
        }
        self.begun = Some(now);
        self.in_flight = Some((position, now));
        true
    }

    /// The position that the probe in flight waits for.
    pub(super) fn position(&self) -> Option<u64> {
        self.in_flight.map(|(position, _)| position)
    }

    /// The probe in flight has arrived.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some((_, begun)) = self.in_flight.take() {
            self.residence.record(now.saturating_duration_since(begun));
        }
    }

    /// Forgets the probe in flight: what it waits for does not lie in the ring any more.
    pub(super) fn cancel(&mut self) {
        self.in_flight = None;
    }

    /// How long the probe in flight has been waiting.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let (_, begun) = self.in_flight?;
        Some(now.saturating_duration_since(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_counts_in_the_bucket_of_the_least_bound_that_is_not_below_it() {
        let mut residence = Residence::default();
        let samples = [0, 1_000, 1_001, 2_000, 10_000_000_000, 10_000_000_001];
        for nanos in samples {
            residence.record(Duration::from_nanos(nanos));
        }
        assert_eq!(residence.counts[..3], [2, 2, 0]);
        assert_eq!(residence.counts[21..], [1, 1]);
        assert_eq!(residence.sum, Duration::from_nanos(samples.iter().sum()));
    }

    #[test]
    fn probes_begin_at_intervals_and_one_at_a_time() {
        let (mut probe, now) = (Probe::default(), Instant::now());
        assert!(probe.is_due() && probe.begin(64, now));
        // The clock is left alone for a number of rounds, and while the probe is in flight.
        let mut due = (0..2 * ROUNDS).filter(|_| probe.is_due());
        assert_eq!(due.next(), None);
        assert_eq!(probe.age(now + INTERVAL), Some(INTERVAL));
        probe.end(now + INTERVAL / 2);
        assert_eq!(probe.age(now), None);
        assert!(probe.is_due() && !probe.begin(128, now + INTERVAL / 2));
        assert_eq!((0..=ROUNDS).filter(|_| probe.is_due()).count(), 1);
        assert!(probe.begin(128, now + INTERVAL));
        probe.cancel();
        assert!(!probe.is_due());
        probe.after_sleep();
        assert!(probe.is_due());
        assert_eq!(probe.residence.counts.iter().sum::<u64>(), 1);
    }
}
