//! What is measured, in which order, and the goals.

use mycelium_benches::catalog::Bound;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Case {
    /// Its name in the report and on the command line.
    pub(crate) name: &'static str,
    /// What the table says.
    pub(crate) title: &'static str,
    pub(crate) way: Way,
}

/// How a case is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// Rust sends, Python sends back, Rust keeps the time.
    Echo { transport: Transport, spins: bool },
    /// Rust sends at full speed, Python reads; about so many messages in a second.
    Read { case: &'static str, rate: u64 },
    /// Python sends, Rust reads; about so many messages in a second.
    Publish { case: &'static str, rate: u64 },
    /// Nothing is sent.
    Idle,
    /// Two Python processes.
    Pair {
        script: &'static str,
        carrier: &'static str,
        spins: bool,
    },
}

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Transport {
    Shm,
    Socket,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Socket => "socket",
        }
    }
}

use Transport::{Shm, Socket};

/// All cases; those that are compared follow one another.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "echo",
        title: "round trip Rust, Python, Rust: spinning",
        way: Way::Echo {
            transport: Shm,
            spins: true,
        },
    },
    Case {
        name: "echo-socket",
        title: "the same over the socket",
        way: Way::Echo {
            transport: Socket,
            spins: false,
        },
    },
    Case {
        name: "echo-socket-spinning",
        title: "the same over the socket, both sides polling it",
        way: Way::Echo {
            transport: Socket,
            spins: true,
        },
    },
    Case {
        name: "echo-parked",
        title: "the same in shared memory, parked",
        way: Way::Echo {
            transport: Shm,
            spins: false,
        },
    },
    Case {
        name: "pair",
        title: "round trip Python, Python: spinning",
        way: pair("mycelium", true),
    },
    Case {
        name: "pair-iceoryx2",
        title: "iceoryx2, busy-polling",
        way: pair("iceoryx2", true),
    },
    Case {
        name: "pair-pyzmq",
        title: "pyzmq, ipc",
        way: pair("pyzmq", false),
    },
    Case {
        name: "pair-pipe",
        title: "`multiprocessing.Pipe`",
        way: pair("pipe", false),
    },
    Case {
        name: "pair-unix",
        title: "UNIX socket",
        way: pair("unix", false),
    },
    Case {
        name: "asyncio",
        title: "asyncio round trip: ours, parked",
        way: event_loops("mycelium"),
    },
    Case {
        name: "asyncio-streams",
        title: "asyncio streams over a UNIX socket",
        way: event_loops("streams"),
    },
    Case {
        name: "accessor",
        title: "reading message by message, two fields of each",
        way: Way::Read {
            case: "accessor",
            rate: 1_500_000,
        },
    },
    Case {
        name: "rows",
        title: "reading `batch.rows()`",
        way: Way::Read {
            case: "rows",
            rate: 2_500_000,
        },
    },
    Case {
        name: "columns",
        title: "reading `batch.columns()`, summing two of them",
        way: Way::Read {
            case: "columns",
            rate: 60_000_000,
        },
    },
    Case {
        name: "send",
        title: "`send(Tick(…))`",
        way: Way::Publish {
            case: "send",
            rate: 600_000,
        },
    },
    Case {
        name: "send-again",
        title: "`send(tick)`, four fields of one message set before each",
        way: Way::Publish {
            case: "send_again",
            rate: 800_000,
        },
    },
    Case {
        name: "reserve",
        title: "`with reserve() as tick`, four fields set",
        way: Way::Publish {
            case: "reserve",
            rate: 700_000,
        },
    },
    Case {
        name: "send-many",
        title: "`send_many(array)` of 4 096",
        way: Way::Publish {
            case: "send_many",
            rate: 20_000_000,
        },
    },
    Case {
        name: "idle",
        title: "idle worker",
        way: Way::Idle,
    },
];

const fn pair(carrier: &'static str, spins: bool) -> Way {
    Way::Pair {
        script: "pair.py",
        carrier,
        spins,
    }
}

const fn event_loops(carrier: &'static str) -> Way {
    Way::Pair {
        script: "pair_asyncio.py",
        carrier,
        spins: false,
    }
}

/// A goal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// Its key in the report.
    pub(crate) key: &'static str,
    pub(crate) what: &'static str,
    /// Name of the case, in the unit of the goal; or of the two whose ratio is made within each round.
    pub(crate) of: Figure,
    pub(crate) bound: Bound,
}

/// What a goal is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    /// Median of the round trips, in microseconds.
    RoundTripUs(&'static str),
    /// Median of the round trips of the first over that of the second.
    Ratio(&'static str, &'static str),
    /// Millions of messages in a second.
    MillionsPerSecond(&'static str),
    /// Processor time over time, in percent.
    CpuPercent(&'static str),
}

/// All goals.
pub(crate) const GOALS: &[Goal] = &[
    Goal {
        key: "rtt_rust_python_us",
        what: "round trip Rust, Python, Rust, spinning: median in microseconds",
        of: Figure::RoundTripUs("echo"),
        bound: Bound::AtMost(3.5),
    },
    Goal {
        key: "rtt_socket_vs_ours",
        what: "the same: socket / shared memory",
        of: Figure::Ratio("echo-socket", "echo"),
        bound: Bound::AtLeast(15.0),
    },
    Goal {
        key: "rtt_iceoryx2_vs_ours",
        what: "round trip Python, Python, spinning: iceoryx2 / ours",
        of: Figure::Ratio("pair-iceoryx2", "pair"),
        bound: Bound::AtLeast(2.5),
    },
    Goal {
        key: "accessor_mps",
        what: "reading message by message: million in a second",
        of: Figure::MillionsPerSecond("accessor"),
        bound: Bound::AtLeast(1.5),
    },
    Goal {
        key: "rows_mps",
        what: "reading rows: million messages in a second",
        of: Figure::MillionsPerSecond("rows"),
        bound: Bound::AtLeast(2.5),
    },
    Goal {
        key: "columns_mps",
        what: "reading columns: million messages in a second",
        of: Figure::MillionsPerSecond("columns"),
        bound: Bound::AtLeast(80.0),
    },
    Goal {
        key: "send_mps",
        what: "`send`: million messages in a second",
        of: Figure::MillionsPerSecond("send"),
        bound: Bound::AtLeast(0.8),
    },
    Goal {
        key: "reserve_mps",
        what: "`reserve`: million messages in a second",
        of: Figure::MillionsPerSecond("reserve"),
        bound: Bound::AtLeast(0.8),
    },
    Goal {
        key: "send_many_mps",
        what: "`send_many`: million messages in a second",
        of: Figure::MillionsPerSecond("send-many"),
        bound: Bound::AtLeast(20.0),
    },
    Goal {
        key: "asyncio_ours_vs_streams",
        what: "asyncio round trip, parked: ours / UNIX streams",
        of: Figure::Ratio("asyncio", "asyncio-streams"),
        bound: Bound::AtMost(1.0),
    },
    Goal {
        key: "idle_cpu_percent",
        what: "idle worker: processor time in percent",
        of: Figure::CpuPercent("idle"),
        bound: Bound::AtMost(0.5),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_cases_that_are_measured() {
        let known = |name: &str| CASES.iter().any(|case| case.name == name);
        for goal in GOALS {
            let (first, second) = match goal.of {
                Figure::Ratio(over, under) => (over, under),
                Figure::RoundTripUs(case)
                | Figure::MillionsPerSecond(case)
                | Figure::CpuPercent(case) => (case, case),
            };
            assert!(known(first) && known(second), "{}", goal.key);
        }
    }
}
