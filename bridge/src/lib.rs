//! The bridge: supervises worker processes and routes frames by topic between workers, clients and in-process actors.
//!
//! Two planes. The control plane ([`event_loop`]) runs on one thread with a tokio runtime: configuration, supervision,
//! accepting, handshakes, shutdown; it never looks at a frame. The data plane ([`data_plane`]) moves frames between the
//! rings of the links by topic and never decodes a payload; it runs on a thread of its own, or inline on a host's.
//! [`bridge::Bridge`] puts both together for a host program.

#![deny(unsafe_code)]

pub mod bridge;
pub mod config;
pub mod data_plane;
pub mod event_loop;
#[allow(unsafe_code)]
pub mod link;
pub mod listen;
pub mod local;
pub mod logging;
mod notify;
mod output;
pub mod quarantine;
pub mod reload;
pub mod router;
pub mod routes;
pub mod shutdown;
pub mod status;
#[allow(unsafe_code)]
pub mod supervisor;
pub mod worker;
