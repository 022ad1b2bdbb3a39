//! What is measured, in which order, and the goals.

use std::fmt;

use mycelium_bench_harness::{Measure, Sample, Waiting};
use serde::Serialize;

/// The program that can measure a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// This one.
    Ours,
    /// `benches/rivals`.
    Rivals,
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// Who measures it.
    pub program: Program,
    /// What carries the messages.
    pub carrier: &'static str,
    /// Latency or throughput.
    pub measure: Measure,
    /// Bytes of a message.
    pub payload: usize,
    /// What an idle side does. Carriers that sleep in the kernel by nature have `Park`.
    pub waiting: Waiting,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measure, waiting) = (self.measure.name(), self.waiting.name());
        write!(f, "{} {measure} {} B {waiting}", self.carrier, self.payload)
    }
}

const fn ours(carrier: &'static str, measure: Measure, payload: usize, waiting: Waiting) -> Case {
    Case {
        program: Program::Ours,
        carrier,
        measure,
        payload,
        waiting,
    }
}

const fn rival(carrier: &'static str, measure: Measure, payload: usize, waiting: Waiting) -> Case {
    Case {
        program: Program::Rivals,
        carrier,
        measure,
        payload,
        waiting,
    }
}

use Measure::{Latency, Throughput};
use Waiting::{Hybrid, Park, Spin};

const LINE: Case = ours("cacheline", Latency, 8, Spin);
const RING_64: Case = ours("ring", Latency, 64, Spin);
const ICEORYX_64: Case = rival("iceoryx2", Latency, 64, Spin);
const UNIX_64: Case = rival("unix", Latency, 64, Park);
const PARKED_64: Case = ours("ring", Latency, 64, Park);
const RING_4K: Case = ours("ring", Latency, 4096, Spin);
const ICEORYX_4K: Case = rival("iceoryx2", Latency, 4096, Spin);
const RATE_64: Case = ours("ring", Throughput, 64, Spin);
const RTRB_RATE_64: Case = rival("rtrb", Throughput, 64, Spin);
const UNIX_RATE_64: Case = rival("unix", Throughput, 64, Park);
const FALLBACK_RATE_64: Case = ours("fallback", Throughput, 64, Park);
const RATE_16K: Case = ours("ring", Throughput, 16 * 1024, Spin);
const MEMCPY_16K: Case = ours("memcpy", Throughput, 16 * 1024, Spin);

/// The case whose system calls are counted: the library's default way of waiting, at full speed.
pub const COUNTED: Case = ours("ring", Throughput, 64, Hybrid);

/// The cases that the goals are about, so that the two of a ratio follow one another.
pub const COMPARED: &[Case] = &[
    LINE,
    RING_64,
    ICEORYX_64,
    RING_4K,
    ICEORYX_4K,
    RATE_64,
    RTRB_RATE_64,
    FALLBACK_RATE_64,
    UNIX_RATE_64,
    UNIX_64,
    PARKED_64,
    RATE_16K,
    MEMCPY_16K,
];

/// Payload sizes of the tables, in bytes.
pub const SIZES: &[usize] = &[8, 64, 256, 1024, 4096, 16 * 1024, 64 * 1024];

/// The cases of the tables, the compared ones left out.
pub fn tabled(sizes: &[usize]) -> Vec<Case> {
    let mut cases = vec![ours("cacheline-one", Latency, 8, Spin)];
    for &payload in sizes {
        for waiting in [Spin, Park] {
            cases.push(ours("ring", Latency, payload, waiting));
        }
        cases.extend([
            ours("channel", Latency, payload, Spin),
            ours("fallback", Latency, payload, Park),
            ours("fallback-tcp", Latency, payload, Park),
            ours("channel-socket", Latency, payload, Park),
            ours("channel-tcp", Latency, payload, Park),
            rival("iceoryx2", Latency, payload, Spin),
            rival("ipc-channel", Latency, payload, Park),
            rival("unix", Latency, payload, Park),
            ours("ring", Throughput, payload, Spin),
            ours("ring", Throughput, payload, Hybrid),
            ours("channel", Throughput, payload, Spin),
            ours("fallback", Throughput, payload, Park),
            ours("fallback-tcp", Throughput, payload, Park),
            ours("channel-socket", Throughput, payload, Park),
            ours("channel-tcp", Throughput, payload, Park),
            ours("memcpy", Throughput, payload, Spin),
            ours("memcpy-hot", Throughput, payload, Spin),
            rival("iceoryx2", Throughput, payload, Spin),
            rival("ipc-channel", Throughput, payload, Park),
            rival("unix", Throughput, payload, Park),
        ]);
        // Its messages lie on the stack, as arrays.
        if payload <= 16 * 1024 {
            cases.push(rival("rtrb", Latency, payload, Spin));
            cases.push(rival("rtrb", Throughput, payload, Spin));
        }
    }
    cases.retain(|case| !COMPARED.contains(case));
    cases
}

