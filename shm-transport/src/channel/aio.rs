//! The channel for async Rust, on a tokio runtime.
//!
//! Each future looks first, which is the same code as [`Channel`]'s and makes no system call over shared memory. Only a
//! future that finds nothing spins for its budget, asks the peer to ring, and registers the doorbell and the socket with
//! the runtime. Registration is edge-triggered: readiness is cleared *before* the look that follows, the doorbell is
//! emptied, and a future goes to sleep only after a look that came behind everything it was told.

mod topics;

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use mycelium_messages::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;

use super::burst::{Burst, frames_of};
use super::ends::WaitFor;
use super::{Channel, ConnectOptions, Data, PART_MAX};
use crate::error::{BurstError, ChannelError, DecodeError, HandshakeError};
use crate::frame::FrameHeader;
use crate::ring::Frame;
use crate::socket::StreamKind;

/// How long a side that never sleeps spins before it lets other tasks run.
const BUSY_SPIN: Duration = Duration::from_micros(50);

/// A [`Channel`] whose waits are futures.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::time::{Duration, Instant};
/// use std::future::poll_fn;
/// use std::pin::pin;
/// use futures_core::Stream;
/// use mycelium_messages::control::FallbackCode;
/// use shm_transport::channel::handshake::{Offer, OfferedTransport, offer, receive_hello};
/// use shm_transport::channel::{AsyncChannel, Channel, ConnectOptions, Fallback, Frames};
/// use shm_transport::ring::{Fencing, Frame};
/// use shm_transport::socket::FrameStream;
///
/// let (bridge, peer) = UnixStream::pair()?;
/// // In the place of a bridge: a handshake that offers the socket.
/// let bridge = std::thread::spawn(move || {
///     let deadline = Instant::now() + Duration::from_secs(5);
///     let mut stream = FrameStream::new(bridge).unwrap();
///     receive_hello(&mut stream, deadline).unwrap();
///     let why = Fallback::new(FallbackCode::REQUESTED, "this example has no shared memory");
///     let terms = Offer {
///         name: "example", link_id: 1, epoch: 1, spin_us: 0, max_payload: 4096, ack_window: 512,
///         schema_digest: [0; 32], settings: "{}", fencing: Fencing::Fenced,
///         transport: OfferedTransport::Socket(why),
///     };
///     offer(&mut stream, &terms, deadline).unwrap();
///     stream.queue_frame(&Frame::new(1001, b"welcome"));
///     stream.flush_until(deadline).unwrap();
///     stream
/// });
/// let channel = Channel::from_stream(peer, &ConnectOptions::default())?;
/// let mut bridge = bridge.join().unwrap();
/// tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
///     let mut channel: AsyncChannel = channel.into_async()?;
///     assert_eq!(channel.recv().await?.to_vec(), b"welcome");
///     channel.publish_frame(&Frame::new(1002, b"thanks")).await?;
///     let nothing = tokio::time::timeout(Duration::from_millis(1), channel.recv()).await;
///     assert!(nothing.is_err(), "and the dropped wait has lost nothing");
///
///     bridge.queue_frame(&Frame::new(1001, b"more"));
///     bridge.flush().unwrap();
///     let mut frames: std::pin::Pin<&mut Frames<'_>> = pin!(channel.frames());
///     let frame = poll_fn(|cx| frames.as_mut().poll_next(cx)).await.expect("not ended")?;
///     assert_eq!(&frame.payload()[..], b"more");
///     Ok::<(), shm_transport::error::ChannelError>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cancelling
///
/// Every future may be dropped at any time, as `select!` does. Dropping [`AsyncChannel::recv`] loses no frame: a frame is
/// passed by the *next* call, so one that was not handed out stays in front. Dropping [`AsyncChannel::publish`] before
/// it is ready publishes nothing over shared memory; over the socket, a frame of which a part is sent already goes out
/// whole with the next call.
///
/// # Cost
///
/// As [`Channel`]: no system call while there is work. Before it sleeps, a future spins on its thread for the budget of
/// the channel's [`WaitStrategy`](crate::wakeup::WaitStrategy), once for each time it has run out of frames; where many
/// channels share a runtime, connect with `WaitStrategy::Park`. With `BusySpin` the task never sleeps, but lets others
/// run every 50 µs. An idle channel costs nothing: no timer, no poll. Over the socket, acknowledgements are not held back
/// for a frame to travel with, as that would need a timer.
///
/// Works on current-thread and multi-thread runtimes, with or without tokio's timers.
#[derive(Debug)]
pub struct AsyncChannel {
    /// `None` over the socket.
    doorbell: Option<AsyncFd<OwnedFd>>,
    socket: AsyncFd<OwnedFd>,
    /// Where is written to, if the stream is two pipes.
    output: Option<AsyncFd<OwnedFd>>,
    channel: Channel,
    /// What the peer was asked to ring for. Until it is found no further spin is made for it.
    armed: Option<WaitFor>,
}

