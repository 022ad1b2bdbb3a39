//! A duplex link, put together: handshake, two rings or a socket, doorbells, control frames.
//!
//! [`Channel`] is the peer's end: a Rust actor in another process than the bridge. It is the same type over shared
//! memory and over the socket.
//!
//! ```no_run
//! use std::time::Duration;
//! use mycelium_messages::bandit::{Quote, Signal};
//! use shm_transport::channel::{Channel, ConnectOptions};
//!
//! let options = ConnectOptions::for_contracts(&mycelium_messages::bandit::CONTRACTS).named("risk");
//! let mut channel = Channel::connect("unix:/run/mycelium/bridge.sock", &options)?;
//! channel.subscribe::<Signal>()?;
//! channel.publish(&Quote { bid: 1.1212, ask: 1.1217, ..Quote::default() }, Some(Duration::from_secs(1)))?;
//! let signal: Signal = channel.recv(None)?.read()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "tokio")]
mod aio;
mod burst;
mod contracts;
mod core;
mod dynamic;
mod ends;
mod fallback;
pub mod handshake;
mod options;
mod shm;
mod socket;
mod topics;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mycelium_messages::Message;
use mycelium_messages::control::Goodbye;

#[cfg(feature = "tokio")]
pub use aio::{AsyncChannel, Frames, OwnedFrame};
pub use contracts::{ContractDifference, PeerContracts, ReportError};
use contracts::{refused_topics, tell_differences};
pub use ends::{EndsError, LinkEnds, LinkReservation, WaitError, WaitFor, Waited};
pub use fallback::Fallback;
pub use options::{ConnectOptions, Rejected, Statistics, Transport, TransportRequest};

use self::core::{ControlFrame, Core, End, text};
use crate::error::{ChannelError, ContractMismatch, HandshakeError};
use crate::layout::CORE_TOPIC_MAX;
use crate::ring::{Fencing, Frame};
use crate::socket::{Address, FrameStream, Stream};
use crate::wakeup::{SpinBudget, WaitStrategy};
use handshake::JoinedData;
use shm::ShmData;
use socket::SocketData;
use topics::Asked;

/// How long a channel over TCP waits for the bridge to close, once it has said goodbye.
const PART_MAX: Duration = Duration::from_secs(1);

/// The instant that lies so far ahead, or as far as anybody waits.
fn deadline_in(timeout: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + timeout.min(FOR_EVER)
}

/// The peer's end of a link. Not for sharing between threads; send it to the thread that uses it.
#[derive(Debug)]
pub struct Channel {
    name: String,
    epoch: u64,
    fallback: Option<Fallback>,
    settings: serde_json::Value,
    timeout: Duration,
    contracts: PeerContracts,
    differences: Vec<ContractDifference>,
    /// Topics that are refused because of the differences; usually none.
    refused: Vec<u16>,
    /// Reused for the payloads of dynamic messages.
    scratch: Vec<u8>,
    core: Core,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Shm(ShmData),
    Socket(SocketData),
}

impl Channel {
    /// Connects to a bridge: `unix:/path` or a plain path, `tcp:host:port`, `tls:host:port` (feature `tls`), `fd:N` for an inherited socket, `stdio:` for
    /// standard input and output; see [`Address`]. Shared memory needs a UNIX socket; over the others the link runs over
    /// the stream.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] if the address is not understood, there is no bridge, it refuses, or shared memory was required
    /// and is not to be had.
    pub fn connect(address: &str, options: &ConnectOptions) -> Result<Self, HandshakeError> {
        let failed = |source| HandshakeError::Io {
            step: "connect",
            source,
        };
        let invalid = |error| failed(io::Error::new(io::ErrorKind::InvalidInput, error));
        let address: Address = address.parse().map_err(invalid)?;
        let deadline = deadline_in(options.timeout);
        #[cfg(feature = "tls")]
        let stream = address.connect_with(&options.tls, deadline);
        #[cfg(not(feature = "tls"))]
        let stream = address.connect(deadline);
        Self::from_stream(stream.map_err(failed)?, options)
    }

