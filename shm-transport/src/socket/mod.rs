//! Frames over a stream socket: the control frames of every link, and all frames of a link that has no shared memory.
//! Knows no segment and no ring.

mod buffer;
mod stream;

pub(crate) use stream::{CONTROL_PAYLOAD_MAX, poll_timeout};
pub use stream::{FillOutcome, FrameStream, StreamError, Traffic};
