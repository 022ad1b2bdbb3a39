//! Measurements of the transport. `make bench` runs them; `docs/benchmarks.md` says what they mean.
//!
//! - `benches/` has the criterion benches; each file answers one question.
//! - The program `measure` runs the transport, its floors and its rivals side by side and writes the report;
//!   `bench-python` and `bench-bridge` do the same for the Python SDK and for the bridge.
//! - [`rounds`] and [`report`] are what these programs have in common.
//! - [`catalog`] says what `measure` measures and what the goals are.
//! - [`inline`] is a bridge without a thread for its data plane, with a publisher and a subscriber.
//! - [`carriers`] are the forms of the transport, and the floors, as the harness drives them.

pub mod carriers;
pub mod catalog;
pub mod docs;
pub mod host;
pub mod inline;
#[allow(dead_code, reason = "generated for every use")]
pub mod probe;
pub mod report;
pub mod rounds;
pub mod runner;
pub mod syscalls;

/// Tells whoever watches a measuring program how far it is.
#[allow(clippy::print_stderr, reason = "for programs for the terminal")]
fn note(text: &str) {
    eprintln!("{text}");
}
