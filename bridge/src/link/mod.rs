//! Links: their rings, their handshakes, and what happens on them until the peer leaves.
//!
//! [`LinkLayer`] is what the control plane sees. A link has its rings in [`memory`](self), which outlive its peers; a
//! peer's stay begins with a handshake and is then a session, with a pump if its frames travel over the socket.

mod handshake;
mod layer;
mod memory;
mod pump;
mod session;

pub(crate) use layer::local_fencing;
pub use layer::{LinkLayer, LinkStatus, NameTaken, Registry};
pub(crate) use memory::LinkMemory;
pub use memory::LinkSetupError;
