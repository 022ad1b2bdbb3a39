//! Byte streams of every kind (UNIX, TCP, two pipes), and frames over them: the control frames of every link, and all
//! frames of a link that has no shared memory. Knows no segment, and of the ring only its frame and its slices.

mod address;
mod buffer;
mod frames;
mod queue;
mod stream;

pub use address::{Address, AddressError};
pub(crate) use frames::{CONTROL_PAYLOAD_MAX, poll_timeout};
pub use frames::{FillOutcome, FrameStream, StreamError, Traffic};
pub(crate) use queue::SendQueue;
pub use stream::{
    ByteStream, KEEP_ALIVE_COUNT, KEEP_ALIVE_IDLE, KEEP_ALIVE_INTERVAL, Stream, StreamKind,
};
