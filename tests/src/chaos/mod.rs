//! Random faults from one seed, thrown at a real bridge with real workers, and the proof that nothing is lost that was
//! promised.
//!
//! ```text
//! faults ── what happens, from the seed alone      site ─── the bridge, its configuration, signals
//! cast ──── the workers and what they are promised  crowd ── clients that are killed, vanish, break rules
//! frames ── what is published                       journal, receipts ── what the workers got
//!                                    judge, track ── the comparison
//! ```
//!
//! A worker writes each frame down before it goes on to the next one, in a way that a SIGKILL cannot undo. After every
//! stretch of faults everybody is let go on, and the run waits until all accounts agree: what was published, what the
//! bridge counted as delivered and as missed, and what the workers wrote down.

pub mod cast;
pub mod crowd;
pub mod faults;
pub mod frames;
pub mod journal;
pub mod judge;
pub mod messages;
mod run;
pub mod site;
pub mod track;

pub use run::run;
