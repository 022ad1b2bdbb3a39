//! What is measured, in which order, and the goals.

use mycelium_benches::catalog::Bound;
use shm_transport::channel::Transport;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Case {
    /// Its name in the report and on the command line.
    pub(crate) name: &'static str,
    /// What the tables say.
    pub(crate) title: &'static str,
    pub(crate) way: Way,
}

/// How a case is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// The router alone, polled by the thread that publishes and reads.
    Router,
    /// Client, bridge, worker, bridge, client; one message at a time.
    Echo { transport: Transport, waits: Waits },
    /// The same with an actor that polls the data plane itself: two threads that spin.
    EchoInline,
    /// As `Echo`, with many messages on their way.
    Rate { transport: Transport },
    /// One publisher, so many workers.
    FanOut { workers: usize },
    /// Four workers, one of which is stopped now and then, under a policy.
    Stalled { policy: &'static str },
    /// Links that nothing travels on.
    Idle,
}

/// What every side does that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Waits {
    /// As the bridge says if it is not told otherwise.
    Default,
    /// It polls for a while, whether there are cores for that or not.
    Spinning,
    /// It sleeps at once.
    Parked,
}

use Transport::{Shm, Socket};

const fn case(name: &'static str, title: &'static str, way: Way) -> Case {
    Case { name, title, way }
}

const fn echo(transport: Transport, waits: Waits) -> Way {
    Way::Echo { transport, waits }
}

/// All cases; those that are compared follow one another.
pub(crate) const CASES: &[Case] = &[
    case("router", "router, 64 B to one link", Way::Router),
    case("echo-shm", "shared memory", echo(Shm, Waits::Default)),
    case("echo-socket", "socket", echo(Socket, Waits::Default)),
    case(
        "echo-shm-spinning",
        "shared memory, all three spinning",
        echo(Shm, Waits::Spinning),
    ),
    case(
        "echo-socket-spinning",
        "socket, all three spinning",
        echo(Socket, Waits::Spinning),
    ),
    case(
        "echo-shm-parked",
        "shared memory, parked",
        echo(Shm, Waits::Parked),
    ),
    case(
        "echo-socket-parked",
        "socket, parked",
        echo(Socket, Waits::Parked),
    ),
    case(
        "echo-inline",
        "shared memory, spinning, the client polls the data plane itself",
        Way::EchoInline,
    ),
    case(
        "rate-shm",
        "there and back over shared memory",
        Way::Rate { transport: Shm },
    ),
    case(
        "rate-socket",
        "there and back over the socket",
        Way::Rate { transport: Socket },
    ),
    case("fanout-1", "to 1 worker", Way::FanOut { workers: 1 }),
    case("fanout-4", "to 4 workers", Way::FanOut { workers: 4 }),
    case("fanout-16", "to 16 workers", Way::FanOut { workers: 16 }),
    case(
        "stalled-drop_newest",
        "`drop_newest`",
        Way::Stalled {
            policy: "drop_newest",
        },
    ),
    case(
        "stalled-drop_oldest",
        "`drop_oldest`",
        Way::Stalled {
            policy: "drop_oldest",
        },
    ),
    case(
        "stalled-conflate",
        "`conflate`",
        Way::Stalled { policy: "conflate" },
    ),
    case("idle", "idle links", Way::Idle),
];

/// A goal: key, description and bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) key: &'static str,
    pub(crate) what: &'static str,
    /// Beginning of the names of its cases: the figure is that of the worst of them.
    pub(crate) cases: &'static str,
    pub(crate) bound: Bound,
}

/// All goals.
pub(crate) const GOALS: &[Goal] = &[
    Goal {
        key: "router_ns_per_frame",
        what: "router, 64 B to one link: nanoseconds per frame",
        cases: "router",
        bound: Bound::AtMost(60.0),
    },
    Goal {
        key: "stalled_worker_p99_ratio",
        what: "three workers' p99, the fourth stopped / running; the worst policy",
        cases: "stalled-",
        bound: Bound::AtMost(1.2),
    },
    Goal {
        key: "idle_1000_links_cpu_percent",
        what: "1,000 idle links: processor time of the bridge in percent of a core",
        cases: "idle",
        bound: Bound::AtMost(1.0),
    },
];

/// Keys of median round trips, in microseconds, with their cases.
pub(crate) const ROUND_TRIPS: &[(&str, &str)] = &[
    ("rtt_us_shm", "echo-shm"),
    ("rtt_us_shm_inline", "echo-inline"),
    ("rtt_us_shm_parked", "echo-shm-parked"),
    ("rtt_us_shm_spinning", "echo-shm-spinning"),
    ("rtt_us_socket", "echo-socket"),
    ("rtt_us_socket_parked", "echo-socket-parked"),
    ("rtt_us_socket_spinning", "echo-socket-spinning"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_case_and_no_two_cases_have_one_name() {
        for goal in GOALS {
            assert!(CASES.iter().any(|case| case.name.starts_with(goal.cases)));
        }
        for (key, name) in ROUND_TRIPS {
            assert!(CASES.iter().any(|case| case.name == *name), "{key}");
        }
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