impl Channel {
    /// Makes the waits of this channel futures.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left (it takes two), or the runtime cannot watch them.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without `enable_io`.
    pub fn into_async(self) -> Result<AsyncChannel, ChannelError> {
        let doorbell = match &self.data {
            Data::Shm(data) => Some(watch(
                data.ends().own_doorbell().as_fd(),
                Interest::READABLE,
            )?),
            Data::Socket(_) => None,
        };
        let (socket, output) = match self.core.stream.kind() {
            StreamKind::Pipes => (
                watch(self.core.stream.as_fd(), Interest::READABLE)?,
                Some(watch(self.core.stream.output_fd(), Interest::WRITABLE)?),
            ),
            StreamKind::Unix | StreamKind::Tcp | StreamKind::Tls => {
                let both = Interest::READABLE | Interest::WRITABLE;
                (watch(self.core.stream.as_fd(), both)?, None)
            }
        };
        Ok(AsyncChannel {
            doorbell,
            socket,
            output,
            channel: self,
            armed: None,
        })
    }
}

impl AsyncChannel {
    /// Connects to a bridge, on a blocking thread of the runtime: a handshake is a short exchange with a deadline.
    ///
    /// # Errors
    ///
    /// As [`Channel::connect`].
    pub async fn connect(address: &str, options: &ConnectOptions) -> Result<Self, HandshakeError> {
        let (address, options) = (address.to_owned(), options.clone());
        let failed = |step, source| HandshakeError::Io { step, source };
        let connected =
            tokio::task::spawn_blocking(move || Channel::connect(&address, &options)).await;
        let channel = connected.map_err(|error| failed("connect", error.into()))??;
        channel
            .into_async()
            .map_err(|error| failed("register", std::io::Error::other(error)))
    }

    /// The channel itself: its name, transport, statistics.
    #[must_use]
    pub fn get(&self) -> &Channel {
        &self.channel
    }

    /// The channel with waits that block.
    #[must_use]
    pub fn into_inner(self) -> Channel {
        self.channel
    }

