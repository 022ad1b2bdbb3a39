//! Measurements of the transport. `make bench` runs them; `docs/benchmarks.md` says what they mean.
//!
//! - `benches/` has the criterion benches; each file answers one question.
//! - The program `measure` runs the transport, its floors and its rivals side by side and writes the report.
//! - [`catalog`] says what is measured and what the goals are.
//! - [`carriers`] are the forms of the transport, and the floors, as the harness drives them.

pub mod carriers;
pub mod catalog;
pub mod docs;
pub mod host;
pub mod report;
pub mod runner;
pub mod syscalls;
