//! Whether a worker hangs: frames wait for it, and nothing moves. A plain value that is shown the worker's rings again
//! and again; no clock, no I/O.
//!
//! A worker hangs if for four looks in a row
//! - frames wait for it that it has not acknowledged, and
//! - it has neither acknowledged nor published anything since the look before, and
//! - it does not sleep until frames come: then it has seen what is there, and only keeps it (an array over the ring), and
//! - nothing that it has published waits for room at a subscriber: then it may well be waiting for that room itself.
//!
//! Looks are counted rather than time, so that a pause of the bridge itself makes nobody look hung.

use std::time::Duration;

/// Looks without a sign of life that make a worker hung.
const LOOKS: u32 = 4;

/// Shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What the rings of a worker's link show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of frames that wait for the worker or are in its hands.
    pub unacknowledged: usize,
    /// How far it has acknowledged, as a position.
    pub acknowledged: u64,
    /// How far it has published, as a position.
    pub published: u64,
    /// Whether it sleeps until a frame comes.
    pub asleep: bool,
    /// Whether something that it has published waits for room at a subscriber.
    pub held_up: bool,
}

/// Watches one worker process.
#[derive(Debug, Clone, Default)]
pub struct StallWatch {
    last: Option<Progress>,
    quiet: u32,
}

impl StallWatch {
    /// Time between two looks.
    #[must_use]
    pub fn interval(stall_timeout: Duration) -> Duration {
        (stall_timeout / LOOKS).max(INTERVAL_MIN)
    }

    /// Takes a look in; `true` if the worker hangs.
    pub fn look(&mut self, now: Progress) -> bool {
        let moved = self.last.is_none_or(|last| {
            last.acknowledged != now.acknowledged || last.published != now.published
        });
        self.last = Some(now);
        if moved || now.unacknowledged == 0 || now.asleep || now.held_up {
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
        self.quiet >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: Progress = Progress {
        unacknowledged: 64,
        acknowledged: 128,
        published: 256,
        asleep: false,
        held_up: false,
    };

    /// Whether the worker hangs after each of these looks.
    fn looks(all: &[Progress]) -> Vec<bool> {
        let mut watch = StallWatch::default();
        all.iter().map(|now| watch.look(*now)).collect()
    }

    #[test]
    fn a_worker_hangs_after_four_looks_without_a_sign_of_life() {
        assert_eq!(looks(&[WAITING; 5]), [false, false, false, false, true]);
    }

    #[test]
    fn every_sign_of_life_starts_the_count_anew() {
        let signs = [
            Progress {
                acknowledged: 136,
                ..WAITING
            },
            Progress {
                published: 264,
                ..WAITING
            },
            Progress {
                unacknowledged: 0,
                ..WAITING
            },
            Progress {
                asleep: true,
                ..WAITING
            },
            Progress {
                held_up: true,
                ..WAITING
            },
        ];
        for sign in signs {
            let mut watch = StallWatch::default();
            for _ in 0..4 {
                assert!(!watch.look(WAITING));
            }
            assert!(!watch.look(sign), "{sign:?}");
            // The count begins with the next look; going back to where it was is a movement of its own.
            let quiet = Progress {
                asleep: false,
                held_up: false,
                unacknowledged: 64,
                ..sign
            };
            let hung = (0..5).filter(|_| watch.look(quiet)).count();
            assert!(hung >= 1 && watch.quiet >= 4, "{sign:?}");
        }
    }

    #[test]
    fn a_worker_with_nothing_to_do_never_hangs() {
        let idle = Progress {
            unacknowledged: 0,
            ..WAITING
        };
        assert!(looks(&[idle; 20]).iter().all(|hung| !hung));
    }

    #[test]
    fn the_looks_share_the_time_limit() {
        assert_eq!(
            StallWatch::interval(Duration::from_millis(400)),
            Duration::from_millis(100)
        );
        assert_eq!(StallWatch::interval(Duration::from_millis(1)), INTERVAL_MIN);
    }
}
