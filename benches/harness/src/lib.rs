//! What the measurements of the transport and of its rivals have in common: the same loops, the same payloads, the same
//! clock, whatever carries the bytes.
//!
//! A *case* is one thing that is measured: a carrier, a payload size, latency or throughput. A program that can measure
//! cases is called with `case` and a [`CaseArgs`], starts its own other side (a second process or a second thread), and
//! prints one [`Sample`] as a line of JSON.
//!
//! | module | what |
//! |---|---|
//! | [`case`] | the arguments of a case, and starting the peer process |
//! | [`cores`] | which two cores a pair runs on |
//! | [`link`] | what a carrier has to do, and the loops over it |
//! | [`pattern`] | what is in the payloads, and the check of it |
//! | [`sample`] | what comes out |

pub mod case;
pub mod cores;
pub mod link;
pub mod pattern;
pub mod sample;

pub use case::{CaseArgs, Measure, PeerProcess, Waiting};
pub use link::{Link, consume, echo, produce, round_trips};
pub use sample::Sample;

/// Why a case gave no numbers.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What came out was not what went in, so nothing that was measured means anything.
    #[error(
        "content differs: message={seq} payload_len={payload_len} expected_len={expected_len}; the carrier is broken, no figure of it counts"
    )]
    Content {
        /// Number of the message, from 0.
        seq: u64,
        /// Bytes that came.
        payload_len: usize,
        /// Bytes that were sent.
        expected_len: usize,
    },
    /// The carrier failed.
    #[error("carrier failed: step={step}: {detail}")]
    Carrier {
        /// What it was to do.
        step: &'static str,
        /// What it said.
        detail: String,
    },
    /// The other side of the pair failed.
    #[error("peer failed: {0}")]
    Peer(String),
    /// There is no such case.
    #[error("no such case: {0}")]
    Unknown(String),
}

impl Failure {
    /// A failure of the carrier, from whatever error it gives.
    pub fn carrier<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Carrier {
            step,
            detail: error.to_string(),
        }
    }
}
