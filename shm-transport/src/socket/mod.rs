//! Byte streams of every kind (UNIX, TCP, two pipes), and frames over them: the control frames of every link, and all
//! frames of a link that has no shared memory. Knows no segment, and of the ring only its frame and its slices.
//!
//! ```
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//! use shm_transport::ring::Frame;
//! use shm_transport::socket::{
//!     Address, AddressError, ByteStream, FillOutcome, FrameStream, Stream, StreamError, StreamKind, Traffic,
//! };
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut ours, mut theirs) = (FrameStream::new(ours)?, FrameStream::new(theirs)?);
//! ours.queue_frame(&Frame::new(7, b"hello"));
//! assert!(ours.flush()?, "the socket took everything");
//! assert_eq!(theirs.fill()?, FillOutcome::Data(16));
//! let frame = theirs.peek()?.expect("it arrived whole");
//! assert_eq!((frame.topic_id(), frame.to_vec()), (7, b"hello".to_vec()));
//! let sent: Traffic = ours.traffic();
//! assert_eq!(sent.sends, 1);
//!
//! // A length beyond the limit is refused before anything is stored.
//! let (mut rude, polite) = UnixStream::pair()?;
//! rude.write_all(&[255; 16])?;
//! let mut polite = FrameStream::new(polite)?;
//! polite.fill()?;
//! assert!(matches!(polite.peek(), Err(StreamError::TooLarge { .. })));
//!
//! // Byte streams of any kind carry the same frames.
//! let (one, _other) = UnixStream::pair()?;
//! let stream = Stream::from(one);
//! assert_eq!(stream.kind(), StreamKind::Unix);
//! fn carries_frames(_: &impl ByteStream) {}
//! carries_frames(&stream);
//! let wrong: Result<Address, AddressError> = "tcp:nowhere".parse();
//! assert!(wrong.is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod buffer;
mod descriptors;
mod frames;
mod queue;
mod stream;
#[cfg(feature = "tls")]
mod tls;

pub use address::{Address, AddressError};
pub(crate) use frames::{CONTROL_PAYLOAD_MAX, poll_timeout};
pub use frames::{FillOutcome, FrameStream, StreamError, Traffic};
pub(crate) use queue::SendQueue;
pub use stream::{
    ByteStream, KEEP_ALIVE_COUNT, KEEP_ALIVE_IDLE, KEEP_ALIVE_INTERVAL, Stream, StreamKind,
};
#[cfg(feature = "tls")]
pub use tls::TlsOptions;
