//! What this program can measure by itself: the forms of the transport, and the floors under them.
//!
//! | carrier | what |
//! |---|---|
//! | `ring` | a segment and its doorbells between two processes; waiting as the case says |
//! | `channel` | the same, with [`Channel`](shm_transport::channel::Channel) on the measuring side |
//! | `fallback` | frames over a UNIX socket, batched |
//! | `channel-socket` | `Channel` over a UNIX socket on the measuring side |
//! | `cacheline` | floor: a cache line each way, written by one thread and polled by the other |
//! | `cacheline-one` | one cache line that two threads write in turn |
//! | `memcpy` | floor: bytes copied into and out of memory of the ring's size, on one core |
//! | `memcpy-hot` | the same through one buffer of the message's size |

pub mod bridge;
mod channel;
mod fallback;
mod floors;
mod ring;

use mycelium_bench_harness::{CaseArgs, Failure, PeerProcess, Sample};

/// The topic of messages that are byte strings.
pub const TOPIC: u16 = 1001;

/// Measures a case.
///
/// # Errors
///
/// If there is no such carrier, or it fails or garbles a message.
pub fn measure(args: &CaseArgs) -> Result<Sample, Failure> {
    match args.carrier.as_str() {
        "ring" => ring::near(args),
        "channel" => channel::near(args, true),
        "channel-socket" => channel::near(args, false),
        "fallback" => fallback::near(args),
        "cacheline" => floors::cache_line(args, 2),
        "cacheline-one" => floors::cache_line(args, 1),
        "memcpy" => floors::memcpy(args, mycelium_bench_harness::link::RING_BYTES),
        "memcpy-hot" => floors::memcpy(args, args.payload),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}

/// Runs the other side of a case, in the process that was started for it.
///
/// # Errors
///
/// As [`measure`].
pub fn answer(args: &CaseArgs) -> Result<(), Failure> {
    PeerProcess::begin()?;
    match args.carrier.as_str() {
        "ring" => ring::far(args),
        "channel" | "channel-socket" => channel::far(args),
        "fallback" => fallback::far(args),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}
