//! The bridge as a client of a Mycelium bus: a link of this process whose other side is a connection in the older stream
//! format. Made again with back-off and jitter; rings, subscriptions and what waits in them outlast a connection.

mod session;
mod set;
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
use super::worker_link::changed_topics;
use crate::config::UplinkConfig;
use crate::router::{DeliveryTerms, Subscription};
use crate::routes::LinkId;
use crate::worker::Jitter;
use session::{End, Import, Mover, Stream};
pub(super) use set::Uplinks;
pub(super) use status::Board;
pub use status::{UplinkState, UplinkStatus};

/// Longest time for a connection to come about, and for the bus to take the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that ends earlier, without a byte from the bus, may have failed for its handshake.
const HANDSHAKE_SUSPECT: Duration = Duration::from_secs(5);
/// How often an ending uplink looks whether peers are left that may publish.
const PEERS_PAUSE: Duration = Duration::from_millis(10);

/// What the control plane wants of an uplink.
#[derive(Debug, Clone)]
struct Orders {
    config: UplinkConfig,
    end: Option<Ending>,
}

/// Why and by when an uplink is to end.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// The bridge is stopping.
    Bridge { by: Instant },
    /// The configuration is without it, or has it with other rings.
    Alone { by: Instant },
}

/// What an uplink starts with: its link is known to the data plane already, so that frames are kept from the first moment.
struct Prepared {
    link: LinkId,
    memory: LinkMemory,
    config: UplinkConfig,
    board: Arc<Board>,
}

