//! The bridge: supervises worker processes and routes frames by topic between workers, clients and in-process actors.
//!
//! The control plane ([`event_loop`]) runs on one thread with a tokio runtime: configuration, supervision, accepting,
//! shutdown. Frames are moved elsewhere; nothing here looks at one.

pub mod config;
pub mod event_loop;
pub mod listen;
pub mod logging;
mod output;
pub mod shutdown;
pub mod supervisor;
pub mod worker;
