//! What happens, and in which order: a sequence that follows from a seed alone, whatever the timing of a run.

use super::cast::{EXTRAS, Fate, ROLES};
use crate::random::Random;

/// Slots for clients that run beside the workers.
pub const SLOTS: usize = 4;
/// At most so many workers are stopped at once.
const STOPPED_MAX: usize = 3;
/// After so many faults everybody is let go on, and all that is promised is checked.
pub const STRETCH: u64 = 200;

/// Topics that the run itself publishes.
pub const TOPICS: [&str; 4] = ["Order", "Trade", "Book", "Job"];

/// What a client process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKind {
    /// It publishes orders; otherwise it subscribes to them.
    pub publishes: bool,
    /// It is a Python program; otherwise one in Rust.
    pub python: bool,
    /// How it is connected.
    pub way: Way,
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Over the UNIX socket, with shared memory if there is any.
    Any,
    /// Over the UNIX socket, without shared memory.
    Socket,
    /// Over TCP.
    Tcp,
}

/// How somebody breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostility {
    /// Bytes that are no frame.
    Garbage,
    /// The first half of a hello.
    HalfHello,
    /// Connects and leaves.
    Silence,
    /// The name of a worker.
    TakenName,
    /// A token that is wrong.
    WrongToken,
    /// A good handshake, and then a frame that is far too long.
    Oversized,
    /// A good handshake, and then a control frame that only a bridge may send.
    WrongControl,
}

/// What a reload changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The environment of a worker, which is started again for it.
    Mood(usize),
    /// A rule of a worker, which stays.
    Rule(usize),
    /// The policy of the turncoat.
    Policy,
    /// A worker comes or goes.
    Extra(usize),
    /// The file is broken, so nothing changes.
    Broken,
    /// Nothing differs.
    Nothing,
}

/// One fault. Workers are numbers of [`ROLES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// So many frames of its topics, and SIGKILL in the middle of them.
    Kill(usize, u64),
    /// SIGSTOP.
    Stop(usize),
    /// SIGCONT.
    Resume(usize),
    /// So many frames of its topics, in the middle of which it raises, whatever it does, and exits with 0 or, if this is true,
    /// with another code. One in Rust dies of the signal.
    Exit(usize, u64, bool),
    /// SIGSTOP until the bridge finds that it hangs.
    Hang(usize),
    /// A record that kills its worker each time.
    Poison,
    /// So many frames of a topic at once, or as many as find room.
    Burst(usize, u64),
    /// SIGHUP.
    Reload(Change),
    /// SIGKILL for the client in a slot, stopped before if this is true; the next one there is of this kind.
    Client(usize, bool, ClientKind),
    /// A client publishes so many orders and is gone without a goodbye.
    Vanish(Way, u64),
    /// The same, and with the first bytes of another order at the end.
    Torn(u64, u64),
    /// Somebody breaks the rules.
    Hostile(Hostility),
}

impl Fault {
    /// Its kind, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(..) => "kill",
            Self::Stop(_) => "stop",
            Self::Resume(_) => "cont",
            Self::Exit(..) => "exit",
            Self::Hang(_) => "hang",
            Self::Poison => "poison",
            Self::Burst(..) => "burst",
            Self::Reload(_) => "reload",
            Self::Client(..) => "client",
            Self::Vanish(..) => "vanish",
            Self::Torn(..) => "torn",
            Self::Hostile(_) => "hostile",
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many frames of every topic, and then a fault.
    Fault(u64, Fault),
    /// Everybody goes on, extras and clients leave, and everything is checked.
    Settle,
}

/// The steps of a run. It knows who is stopped and which extras are there, because that follows from the steps before.
#[derive(Debug)]
pub struct Faults {
    random: Random,
    left: u64,
    since_settled: u64,
    settled: bool,
    stopped: [bool; ROLES.len()],
    extras: [bool; EXTRAS.len()],
}

impl Faults {
    /// So many faults of this seed.
    #[must_use]
    pub fn new(seed: u64, count: u64) -> Self {
        Self {
            random: Random::new(seed),
            left: count,
            since_settled: 0,
            settled: false,
            stopped: [false; ROLES.len()],
            extras: [false; EXTRAS.len()],
        }
    }

    /// A worker with one of these fates that is stopped, or is not.
    fn pick(&mut self, fates: &[Fate], stopped: Option<bool>) -> Option<usize> {
        let fits = |number: &usize| {
            fates.contains(&ROLES[*number].fate)
                && stopped.is_none_or(|stopped| self.stopped[*number] == stopped)
        };
        let fitting: Vec<usize> = (0..ROLES.len()).filter(fits).collect();
        (!fitting.is_empty()).then(|| self.random.one_of(&fitting))
    }

    fn stopped_count(&self) -> usize {
        self.stopped.iter().filter(|stopped| **stopped).count()
    }