    /// The next frame. It is valid until the next call, which acknowledges it.
    ///
    /// # Errors
    ///
    /// As [`Channel::recv`], without `TimedOut`.
    pub async fn recv(&mut self) -> Result<Frame<'_>, ChannelError> {
        poll_fn(|cx| self.poll_frame(cx)).await?;
        self.channel.frame()
    }

    /// The frames as a stream of copies, which ends with the channel. Asking for the next acknowledges the one before.
    pub fn frames(&mut self) -> Frames<'_> {
        Frames {
            channel: self,
            ended: false,
        }
    }

    /// Publishes a message and waits for room if need be.
    ///
    /// # Errors
    ///
    /// As [`Channel::publish`], without `Full`.
    pub async fn publish<M: Message>(&mut self, message: &M) -> Result<(), ChannelError> {
        self.publish_frame(&Frame::new(M::TOPIC_ID, message.as_bytes()))
            .await
    }

    /// Publishes bytes on a topic; otherwise as [`AsyncChannel::publish`].
    ///
    /// # Errors
    ///
    /// As [`Channel::publish_frame`], without `Full`.
    pub async fn publish_frame(&mut self, frame: &Frame<'_>) -> Result<(), ChannelError> {
        poll_fn(|cx| self.poll_publish(cx, frame)).await?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Publishes messages in their order and waits for room if need be; see [`Channel::publish_all`]. Dropping the future
    /// leaves what was published of them published.
    ///
    /// # Errors
    ///
    /// As [`Channel::publish_all`], without `Full`.
    pub async fn publish_all<'m, M: Message + 'm>(
        &mut self,
        messages: impl IntoIterator<Item = &'m M>,
    ) -> Result<usize, BurstError> {
        self.publish_frames(frames_of(messages)).await
    }

    /// Publishes frames of any topics; otherwise as [`AsyncChannel::publish_all`].
    ///
    /// # Errors
    ///
    /// As [`Channel::publish_frames`], without `Full`.
    pub async fn publish_frames<'f>(
        &mut self,
        frames: impl IntoIterator<Item = Frame<'f>>,
    ) -> Result<usize, BurstError> {
        let mut burst = Burst::new(frames);
        let outcome = poll_fn(|cx| self.poll_burst(cx, &mut burst)).await;
        burst.finish(outcome)
    }

    /// Acknowledges what was received, says goodbye and closes; see [`Channel::close`].
    ///
    /// # Errors
    ///
    /// If the goodbye could not be sent; the channel is closed all the same.
    pub async fn close(mut self) -> Result<(), ChannelError> {
        self.channel.say_goodbye();
        let flushed = poll_fn(|cx| self.poll_flush(cx)).await;
        if let StreamKind::Tcp | StreamKind::Tls = self.channel.core.stream.kind() {
            let mut channel = self.channel;
            // Dropped there, too: a stream over TLS waits until everything has gone out.
            let part = move || channel.core.stream.part(Instant::now() + PART_MAX);
            // A runtime that is shutting down does not wait.
            let _ = tokio::task::spawn_blocking(part).await;
        }
        flushed
    }

    /// Ready when a frame is in hand.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        // A stream of frames that never ends must not keep the runtime from its timers.
        let progress = ready!(coop::poll_proceed(cx));
        loop {
            match self.channel.recv(Some(Duration::ZERO)) {
                Err(ChannelError::TimedOut { .. }) => {}
                outcome => {
                    progress.made_progress();
                    let outcome = outcome.map(drop);
                    self.disarm();
                    return Poll::Ready(outcome);
                }
            }
            ready!(self.poll_sleep(cx, WaitFor::Frame))?;
        }
    }

    fn poll_publish(
        &mut self,
        cx: &mut Context<'_>,
        frame: &Frame<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        let progress = ready!(coop::poll_proceed(cx));
        let payload_len = frame.payload_len();
        loop {
            match self.channel.publish_frame(frame, Some(Duration::ZERO)) {
                Err(ChannelError::Full { .. }) => {}
                outcome => {
                    progress.made_progress();
                    self.disarm();
                    return Poll::Ready(outcome);
                }
            }
            ready!(self.poll_sleep(cx, WaitFor::Room { payload_len }))?;
        }
    }

    fn poll_burst<'f>(
        &mut self,
        cx: &mut Context<'_>,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
    ) -> Poll<Result<(), ChannelError>> {
        let progress = ready!(coop::poll_proceed(cx));
        if self.channel.is_socket() {
            loop {
                ready!(self.poll_flush(cx))?;
                if burst.is_done() || burst.failed.is_some() {
                    progress.made_progress();
                    return Poll::Ready(burst.failed.take().map_or(Ok(()), Err));
                }
                // What is in front of a bad frame goes out first.
                burst.failed = self.channel.queue_burst(burst).err();
            }
        }
        loop {
            match self.channel.publish_burst(burst, Some(Duration::ZERO)) {
                Err(ChannelError::Full { .. }) => {}
                outcome => {
                    progress.made_progress();
                    self.disarm();
                    return Poll::Ready(outcome);
                }
            }
            ready!(self.poll_sleep(cx, burst.wants()))?;
        }
    }

    /// Ready when the socket has taken everything.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        while self.channel.core.stream.unsent() > 0 {
            if self.channel.core.flush()? {
                break;
            }
            let output = self.output.as_ref().unwrap_or(&self.socket);
            ready!(output.poll_write_ready(cx))
                .map_err(io_error)?
                .clear_ready();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when it is time to look again; otherwise the task is woken then.
    fn poll_sleep(
        &mut self,
        cx: &mut Context<'_>,
        what: WaitFor,
    ) -> Poll<Result<(), ChannelError>> {
        let Self {
            doorbell,
            socket,
            output,
            channel,
            armed,
        } = self;
        let core = &mut channel.core;
        match (&mut channel.data, doorbell) {
            (Data::Shm(data), Some(doorbell)) => {
                let ends = data.ends_mut();
                if armed.is_none() && ends.spin(&mut core.spin, what, BUSY_SPIN)? {
                    return Poll::Ready(Ok(()));
                }
                if core.spin.is_endless() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *armed = Some(what);
                if ends.arm(what)? {
                    return Poll::Ready(Ok(()));
                }
                let mut told = false;
                if let Poll::Ready(guard) = doorbell.poll_read_ready(cx) {
                    let mut guard = guard.map_err(io_error)?;
                    if ends.drain_all()? {
                        guard.clear_ready();
                    }
                    told = true;
                }
                if let Poll::Ready(guard) = socket.poll_read_ready(cx) {
                    guard.map_err(io_error)?.clear_ready();
                    core.read_control()?;
                    told = true;
                }
                if told {
                    return Poll::Ready(Ok(()));
                }
                ends.count_park();
                Poll::Pending
            }
            (Data::Socket(data), _) => {
                let mut told = false;
                if matches!(what, WaitFor::Frame) {
                    data.settle(core)?;
                    if let Poll::Ready(guard) = socket.poll_read_ready(cx) {
                        guard.map_err(io_error)?.clear_ready();
                        told = true;
                    }
                }
                if !told
                    && (core.stream.unsent() > 0 || matches!(what, WaitFor::Room { .. }))
                    && let Poll::Ready(guard) =
                        output.as_ref().unwrap_or(socket).poll_write_ready(cx)
                {
                    guard.map_err(io_error)?.clear_ready();
                    told = true;
                }
                if told {
                    return Poll::Ready(Ok(()));
                }
                core.statistics.parks += 1;
                Poll::Pending
            }
            (Data::Shm(_), None) => unreachable!("rings come with a doorbell"),
        }
    }

    fn disarm(&mut self) {
        if let (Some(what), Data::Shm(data)) = (self.armed.take(), &mut self.channel.data) {
            data.ends_mut().disarm(what);
        }
    }
}

