//! The bridge as a client of a Mycelium bus: a link of this process whose other side is a connection in the older stream
//! format. Made again with back-off and jitter; rings, subscriptions and what waits in them outlast a connection.

mod session;
mod status;
mod wire;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use shm_transport::channel::Transport;
use shm_transport::socket::Address;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::handshake::hex;
use super::memory::{LinkMemory, LinkSetupError};
use super::registry::Shared;
use super::serve::{count_clients, local_fencing};
use crate::config::UplinkConfig;
use crate::router::{DeliveryTerms, Subscription};
use crate::routes::LinkId;
use crate::worker::Jitter;
use session::{End, Import, Mover, Stream};
pub(super) use status::Board;
pub use status::{UplinkState, UplinkStatus};

/// Longest time for a connection to come about, and for the bus to take the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that ends earlier, without a byte from the bus, may have failed for its handshake.
const HANDSHAKE_SUSPECT: Duration = Duration::from_secs(5);
/// How often an ending uplink looks whether peers are left that may publish.
const PEERS_PAUSE: Duration = Duration::from_millis(10);

/// What an uplink starts with: its link is known to the data plane already, so that frames are kept from the first moment.
pub(super) struct Prepared {
    link: LinkId,
    memory: LinkMemory,
    config: UplinkConfig,
    board: Arc<Board>,
}

/// Makes the link of an uplink, and hands it to the data plane.
pub(super) fn prepare(shared: &Shared, config: &UplinkConfig) -> Result<Prepared, LinkSetupError> {
    let memory = LinkMemory::local(config.ring_capacity)?;
    let link = shared.next_link();
    shared.take_name(link, &config.name, None)?;
    let topic = |name: &String| Some(shared.contracts.by_name(name)?.topic_id);
    let topics: Vec<u16> = config.export.iter().filter_map(topic).collect();
    let subscription = |topic_id: &u16| Subscription {
        topic_id: *topic_id,
        delivery: Some(config.delivery),
        group: None,
    };
    let terms = DeliveryTerms {
        name: config.name.clone(),
        stage_capacity: config.stage_capacity,
        subscriptions: topics.iter().map(subscription).collect(),
    };
    let ends = memory.bridge_side(local_fencing())?;
    shared.plane.add(link, ends, terms, topics)?;
    let board = Arc::new(Board::new(config));
    shared.lock().uplinks.push(Arc::clone(&board));
    Ok(Prepared {
        link,
        memory,
        config: config.clone(),
        board,
    })
}

/// Runs an uplink until the bridge has stopped. `ending` gives the time that is left once the bridge is stopping.
pub(super) async fn run(
    shared: Arc<Shared>,
    prepared: Prepared,
    ending: watch::Receiver<Option<Instant>>,
) {
    let name = prepared.config.name.clone();
    let imports = imports(&shared, &prepared.config);
    let mover = prepared.memory.peer_side(local_fencing()).and_then(|ends| {
        let (max, board) = (prepared.config.max_payload, Arc::clone(&prepared.board));
        Ok(Mover::new(ends, imports, max, board)?)
    });
    match mover {
        Ok(mover) => {
            let mut uplink = Uplink {
                shared: Arc::clone(&shared),
                link: prepared.link,
                config: prepared.config,
                board: prepared.board,
                mover,
                is_connected: false,
                said: None,
            };
            let drained = Box::pin(drained(shared, ending));
            uplink.run(drained).await;
        }
        Err(error) => tracing::error!(uplink = %name, %error, "uplink cannot be served"),
    }
}

/// Comes to its end when the bridge is stopping and nobody is left who may publish, and what was published is on its way.
async fn drained(shared: Arc<Shared>, mut ending: watch::Receiver<Option<Instant>>) {
    let end = match ending.wait_for(Option::is_some).await.map(|end| *end) {
        Ok(Some(end)) => end,
        // The layer is gone, and this task will be in a moment.
        _ => return std::future::pending().await,
    };
    while shared.has_peers() && Instant::now() < end {
        tokio::time::sleep(PEERS_PAUSE).await;
    }
    let left = end.saturating_duration_since(Instant::now());
    // Somebody who reads nothing may hold it up; what goes to the bus is on its way by then.
    let _ = tokio::time::timeout(left / 2, shared.plane.settle()).await;
}

fn imports(shared: &Shared, config: &UplinkConfig) -> HashMap<u16, Import> {
    let import = |name: &String| {
        let message = shared.contracts.by_name(name)?;
        let import = Import {
            name: name.clone(),
            payload_len: message.wire_len.unwrap_or(0)..=message.max_size,
            encoding: crate::bridge::encoding(message),
            warned: false,
        };
        Some((message.topic_id, import))
    };
    config.import.iter().filter_map(import).collect()
}