/// Makes the link of an uplink, and hands it to the data plane.
fn prepare(shared: &Shared, config: &UplinkConfig) -> Result<Prepared, LinkSetupError> {
    let memory = LinkMemory::local(config.ring_capacity)?;
    let link = shared.next_link();
    shared.take_name(link, &config.name, None)?;
    let (topics, terms) = exports(shared, config);
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

/// The topics that go to the bus, and how.
fn exports(shared: &Shared, config: &UplinkConfig) -> (Vec<u16>, DeliveryTerms) {
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
    (topics, terms)
}

/// Runs an uplink until the bridge has stopped, or the configuration is without it; nothing of it is left then.
async fn run(shared: Arc<Shared>, prepared: Prepared, mut orders: watch::Receiver<Orders>) {
    let (link, name) = (prepared.link, prepared.config.name.clone());
    let board = Arc::clone(&prepared.board);
    let expired = expired(orders.clone());
    tokio::select! {
        () = serve(&shared, prepared, orders.clone()) => {}
        () = expired => {}
    }
    let alone = |orders: &Orders| matches!(orders.end, Some(Ending::Alone { .. }));
    if orders.wait_for(alone).await.is_err() {
        return;
    }
    let counters = shared.plane.drain(link).await;
    {
        let mut state = shared.lock();
        state.links.remove(&link);
        state.uplinks.retain(|other| !Arc::ptr_eq(other, &board));
    }
    // A data plane that has stopped has dropped the link as well.
    if let Ok(counters) = counters
        && counters.waiting > 0
    {
        tracing::warn!(uplink = %name, undelivered_frames = counters.waiting, "frames that waited for the bus in front of the ring are discarded");
    }
    tracing::info!(uplink = %name, "uplink is done");
}

/// Comes to its end when an uplink that ends alone has had its time.
async fn expired(mut orders: watch::Receiver<Orders>) {
    let alone = |orders: &Orders| matches!(orders.end, Some(Ending::Alone { .. }));
    let by = orders.wait_for(alone).await.ok().and_then(|it| it.end);
    match by {
        Some(Ending::Alone { by }) => tokio::time::sleep_until(by.into()).await,
        _ => std::future::pending().await,
    }
}

async fn serve(shared: &Arc<Shared>, prepared: Prepared, orders: watch::Receiver<Orders>) {
    let name = prepared.config.name.clone();
    let imports = imports(shared, &prepared.config);
    let mover = prepared.memory.peer_side(local_fencing()).and_then(|ends| {
        let (max, board) = (prepared.config.max_payload, Arc::clone(&prepared.board));
        Ok(Mover::new(ends, imports, max, board)?)
    });
    match mover {
        Ok(mover) => {
            let mut uplink = Uplink {
                shared: Arc::clone(shared),
                link: prepared.link,
                config: prepared.config,
                board: prepared.board,
                mover,
                is_connected: false,
                said: None,
            };
            let drained = Box::pin(drained(Arc::clone(shared), prepared.link, orders.clone()));
            uplink.run(drained, orders).await;
        }
        Err(error) => tracing::error!(uplink = %name, %error, "uplink cannot be served"),
    }
}

/// Comes to its end when nothing more comes for the bus: the bridge is stopping and nobody is left who may publish, and what was
/// published is on its way; or the uplink ends alone, and what waited for it is in its ring.
async fn drained(shared: Arc<Shared>, link: LinkId, mut orders: watch::Receiver<Orders>) {
    let ending = orders.wait_for(|it| it.end.is_some()).await;
    let end = match ending.ok().and_then(|it| it.end) {
        Some(Ending::Bridge { by }) => by,
        Some(Ending::Alone { by }) => {
            let left = by.saturating_duration_since(Instant::now());
            let _ = tokio::time::timeout(left, shared.plane.silence(link)).await;
            return;
        }
        // The layer is gone, and this task will be in a moment.
        None => return std::future::pending().await,
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
    async fn run(
        &mut self,
        mut drained: impl Future<Output = ()> + Unpin,
        mut orders: watch::Receiver<Orders>,
    ) {
        let mut jitter = Jitter(u64::from(std::process::id()) << 32 | u64::from(self.link.0));
        let (mut is_last, mut failures) = (false, 0_u32);
        while !is_last {
            let began = Instant::now();
            let attempt = tokio::select! {
                attempt = connect(&self.config) => attempt,
                () = &mut drained => break,
                Ok(()) = orders.changed() => {
                    self.take(&orders.borrow_and_update().config);
                    continue;
                }
            };
            match attempt {
                Err(error) => self.not_connected(&error, failures),
                Ok(mut stream) => {
                    self.connected();
                    let mut talk = self.mover.begin();
                    let end = loop {
                        let moving =
                            self.mover
                                .serve(&mut stream, &mut talk, &mut drained, &mut is_last);
                        tokio::select! {
                            end = moving => break end,
                            Ok(()) = orders.changed() => {
                                // What moves stands at a place where it can be taken up again.
                                if self.take(&orders.borrow_and_update().config) {
                                    break End::Reconfigured;
                                }
                            }
                        }
                    };
                    let lasted = began.elapsed();
                    let spoke = matches!(end, End::HangUp { received, .. } if received > 0);
                    if spoke || lasted > self.config.backoff_max {
                        failures = 0;
                        self.said = None;
                    }
                    self.disconnected(&end, lasted, failures);
                    match end {
                        End::Finished | End::Corrupt(_) => break,
                        End::Reconfigured => {
                            failures = 0;
                            continue;
                        }
                        _ => {}
                    }
                }
            }
            let delay = self.config.backoff.saturating_mul(1 << failures.min(20));
            let delay = jitter.shorten(delay.min(self.config.backoff_max));
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = &mut drained, if !is_last => break,
                Ok(()) = orders.changed() => {
                    self.take(&orders.borrow_and_update().config);
                    failures = 0;
                }
            }
        }
        self.board.set(UplinkState::Ended, None);
    }

    /// Goes on with another configuration, which has the same rings; says whether it takes another connection.
    fn take(&mut self, config: &UplinkConfig) -> bool {
        if self.config == *config {
            return false;
        }
        let old = std::mem::replace(&mut self.config, config.clone());
        let (_, before) = exports(&self.shared, &old);
        let (topics, terms) = exports(&self.shared, config);
        let changes = changed_topics(&before, &terms);
        let withdrawn = before.subscriptions.iter().map(|it| it.topic_id);
        let withdrawn = withdrawn.filter(|it| !topics.contains(it)).collect();
        self.mover.reconfigure(
            imports(&self.shared, config),
            config.max_payload,
            &topics,
            withdrawn,
        );
        self.board.set_address(config.address.to_string());
        if self
            .shared
            .plane
            .set_terms(self.link, terms, changes)
            .is_err()
        {
            // The data plane has stopped, and this task will in a moment.
            return false;
        }
        let needs_connection = old.address != config.address || old.digest != config.digest;
        tracing::info!(uplink = %config.name, address = %config.address, reconnects = needs_connection, import = config.import.join(","), export = config.export.join(","), "uplink has another configuration");
        self.said = None;
        needs_connection
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
        match end {
            End::Finished => {
                tracing::info!(uplink = name, "uplink is closed: everything is sent");
                return;
            }
            End::Reconfigured => return self.note(end.to_string()),
            _ => {}
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
        self.release();
        self.board.set(UplinkState::Ended, None);
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
