//! The picture of a bridge as data. Its JSON form is what scripts read: keys are added, never renamed.

use serde::{Deserialize, Serialize};

/// A running bridge at one moment. Times are milliseconds since 1970 in UTC; counters count from the start of the bridge, or
/// of the link they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration file.
    pub config: String,
    /// When it began to run.
    pub started_ms: u64,
    /// When this picture was made.
    pub now_ms: u64,
    /// Where the metrics are, as `host:port`.
    pub metrics: Option<String>,
    /// In the order of the configuration.
    pub workers: Vec<Worker>,
    /// By number.
    pub links: Vec<Link>,
    /// Connections to Mycelium buses, in the order of the configuration.
    #[serde(default)]
    pub uplinks: Vec<Uplink>,
    /// Where clients can connect; none while the bridge stops.
    pub endpoints: Vec<Endpoint>,
    /// The data plane; `None` if it did not answer, and then all counters of links are 0.
    pub plane: Option<Plane>,
    /// For how long the data plane has not answered, in milliseconds, from the first request that it left without an answer;
    /// `None` while it answers.
    #[serde(default)]
    pub plane_silent_ms: Option<u64>,
    /// The control plane.
    #[serde(default)]
    pub control: Control,
    /// Sums, and what belongs to no link.
    pub totals: Totals,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name, which its link has, too.
    pub name: String,
    /// Waiting, starting, up, backoff, stopping, stopped, or gave up.
    pub phase: String,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Which of its processes this is or was, from 1; 0 before the first.
    pub incarnation: u64,
    /// Its starts but for the first.
    pub restarts: u64,
    /// How often it was killed because it hung.
    pub hangs: u64,
    /// Since when it is up.
    pub up_since_ms: Option<u64>,
    /// How its last process ended, or why none could be started.
    pub last_end: Option<String>,
    /// The last line that its last process printed to its standard error, unless it ended well.
    pub last_words: Option<String>,
}

/// Frames that moved, and the bytes of their payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How full a ring is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Bytes that are not acknowledged, padding included.
    pub used: u64,
    /// Bytes that it takes.
    pub capacity: u64,
}

/// How long frames lie in a ring, from their being published into it until their acknowledgement, told from samples since the
/// link began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residence {
    /// How many samples there are.
    pub samples: u64,
    /// Sum of all of them, in microseconds.
    pub sum_us: u64,
    /// Bound that half of the samples do not exceed, in microseconds; `None` without samples, and above all bounds.
    pub p50_us: Option<u64>,
    /// The same for 99 of 100.
    pub p99_us: Option<u64>,
    /// How long the frame that is followed now has been lying there, in microseconds; `None` if none is followed.
    pub waiting_us: Option<u64>,
    /// Samples by bound; those without any are left out.
    pub buckets: Vec<Bucket>,
}

/// Samples between one bound and the bound before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The upper bound, in microseconds; `None` for samples above all bounds.
    pub up_to_us: Option<u64>,
    /// How many.
    pub samples: u64,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// Process at the other end.
    pub pid: Option<u32>,
    /// `shm` or `socket`; `None` before the first handshake, and for actors in the bridge's process.
    pub transport: Option<String>,
    /// Why not over shared memory although that was allowed.
    pub fallback: Option<String>,
    /// Options of its rings that are not to be had, with the reasons.
    pub degraded: Vec<String>,
    /// How often it was handed to a peer.
    pub epoch: u64,
    /// Why the last peer left, if it did not say goodbye.
    pub last_error: Option<String>,
    /// What the peer published.
    pub published: Delivered,
    /// What the peer got.
    pub delivered: Delivered,
    /// Published frames that were dropped: unknown topic, wrong size or layout.
    pub dropped: u64,
    /// Published frames that nobody wanted.
    pub unrouted: u64,
    /// Frames that the peer wanted and did not get.
    pub missed: u64,
    /// Frames that wait in front of its ring.
    pub waiting: u64,
    /// Times that its ring was full and a publisher had to wait.
    pub times_full: u64,
    /// Times that the bridge woke the peer.
    pub wakeups: u64,
    /// Sends and receives that moved application frames over its socket.
    pub socket_calls: u64,
    /// From the peer to the bridge.
    pub ring_in: Level,
    /// From the bridge to the peer.
    pub ring_out: Level,
    /// How long frames lie in the ring to the peer until it acknowledges them: sampled.
    #[serde(default)]
    pub residence: Residence,
    /// Topics that moved or were missed.
    pub topics: Vec<Topic>,
    /// What differs between the contracts of the bridge and of the peer.
    pub contract_differences: Vec<String>,
}