struct Uplink {
    shared: Arc<Shared>,
    link: LinkId,
    config: UplinkConfig,
    board: Arc<Board>,
    mover: Mover,
    /// Whether the bridge waits for it when it stops.
    is_connected: bool,
    /// What went wrong last and was said to operators; the same again is for developers.
    said: Option<Trouble>,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    CannotConnect,
    Lost,
}

impl Uplink {
    async fn run(&mut self, mut drained: impl Future<Output = ()> + Unpin) {
        let mut jitter = Jitter(u64::from(std::process::id()) << 32 | u64::from(self.link.0));
        let (mut is_last, mut failures) = (false, 0_u32);
        while !is_last {
            let began = Instant::now();
            let attempt = tokio::select! {
                attempt = connect(&self.config) => attempt,
                () = &mut drained => break,
            };
            match attempt {
                Err(error) => self.not_connected(&error, failures),
                Ok(mut stream) => {
                    self.connected();
                    let end = self
                        .mover
                        .serve(&mut stream, &mut drained, &mut is_last)
                        .await;
                    let lasted = began.elapsed();
                    let spoke = matches!(end, End::HangUp { received, .. } if received > 0);
                    if spoke || lasted > self.config.backoff_max {
                        failures = 0;
                        self.said = None;
                    }
                    self.disconnected(&end, lasted, failures);
                    if let End::Finished | End::Corrupt(_) = end {
                        break;
                    }
                }
            }
            let delay = self.config.backoff.saturating_mul(1 << failures.min(20));
            let delay = jitter.shorten(delay.min(self.config.backoff_max));
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = &mut drained, if !is_last => break,
            }
        }
        self.board.set(UplinkState::Ended, None);
    }

    fn connected(&mut self) {
        let connections = self.board.connections.fetch_add(1, Relaxed) + 1;
        self.is_connected = true;
        count_clients(&self.shared, 1);
        self.board.set(UplinkState::Connected, None);
        self.shared.update(self.link, |entry| {
            entry.status.transport = Some(Transport::Socket);
            entry.status.epoch = connections;
        });
        let UplinkConfig {
            name,
            address,
            import,
            export,
            ..
        } = &self.config;
        tracing::info!(uplink = name, %address, connections, import = import.join(","), export = export.join(","), "uplink is connected");
    }

    fn not_connected(&mut self, error: &io::Error, failures: u32) {
        let UplinkConfig { name, address, .. } = &self.config;
        let text = format!("cannot connect: address={address}: {error}");
        if self.said != Some(Trouble::CannotConnect) {
            tracing::warn!(uplink = name, %address, %error, "uplink cannot connect; it goes on trying");
        } else {
            tracing::debug!(uplink = name, %address, %error, failures, "uplink cannot connect");
        }
        self.said = Some(Trouble::CannotConnect);
        self.note(text);
    }

    fn disconnected(&mut self, end: &End, lasted: Duration, failures: u32) {
        self.release();
        let (name, address) = (&self.config.name, &self.config.address);
        if let End::Finished = end {
            tracing::info!(uplink = name, "uplink is closed: everything is sent");
            return;
        }
        let mut text = end.to_string();
        if let End::HangUp { received: 0, .. } = end
            && lasted < HANDSHAKE_SUSPECT
        {
            let (file, digest) = (self.config.contracts.display(), hex(&self.config.digest));
            text = format!(
                "closed right after the handshake: contracts differ? our file={file} sha256={digest}; start the bus and \
                 this uplink with the same bytes ({text})"
            );
        }
        if self.said != Some(Trouble::Lost) {
            tracing::warn!(uplink = name, %address, error = text, "uplink lost its connection; it is made again");
        } else {
            tracing::debug!(uplink = name, %address, error = text, failures, "uplink lost its connection again");
        }
        self.said = Some(Trouble::Lost);
        self.note(text);
    }

    fn note(&self, error: String) {
        self.board
            .set(UplinkState::Disconnected, Some(error.clone()));
        self.shared.update(self.link, |entry| {
            entry.status.transport = None;
            entry.status.last_error = Some(error);
        });
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.is_connected) {
            count_clients(&self.shared, -1);
        }
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if !self.mover.is_empty() {
            let (frames, ring_bytes) = self.mover.left();
            tracing::warn!(uplink = %self.config.name, frames, ring_bytes, "uplink ends with frames that the bus did not take; they are discarded");
        }
    }
}

/// Connects and says the handshake.
async fn connect(config: &UplinkConfig) -> io::Result<Stream> {
    let connected = async {
        let mut stream = match &config.address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            other => {
                let text = format!("not an address of a bus: {other}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        stream.write_all(&wire::handshake(&config.digest)).await?;
        Ok(stream)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