/// What a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value meets the goal.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

/// A goal: a ratio of two cases that were measured in the same round.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Its key in the report.
    pub key: &'static str,
    /// What it compares.
    pub what: &'static str,
    /// The case above the line.
    pub over: Case,
    /// The case below the line.
    pub under: Case,
    /// What the ratio has to be.
    pub bound: Bound,
}

const fn goal(
    key: &'static str,
    what: &'static str,
    over: Case,
    under: Case,
    bound: Bound,
) -> Goal {
    Goal {
        key,
        what,
        over,
        under,
        bound,
    }
}

/// The goals that are ratios of two cases.
pub const GOALS: &[Goal] = &[
    goal(
        "latency64_vs_cacheline",
        "one-way latency 64 B, spinning: ring / cache line",
        RING_64,
        LINE,
        Bound::AtMost(1.25),
    ),
    goal(
        "latency64_iceoryx2_vs_ours",
        "one-way latency 64 B: iceoryx2 / ring",
        ICEORYX_64,
        RING_64,
        Bound::AtLeast(2.0),
    ),
    goal(
        "latency4k_iceoryx2_vs_ours",
        "one-way latency 4 KiB: iceoryx2 / ring",
        ICEORYX_4K,
        RING_4K,
        Bound::AtLeast(2.0),
    ),
    goal(
        "throughput64_ours_vs_rtrb",
        "messages of 64 B in a second: ring / rtrb",
        RATE_64,
        RTRB_RATE_64,
        Bound::AtLeast(1.0),
    ),
    goal(
        "throughput64_unix_vs_ours",
        "messages of 64 B in a second: ring / UNIX socket",
        RATE_64,
        UNIX_RATE_64,
        Bound::AtLeast(80.0),
    ),
    goal(
        "throughput64_fallback_vs_ours",
        "messages of 64 B in a second: ring / fallback",
        RATE_64,
        FALLBACK_RATE_64,
        Bound::AtLeast(3.0),
    ),
    goal(
        "rtt64_unix_vs_ours_spin",
        "round trip 64 B: UNIX socket / ring, spinning",
        UNIX_64,
        RING_64,
        Bound::AtLeast(80.0),
    ),
    goal(
        "rtt64_parked_ours_vs_unix",
        "round trip 64 B: ring, parked / UNIX socket",
        PARKED_64,
        UNIX_64,
        Bound::AtMost(1.1),
    ),
    goal(
        "throughput16k_ours_vs_memcpy",
        "bytes in a second, 16 KiB: ring / memcpy in and out",
        RATE_16K,
        MEMCPY_16K,
        Bound::AtLeast(0.8),
    ),
];

/// Key, description and bound of the goal that is counted and not timed.
pub const CALLS: (&str, &str, Bound) = (
    "syscalls_per_message",
    "system calls per message at full speed, both sides",
    Bound::AtMost(0.001),
);

/// The figure of a sample that ratios are made of: nanoseconds one way, or messages in a second.
pub fn figure(sample: &Sample) -> Option<f64> {
    sample.one_way_ns.or(sample.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_goal_are_measured_and_of_one_kind() {
        for goal in GOALS {
            assert!(COMPARED.contains(&goal.over), "{}", goal.key);
            assert!(COMPARED.contains(&goal.under), "{}", goal.key);
            assert_eq!(goal.over.measure, goal.under.measure, "{}", goal.key);
        }
    }

    #[test]
    fn no_case_is_measured_twice() {
        let mut all = tabled(SIZES);
        all.extend(COMPARED);
        let count = all.len();
        all.sort_by_key(Case::to_string);
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