    /// A fault that is possible now; `None` if what was drawn is not.
    fn draw(&mut self) -> Option<Fault> {
        let fault = match self.random.below(100) {
            0..=21 => {
                let worker = self.pick(&[Fate::Any, Fate::Poisoned, Fate::Hangs], None)?;
                self.stopped[worker] = false;
                Fault::Kill(worker, self.random.below(300))
            }
            22..=37 => {
                if self.stopped_count() == STOPPED_MAX {
                    return None;
                }
                let worker = self.pick(&[Fate::Any], Some(false))?;
                self.stopped[worker] = true;
                Fault::Stop(worker)
            }
            38..=53 => {
                let worker = self.pick(&[Fate::Any], Some(true))?;
                self.stopped[worker] = false;
                Fault::Resume(worker)
            }
            54..=58 => {
                let worker = self.pick(&[Fate::Any], Some(false))?;
                Fault::Exit(worker, self.random.below(300), self.random.chance(50))
            }
            59 => Fault::Hang(self.pick(&[Fate::Hangs], None)?),
            60 => Fault::Poison,
            61..=69 => {
                let topic = self.random.below(TOPICS.len() as u64) as usize;
                Fault::Burst(topic, 200 + self.random.below(800))
            }
            70..=75 => Fault::Reload(self.change()?),
            76..=85 => {
                let kind = ClientKind {
                    publishes: self.random.chance(60),
                    python: self.random.chance(40),
                    way: self.random.one_of(&[Way::Any, Way::Socket, Way::Tcp]),
                };
                let slot = self.random.below(SLOTS as u64) as usize;
                Fault::Client(slot, self.random.chance(40), kind)
            }
            86..=90 => {
                let way = self.random.one_of(&[Way::Any, Way::Socket]);
                Fault::Vanish(way, self.random.below(60))
            }
            91..=94 => Fault::Torn(self.random.below(20), 1 + self.random.below(23)),
            _ => Fault::Hostile(self.random.one_of(&[
                Hostility::Garbage,
                Hostility::HalfHello,
                Hostility::Silence,
                Hostility::TakenName,
                Hostility::WrongToken,
                Hostility::Oversized,
                Hostility::WrongControl,
            ])),
        };
        Some(fault)
    }

    fn change(&mut self) -> Option<Change> {
        Some(match self.random.below(10) {
            0..=2 => Change::Mood(self.pick(&[Fate::Any], Some(false))?),
            3 => Change::Rule(self.pick(&[Fate::Any, Fate::Untouched], None)?),
            4..=5 => Change::Policy,
            6..=7 => {
                let extra = self.random.below(EXTRAS.len() as u64) as usize;
                self.extras[extra] = !self.extras[extra];
                Change::Extra(extra)
            }
            8 => Change::Broken,
            _ => Change::Nothing,
        })
    }
}

impl Iterator for Faults {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.since_settled == STRETCH || (self.left == 0 && !self.settled) {
            self.since_settled = 0;
            self.settled = self.left == 0;
            self.stopped = [false; ROLES.len()];
            self.extras = [false; EXTRAS.len()];
            return Some(Step::Settle);
        }
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        self.since_settled += 1;
        let frames = 1 + self.random.below(24);
        loop {
            if let Some(fault) = self.draw() {
                return Some(Step::Fault(frames, fault));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_another_one_is_another() {
        let steps = |seed| Faults::new(seed, 500).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn every_kind_comes_and_the_last_step_is_a_check() {
        let steps: Vec<_> = Faults::new(1, 1000).collect();
        let kinds: BTreeSet<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Fault(_, fault) => Some(fault.kind()),
                Step::Settle => None,
            })
            .collect();
        assert_eq!(kinds.len(), 12, "{kinds:?}");
        assert_eq!(steps.last(), Some(&Step::Settle));
        assert_eq!(steps.len(), 1005, "1000 faults and five checks");
    }

    #[test]
    fn only_who_runs_is_stopped_and_only_who_is_stopped_goes_on() {
        let mut stopped = BTreeSet::new();
        for step in Faults::new(3, 5000) {
            match step {
                Step::Settle => stopped.clear(),
                Step::Fault(_, Fault::Kill(worker, _)) => {
                    stopped.remove(&worker);
                }
                Step::Fault(_, Fault::Stop(worker)) => assert!(stopped.insert(worker)),
                Step::Fault(_, Fault::Resume(worker)) => assert!(stopped.remove(&worker)),
                Step::Fault(_, Fault::Exit(worker, ..))
                | Step::Fault(_, Fault::Reload(Change::Mood(worker))) => {
                    assert!(!stopped.contains(&worker));
                }
                Step::Fault(..) => {}
            }
            assert!(stopped.len() <= STOPPED_MAX);
        }
    }

    #[test]
    fn nobody_touches_the_untouched() {
        for step in Faults::new(5, 5000) {
            let Step::Fault(_, fault) = step else {
                continue;
            };
            let (Fault::Kill(worker, _)
            | Fault::Stop(worker)
            | Fault::Exit(worker, ..)
            | Fault::Hang(worker)
            | Fault::Reload(Change::Mood(worker))) = fault
            else {
                continue;
            };
            assert_ne!(ROLES[worker].fate, Fate::Untouched, "{fault:?}");
        }
    }
}
