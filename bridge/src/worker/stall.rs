//! Whether a worker hangs: frames wait for it, and nothing moves. A plain value that is shown the worker's rings again
//! and again; no clock, no I/O.
//!
//! A worker hangs if for four looks in a row
//! - frames wait for it that it has not acknowledged, and
//! - it has neither acknowledged nor published anything since the look before, and
//! - it does not sleep until frames come: then it has seen what is there, and only keeps it (an array over the ring), and
//! - nothing that it has published waits for room at a subscriber: then it may well be waiting for that room itself.
//!
//! Workers that wait for room at each other excuse each other for ever. So one that shows all but the last for four looks is
//! *held up*, and [`standstill`] finds those among them that wait for nobody else.
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

/// What the looks at a worker say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It lives, or has nothing to do.
    Lives,
    /// It would hang, but something that it has published waits for room.
    HeldUp,
    /// It hangs.
    Hangs,
}

/// Watches one worker process.
#[derive(Debug, Clone, Default)]
pub struct StallWatch {
    last: Option<Progress>,
    /// Looks without a sign of life, the last of them without an excuse.
    quiet: u32,
    /// Looks without a sign of life.
    still: u32,
}

impl StallWatch {
    /// Time between two looks.
    #[must_use]
    pub fn interval(stall_timeout: Duration) -> Duration {
        (stall_timeout / LOOKS).max(INTERVAL_MIN)
    }

    /// Takes a look in.
    pub fn look(&mut self, now: Progress) -> Verdict {
        let moved = self.last.is_none_or(|last| {
            last.acknowledged != now.acknowledged || last.published != now.published
        });
        self.last = Some(now);
        if moved || now.unacknowledged == 0 || now.asleep {
            (self.quiet, self.still) = (0, 0);
        } else {
            self.still = self.still.saturating_add(1);
            self.quiet = if now.held_up { 0 } else { self.quiet + 1 };
        }
        self.verdict()
    }

    /// What the looks so far say.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.quiet >= LOOKS, self.still >= LOOKS) {
            (true, _) => Verdict::Hangs,
            (false, true) => Verdict::HeldUp,
            (false, false) => Verdict::Lives,
        }
    }
}

/// Of workers that are held up, those that wait for nobody but each other: they will not move again. `waits` says for each which
/// links have no room for it; `None` is a link of somebody else, who may well make room.
#[must_use]
pub fn standstill(waits: &[(usize, Vec<Option<usize>>)]) -> Vec<usize> {
    let mut stuck: Vec<usize> = waits.iter().map(|(worker, _)| *worker).collect();
    loop {
        let only_each_other = |others: &[Option<usize>]| {
            let mut others = others.iter();
            others.len() > 0 && others.all(|it| it.is_some_and(|it| stuck.contains(&it)))
        };
        let held = waits
            .iter()
            .filter(|(worker, others)| stuck.contains(worker) && only_each_other(others));
        let left: Vec<usize> = held.map(|(worker, _)| *worker).collect();
        if left.len() == stuck.len() {
            return stuck;
        }
        stuck = left;
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
        let mut hangs = |now| watch.look(now) == Verdict::Hangs;
        all.iter().map(|now| hangs(*now)).collect()
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
                assert_ne!(watch.look(WAITING), Verdict::Hangs);
            }
            assert_ne!(watch.look(sign), Verdict::Hangs, "{sign:?}");
            // The count begins with the next look; going back to where it was is a movement of its own.
            let quiet = Progress {
                asleep: false,
                held_up: false,
                unacknowledged: 64,
                ..sign
            };
            let hangs = |_: &i32| watch.look(quiet) == Verdict::Hangs;
            let hung = (0..5).filter(hangs).count();
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
    fn a_worker_that_waits_for_room_is_held_up_until_it_moves() {
        let held = Progress {
            held_up: true,
            ..WAITING
        };
        let mut watch = StallWatch::default();
        let verdicts: Vec<_> = (0..6).map(|_| watch.look(held)).collect();
        let (before, after) = verdicts.split_at(4);
        assert_eq!(before, [Verdict::Lives; 4]);
        assert_eq!(after, [Verdict::HeldUp; 2]);
        let moved = Progress {
            acknowledged: 200,
            ..held
        };
        assert_eq!(watch.look(moved), Verdict::Lives);
    }

    #[test]
    fn only_those_that_wait_for_each_other_stand_still() {
        const NOBODY: [usize; 0] = [];
        let all = |waits: &[(usize, &[Option<usize>])]| {
            let waits: Vec<_> = waits.iter().map(|(it, on)| (*it, on.to_vec())).collect();
            standstill(&waits)
        };
        assert_eq!(all(&[(1, &[Some(2)]), (2, &[Some(1)])]), [1, 2]);
        assert_eq!(
            all(&[(1, &[Some(2)]), (2, &[Some(3)]), (3, &[Some(1)])]),
            [1, 2, 3]
        );
        // The second waits for a client, too, which may be about to read.
        assert_eq!(all(&[(1, &[Some(2)]), (2, &[Some(1), None])]), NOBODY);
        // The third is not held up: it reads.
        assert_eq!(all(&[(1, &[Some(2)]), (2, &[Some(3)])]), NOBODY);
        // Whoever waits for those that stand still does not move either.
        assert_eq!(
            all(&[(4, &[Some(1)]), (1, &[Some(2)]), (2, &[Some(1)])]),
            [4, 1, 2]
        );
        assert_eq!(all(&[(1, &[])]), NOBODY);
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
