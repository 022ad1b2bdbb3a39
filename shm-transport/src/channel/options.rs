//! What a peer asks for when it connects, and what a channel counts.

use std::time::Duration;

use mycelium_messages::message::Contracts;

use super::contracts::PeerContracts;
use crate::segment::MemoryOptions;
use crate::wakeup::WaitStrategy;

/// How frames travel on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Two rings in shared memory.
    Shm,
    /// Frames on the socket.
    Socket,
}

impl Transport {
    /// The name that configuration, reports and metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Socket => "socket",
        }
    }
}

/// The transport that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportRequest {
    /// Shared memory, or the socket with the reason told.
    #[default]
    Auto,
    /// Shared memory or nothing.
    Shm,
    /// The socket.
    Socket,
}

/// What a peer tells the bridge when it connects.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::time::{Duration, Instant};
/// use mycelium_messages::control::FallbackCode;
/// use shm_transport::channel::handshake::{Offer, OfferedTransport, offer, receive_hello};
/// use shm_transport::channel::{
///     Channel, ConnectOptions, ContractDifference, Fallback, PeerContracts, Rejected, Statistics, Transport,
///     TransportRequest,
/// };
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
/// let options = ConnectOptions { contracts: PeerContracts::default(), ..ConnectOptions::default() }
///     .named("example")
///     .over(TransportRequest::Auto);
/// let mut channel = Channel::from_stream(peer, &options)?;
/// let _bridge = bridge.join().unwrap();
/// assert_eq!((channel.name(), channel.transport()), ("example", Transport::Socket));
/// assert!(channel.fallback().unwrap().to_string().contains("no shared memory"));
/// let differences: &[ContractDifference] = channel.contract_differences();
/// assert!(differences.is_empty());
///
/// assert_eq!(channel.recv(Some(Duration::from_secs(5)))?.to_vec(), b"welcome");
/// channel.publish_frame(&Frame::new(1002, b"thanks"), None)?;
/// let rejected: Vec<Rejected> = channel.take_rejected()?;
/// assert_eq!(rejected, []);
/// let counted: Statistics = channel.statistics();
/// assert_eq!((counted.frames_in, counted.frames_out), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Name of the link, at most 64 bytes; empty lets the bridge choose. Names are unique in a bridge.
    pub name: String,
    /// Credential where the endpoint asks for one.
    pub token: String,
    /// The transport to ask for.
    pub transport: TransportRequest,
    /// What the program was generated from; without any, layouts are only compared topic by topic.
    pub contracts: PeerContracts,
    /// What the pages of the rings get in this process. What is not to be had is given up and logged.
    pub memory: MemoryOptions,
    /// How to wait; `None` takes what the bridge advises.
    pub wait: Option<WaitStrategy>,
    /// What a `tls:` address needs.
    #[cfg(feature = "tls")]
    pub tls: crate::socket::TlsOptions,
    /// Longest time for the handshake and for the answer to a subscription.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    /// No contracts, no name, any transport, 5 s.
    fn default() -> Self {
        Self {
            name: String::new(),
            token: String::new(),
            transport: TransportRequest::Auto,
            contracts: PeerContracts::default(),
            memory: MemoryOptions::default(),
            wait: None,
            #[cfg(feature = "tls")]
            tls: crate::socket::TlsOptions::default(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl ConnectOptions {
    /// The defaults, for a program that was generated from these contracts: the `CONTRACTS` of a generated module.
    #[must_use]
    pub fn for_contracts(contracts: &'static Contracts) -> Self {
        Self::default().and_contracts(contracts)
    }

    /// Adds the contracts of a further generated module.
    #[must_use]
    pub fn and_contracts(mut self, contracts: &'static Contracts) -> Self {
        self.contracts.add(contracts);
        self
    }

    /// Asks for a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Asks for a transport.
    #[must_use]
    pub fn over(mut self, transport: TransportRequest) -> Self {
        self.transport = transport;
        self
    }
}

/// The bridge drops what this side publishes on a topic; see [`Channel::take_rejected`](super::Channel::take_rejected).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The topic.
    pub topic_id: u16,
    /// Why: a code of the control frame `TopicReply`.
    pub code: u16,
    /// Its name, for example `WRONG_SIZE`.
    pub name: &'static str,
    /// The same for people, with the numbers on both sides.
    pub reason: String,
}

/// What a channel counted since it was connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received.
    pub frames_in: u64,
    /// Frames published.
    pub frames_out: u64,
    /// Times that this side slept.
    pub parks: u64,
    /// Times that this side woke the bridge.
    pub wakeups_sent: u64,
    /// Sends on the stream that took bytes, those of the handshake included.
    pub sends: u64,
    /// Times that the bridge said that it drops what this side publishes: once per topic. Follows when this side next waits,
    /// or looks for frames or for rejections.
    pub dropped: u64,
    /// Received frames that were passed over, because the layouts of both sides differ.
    pub skipped: u64,
    /// Frames of subscribed topics that the bridge dropped on their way here, by the policy of the subscription, as far as
    /// it has told.
    pub missed: u64,
}
