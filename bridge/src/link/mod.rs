//! Links: their rings, their handshakes, and what happens on them until the peer leaves.
//!
//! [`LinkLayer`] is what the control plane sees. A link has its rings in [`memory`](self), which outlive its peers; a
//! peer's stay begins with a handshake and is then a session, with a pump if its frames travel over the socket.

mod contracts;
mod end;
mod handshake;
mod layer;
mod local;
mod memory;
mod missed;
mod quarantine;
mod registry;
mod reports;
mod serve;
mod session;
mod topics;
mod uplink;
mod wire;
mod worker_link;

pub use layer::LinkLayer;
pub(crate) use memory::LinkMemory;
pub use memory::LinkSetupError;
pub(crate) use missed::Missed;
pub use registry::{LinkStatus, NameTaken, Registry};
pub(crate) use serve::local_fencing;
pub use uplink::{UplinkState, UplinkStatus};