    /// Does the handshake on a connected stream: a `UnixStream`, a `TcpStream`, or a [`Stream`].
    ///
    /// # Errors
    ///
    /// As [`Channel::connect`].
    pub fn from_stream(
        stream: impl Into<Stream>,
        options: &ConnectOptions,
    ) -> Result<Self, HandshakeError> {
        let deadline = deadline_in(options.timeout);
        let mut stream = FrameStream::new(stream).map_err(|source| HandshakeError::Io {
            step: "connect",
            source,
        })?;
        let joined = handshake::join(&mut stream, options, deadline)?;
        let wait = options.wait.unwrap_or(match joined.welcome.spin_us {
            0 => WaitStrategy::Park,
            spin_us => WaitStrategy::Hybrid { spin_us },
        });
        let mut fallback = None;
        let data = match joined.data {
            JoinedData::Shm(ends) => Data::Shm(ShmData::new(ends)),
            JoinedData::Socket(reason) => {
                tracing::warn!(%reason, "link runs over the socket");
                fallback = Some(reason);
                stream.expect_data(joined.welcome.max_payload as usize);
                Data::Socket(SocketData::new(
                    joined.welcome.max_payload,
                    joined.welcome.ack_window,
                ))
            }
        };
        let name = text(&joined.welcome.name);
        tell_differences(&name, &joined.differences);
        let spin = SpinBudget::new(wait);
        let core = Core {
            stream,
            spin,
            replies: VecDeque::new(),
            unanswered: Vec::new(),
            rejected: Vec::new(),
            end: None,
            hung_up: false,
            statistics: Statistics::default(),
        };
        Ok(Self {
            name,
            epoch: joined.welcome.epoch,
            fallback,
            settings: joined.settings,
            timeout: options.timeout,
            contracts: options.contracts.clone(),
            refused: refused_topics(&joined.differences),
            differences: joined.differences,
            scratch: Vec::new(),
            core,
            data,
        })
    }