/// Watches a descriptor under a duplicate of its own.
#[allow(unsafe_code)]
fn watch(fd: BorrowedFd<'_>, interest: Interest) -> Result<AsyncFd<OwnedFd>, ChannelError> {
    let failed = |source| ChannelError::Io {
        step: "register",
        source,
    };
    let own = fd.try_clone_to_owned().map_err(failed)?;
    // SAFETY: an `OwnedFd` owns a valid descriptor, always answers with the same one, and is neither replaced nor closed
    // while the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(own, interest) }.map_err(|error| failed(error.into()))
}

fn io_error(source: std::io::Error) -> ChannelError {
    ChannelError::Io {
        step: "wait",
        source,
    }
}

/// A frame that owns its payload.
///
/// ```
/// use shm_transport::channel::OwnedFrame;
/// use shm_transport::ring::Frame;
///
/// let owned = OwnedFrame::from(&Frame::new(1001, b"abc"));
/// assert_eq!((owned.header().topic_id, &owned.payload()[..]), (1001, &b"abc"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    header: FrameHeader,
    payload: Bytes,
}

impl OwnedFrame {
    /// The frame header.
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        self.header
    }

    /// The payload. Clones share the bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload as a message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the topic or the length is another.
    pub fn read<M: Message>(&self) -> Result<M, DecodeError> {
        Frame::new(self.header.topic_id, &self.payload).read()
    }
}

impl From<&Frame<'_>> for OwnedFrame {
    fn from(frame: &Frame<'_>) -> Self {
        Self {
            header: frame.header(),
            payload: frame.to_bytes(),
        }
    }
}

/// The frames of an [`AsyncChannel`]; see [`AsyncChannel::frames`]. It ends without an error after a shutdown of the
/// bridge, and after the first error otherwise.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct Frames<'a> {
    channel: &'a mut AsyncChannel,
    ended: bool,
}

impl Stream for Frames<'_> {
    type Item = Result<OwnedFrame, ChannelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let outcome = ready!(self.channel.poll_frame(cx));
        let frame = outcome.and_then(|()| Ok(OwnedFrame::from(&self.channel.channel.frame()?)));
        self.ended = frame.is_err();
        match frame {
            Err(ChannelError::Closed { .. }) => Poll::Ready(None),
            frame => Poll::Ready(Some(frame)),
        }
    }
}
