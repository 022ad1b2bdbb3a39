//! How long to spin before parking.

use std::time::{Duration, Instant};

/// What a side does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStrategy {
    /// Spin for ever: the lowest latency, one core fully used.
    BusySpin,
    /// Spin for at most this many microseconds, then park. The budget shrinks while spinning is in vain.
    Hybrid {
        /// The longest spin, in microseconds.
        spin_us: u32,
    },
    /// Park at once: the least processor time, a wakeup per burst.
    Park,
}

impl Default for WaitStrategy {
    fn default() -> Self {
        match default_spin_us() {
            0 => Self::Park,
            spin_us => Self::Hybrid { spin_us },
        }
    }
}

/// The default spin budget for the processors that this process may use: nothing on one, because a spinning side would
/// only keep its peer from running; little on few.
#[must_use]
pub fn default_spin_us() -> u32 {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => 0,
        2..=3 => 50,
        _ => 200,
    }
}

/// Polls of the condition between two looks at the clock, which costs about as much as ten of them.
const POLLS_PER_CLOCK: u32 = 32;

/// A park that ends within this many full budgets says that spinning would have been worth it.
const NEAR_MISS: u32 = 4;

/// A spin budget that adapts: it is halved when a whole spin was in vain, down to 1/16, and restored by a spin that
/// paid or by a park so short that a full spin might have spared it.
#[derive(Debug, Clone)]
pub struct SpinBudget {
    strategy: WaitStrategy,
    budget: Duration,
}

impl SpinBudget {
    /// A full budget.
    #[must_use]
    pub fn new(strategy: WaitStrategy) -> Self {
        Self {
            strategy,
            budget: Self::full(strategy),
        }
    }

    fn full(strategy: WaitStrategy) -> Duration {
        match strategy {
            WaitStrategy::BusySpin => Duration::MAX,
            WaitStrategy::Hybrid { spin_us } => Duration::from_micros(spin_us.into()),
            WaitStrategy::Park => Duration::ZERO,
        }
    }

    /// Whether this side never parks.
    pub(crate) fn is_endless(&self) -> bool {
        self.strategy == WaitStrategy::BusySpin
    }

    /// Tells how long the park lasted that followed a vain spin.
    pub fn parked_for(&mut self, duration: Duration) {
        let full = Self::full(self.strategy);
        if duration <= full.saturating_mul(NEAR_MISS) {
            self.budget = full;
        }
    }

    /// Polls until `ready` says yes or the budget or the time to `deadline` is used up; says which. No system call
    /// where the clock is in the vDSO.
    pub fn spin(&mut self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if self.budget.is_zero() {
            return false;
        }
        let start = Instant::now();
        let limit = deadline.map_or(self.budget, |at| {
            self.budget.min(at.saturating_duration_since(start))
        });
        loop {
            for _ in 0..POLLS_PER_CLOCK {
                if ready() {
                    self.budget = Self::full(self.strategy);
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= limit {
                if limit == self.budget {
                    self.budget = (self.budget / 2).max(Self::full(self.strategy) / 16);
                }
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parking_strategy_looks_once() {
        let mut looks = 0;
        assert!(!SpinBudget::new(WaitStrategy::Park).spin(None, || {
            looks += 1;
            false
        }));
        assert_eq!(looks, 1);
    }

    #[test]
    fn a_vain_spin_halves_the_budget_and_a_good_one_restores_it() {
        let mut spin = SpinBudget::new(WaitStrategy::Hybrid { spin_us: 160 });
        for expected_us in [80, 40, 20, 10, 10] {
            assert!(!spin.spin(None, || false));
            assert_eq!(spin.budget, Duration::from_micros(expected_us));
        }
        let mut looks = 0;
        assert!(spin.spin(None, || {
            looks += 1;
            looks > 2
        }));
        assert_eq!(spin.budget, Duration::from_micros(160));
    }

    #[test]
    fn a_short_park_restores_the_budget_and_a_long_one_does_not() {
        let mut spin = SpinBudget::new(WaitStrategy::Hybrid { spin_us: 16 });
        assert!(!spin.spin(None, || false));
        spin.parked_for(Duration::from_secs(1));
        assert_eq!(spin.budget, Duration::from_micros(8));
        spin.parked_for(Duration::from_micros(64));
        assert_eq!(spin.budget, Duration::from_micros(16));
    }

    #[test]
    fn a_busy_spin_ends_when_the_condition_holds() {
        let mut looks = 0_u32;
        assert!(SpinBudget::new(WaitStrategy::BusySpin).spin(None, || {
            looks += 1;
            looks == 10_000
        }));
    }
}