/// One topic on one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its number.
    pub topic_id: u16,
    /// Name of its message.
    pub message: String,
    /// What the peer published.
    pub published: Delivered,
    /// What the peer got.
    pub delivered: Delivered,
    /// What the peer wanted and did not get.
    pub missed: Missed,
}

/// Frames that did not reach who wanted them, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// There was no room for them.
    pub drop_newest: u64,
    /// They made room for newer ones.
    pub drop_oldest: u64,
    /// A newer one of the same key took their place.
    pub conflated: u64,
    /// They were moved aside because they kept killing their worker.
    pub quarantined: u64,
}

/// A connection to a Mycelium bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name, which its link has, too.
    pub name: String,
    /// Where the bus listens.
    pub address: String,
    /// Disconnected, connected, or ended.
    pub state: String,
    /// Connections that were made.
    pub connections: u64,
    /// Frames from the bus that were published.
    pub imported: u64,
    /// Frames that were handed to a connection whole.
    pub exported: u64,
    /// Frames dropped because of their size, either way.
    pub dropped: u64,
    /// Why the last attempt or connection ended.
    pub last_error: Option<String>,
}

/// Where clients can connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// With the port that is bound.
    pub address: String,
    /// Whether clients need a token.
    pub token: bool,
    /// Clients in the middle of their handshake.
    pub handshakes: u64,
    /// How many of them there may be.
    pub handshakes_max: u64,
}

/// The data plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plane {
    /// Times that it slept.
    pub parks: u64,
    /// Sleeps that a doorbell ended.
    pub wakeups: u64,
    /// Rounds that moved something.
    #[serde(default)]
    pub rounds: u64,
    /// Frames that these took from publishers and out of stages.
    #[serde(default)]
    pub frames: u64,
    /// Time that it did not sleep, in microseconds; looking for work in vain is part of it.
    #[serde(default)]
    pub busy_us: u64,
    /// Time until it answered for this picture, in microseconds.
    #[serde(default)]
    pub answer_us: u64,
}

/// The control plane: one thread with a tokio runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Tasks that have not ended.
    pub tasks: u64,
    /// Tasks that other threads have made ready and that wait for their turn.
    pub queued: u64,
    /// Time that the thread was not waiting for something to happen, in microseconds.
    pub busy_us: u64,
    /// How late a task that was ready got its turn, measured for this picture, in microseconds.
    pub late_us: u64,
    /// Events that the control loop has handled.
    pub events: u64,
    /// Longest time that it took for one of them, in microseconds.
    pub longest_event_us: u64,
    /// Threads of the process, those for blocking calls included.
    pub threads: u64,
}

/// Sums over the links that there are, and what belongs to no link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// What all peers published.
    pub published: Delivered,
    /// What all peers got.
    pub delivered: Delivered,
    /// Published frames that were dropped.
    pub dropped: u64,
    /// Frames that peers wanted and did not get.
    pub missed: u64,
    /// Clients refused because too many others were in the middle of their handshake.
    pub refused_busy: u64,
    /// Clients refused because of their user or token.
    pub refused_not_allowed: u64,
    /// Reloads of the configuration that were applied.
    pub reloads_applied: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Lines of the log that standard error has not taken.
    #[serde(default)]
    pub log_lines_lost: u64,
}