    /// Name of the link.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often the link has been handed to a peer, counted from 1: above 1 this is a successor.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How frames travel.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.data {
            Data::Shm(_) => Transport::Shm,
            Data::Socket(_) => Transport::Socket,
        }
    }

    /// Why the link runs over the socket; `None` over shared memory.
    #[must_use]
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// The worker's own settings from the bridge's configuration, a JSON object.
    #[must_use]
    pub fn settings(&self) -> &serde_json::Value {
        &self.settings
    }

    /// What differs between the contracts of the bridge and those of this program. The topics of incompatible messages
    /// are refused: subscribing and publishing give [`ChannelError::ContractMismatch`].
    #[must_use]
    pub fn contract_differences(&self) -> &[ContractDifference] {
        &self.differences
    }

    /// How commits are ordered against parked flags; `None` over the socket.
    #[must_use]
    pub fn fencing(&self) -> Option<Fencing> {
        match &self.data {
            Data::Shm(data) => Some(data.ends().fencing()),
            Data::Socket(_) => None,
        }
    }

    /// What this side counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.core.statistics;
        statistics.sends = self.core.stream.traffic().sends;
        if let Data::Shm(data) = &self.data {
            statistics.parks += data.ends().parks();
            statistics.wakeups_sent += data.ends().wakeups_sent();
        }
        statistics
    }

    /// Publishes a message, waiting for room if need be: at most `timeout`, `None` for ever.
    ///
    /// Over shared memory this makes no system call unless the bridge sleeps or the ring is full.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Full`] if there was no room in time, [`ChannelError::TooLarge`],
    /// [`ChannelError::ContractMismatch`] if the bridge's layout of the message differs, or that the link has ended.
    pub fn publish<M: Message>(
        &mut self,
        message: &M,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.publish_frame(&Frame::new(M::TOPIC_ID, message.as_bytes()), timeout)
    }

    /// Publishes bytes on a topic; otherwise as [`Channel::publish`].
    ///
    /// # Errors
    ///
    /// As [`Channel::publish`], and [`ChannelError::ReservedTopic`] for topics of the core range.
    pub fn publish_frame(
        &mut self,
        frame: &Frame<'_>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.admit(frame.topic_id())?;
        match &mut self.data {
            Data::Shm(data) => data.publish(&mut self.core, frame, timeout)?,
            Data::Socket(data) => data.publish(&mut self.core, frame, timeout)?,
        }
        self.core.statistics.frames_out += 1;
        Ok(())
    }

    /// What the bridge has said since the last call about published frames that it drops: once per topic, for the first
    /// of them. A program that receives besides sees it in the log and in [`Statistics::dropped`] as well; for one that
    /// only publishes this is the way to look. Never waits; at most one system call where nothing has come.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Protocol`] if the bridge sent something that it must not, and if the socket fails. Not that the link
    /// has ended.
    pub fn take_rejected(&mut self) -> Result<Vec<Rejected>, ChannelError> {
        match &self.data {
            Data::Shm(_) => self.core.read_control()?,
            Data::Socket(_) => self.core.look_for_replies()?,
        }
        Ok(std::mem::take(&mut self.core.rejected))
    }

    fn admit(&self, topic_id: u16) -> Result<(), ChannelError> {
        if topic_id <= CORE_TOPIC_MAX {
            return Err(ChannelError::ReservedTopic { topic_id });
        }
        if self.is_refused(topic_id) {
            return Err(self.mismatch(topic_id, String::new()));
        }
        Ok(())
    }

    /// The next frame, if one is there. It is valid until the next call, which acknowledges it.
    ///
    /// # Errors
    ///
    /// As [`Channel::recv`], without `TimedOut`.
    pub fn try_recv(&mut self) -> Result<Option<Frame<'_>>, ChannelError> {
        match self.recv(Some(Duration::ZERO)) {
            Ok(frame) => Ok(Some(frame)),
            Err(ChannelError::TimedOut { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the next frame: at most `timeout`, `None` for ever. It is valid until the next call, which
    /// acknowledges it.
    ///
    /// # Errors
    ///
    /// [`ChannelError::TimedOut`]; [`ChannelError::Closed`] after a shutdown and [`ChannelError::PeerLost`] after a
    /// crash of the bridge, both only when everything that came before has been read; [`ChannelError::Corrupt`].
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Frame<'_>, ChannelError> {
        let start = Instant::now();
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
        loop {
            let ready = match &mut self.data {
                Data::Shm(data) => data.wait_for_frame(&mut self.core, deadline)?,
                Data::Socket(data) => data.wait_for_frame(&mut self.core, deadline)?,
            };
            if !ready {
                if let Some(end) = &self.core.end {
                    return Err(end.to_error());
                }
                return Err(ChannelError::TimedOut {
                    waited_ms: start.elapsed().as_millis(),
                });
            }
            // What was kept for a predecessor with the bridge's contracts may have another layout than this side's.
            if self.refused.is_empty() || !self.skips_frame()? {
                break;
            }
        }
        self.core.statistics.frames_in += 1;
        self.frame()
    }

    fn frame(&mut self) -> Result<Frame<'_>, ChannelError> {
        match &mut self.data {
            Data::Shm(data) => data.frame(),
            Data::Socket(data) => data.frame(&self.core),
        }
    }

    /// Counts the frame in hand as skipped if its topic is refused.
    fn skips_frame(&mut self) -> Result<bool, ChannelError> {
        let topic = self.frame()?.topic_id();
        let refused = self.is_refused(topic);
        if refused {
            if self.core.statistics.skipped == 0 {
                let link = &self.name;
                tracing::warn!(%link, topic, "skipping frames of a message whose layouts differ; further ones are only counted");
            }
            self.core.statistics.skipped += 1;
        }
        Ok(refused)
    }

    fn is_refused(&self, topic_id: u16) -> bool {
        !self.refused.is_empty() && self.refused.contains(&topic_id)
    }

    fn mismatch(&self, topic_id: u16, reason: String) -> ChannelError {
        let concerned = self.differences.iter().filter(|it| it.refuses(topic_id));
        let differences: Vec<_> = concerned.cloned().collect();
        ChannelError::ContractMismatch(Box::new(ContractMismatch {
            topic_id,
            expected: differences.iter().find_map(|it| it.bridge_digest),
            actual: self.contracts.layout_digest(topic_id),
            differences,
            reason,
        }))
    }

    /// Acknowledges what was received, says goodbye and closes. Dropping the channel instead looks like a crash to the
    /// bridge, which then keeps the last frame for the successor.
    ///
    /// # Errors
    ///
    /// If the goodbye could not be sent; the channel is closed all the same.
    pub fn close(mut self) -> Result<(), ChannelError> {
        self.say_goodbye();
        let flushed = self.core.flush_until(deadline_in(self.timeout));
        self.core.stream.part(Instant::now() + PART_MAX);
        flushed
    }

    fn say_goodbye(&mut self) {
        match &mut self.data {
            Data::Shm(data) => data.acknowledge_all(),
            Data::Socket(data) => data.acknowledge_all(&mut self.core),
        }
        self.core.stream.queue_message(&Goodbye::default());
    }
}
