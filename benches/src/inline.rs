//! The router alone: a publisher and a subscriber in one process, and the data plane polled in between by the thread that
//! asks.

use std::path::Path;
use std::time::{Duration, Instant};

use mycelium_bench_harness::Failure;
use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_bridge::data_plane::DataPlane;
use mycelium_bridge::local::LocalChannel;

use crate::probe::Probe;
use crate::runner::root;

/// Bytes of each ring: those that the pairs of `measure` have.
const RING: &str = "256KiB";

/// Frames that are published before the router is polled: two rings of these lie in the cache next to a core.
pub const BURST: u64 = 256;

/// What a bridge needs to be told to know the messages of the measurements.
pub fn contracts_line() -> String {
    let contracts = root().join("benches/contracts/probe.yaml");
    format!("[bridge]\ncontracts = {contracts:?}\n")
}

/// Message `sequence`, whose every field follows from its number.
pub fn probe(sequence: u64) -> Probe {
    Probe {
        sequence,
        kind: 0,
        timestamp_ns: sequence.wrapping_add(7),
        key: sequence % 16,
        bid: sequence as f64,
        ask: sequence as f64 * 0.5,
        high: 1.0,
        low: -1.0,
    }
}

/// A bridge whose data plane is driven here, with one publisher and one subscriber.
pub struct InlineRouter {
    // The channels go before the bridge.
    publisher: LocalChannel,
    subscriber: LocalChannel,
    plane: DataPlane,
    _bridge: Bridge,
    sequence: u64,
}

impl InlineRouter {
    /// Starts it; its configuration is written into this folder.
    ///
    /// # Errors
    ///
    /// If the bridge does not start.
    pub fn start(folder: &Path) -> Result<Self, Failure> {
        let file = folder.join("inline.toml");
        let text = contracts_line() + &format!("ring_capacity = \"{RING}\"\n");
        std::fs::write(&file, text).map_err(Failure::carrier("configuration"))?;
        let config = Config::load(&file).map_err(Failure::carrier("configuration"))?;
        let (bridge, mut plane) =
            Bridge::start_inline(&config).map_err(Failure::carrier("start"))?;
        let publisher = bridge
            .attach("publisher")
            .map_err(Failure::carrier("attach"))?;
        let subscriber = bridge
            .attach("subscriber")
            .map_err(Failure::carrier("attach"))?;
        subscriber
            .subscribe::<Probe>()
            .map_err(Failure::carrier("subscribe"))?;
        plane.poll();
        Ok(Self {
            publisher,
            subscriber,
            plane,
            _bridge: bridge,
            sequence: 0,
        })
    }

    /// Publishes [`BURST`] frames of 64 bytes, has the router move them, and reads and checks them. Returns the time
    /// that the router took, and what all three took together.
    ///
    /// # Errors
    ///
    /// If a frame is lost or changed.
    pub fn burst(&mut self) -> Result<(Duration, Duration), Failure> {
        let first = self.sequence;
        self.sequence += BURST;
        let start = Instant::now();
        for sequence in first..self.sequence {
            let sent = self.publisher.try_publish(&probe(sequence));
            sent.map_err(Failure::carrier("publish"))?;
        }
        let published = Instant::now();
        let mut moved = 0;
        while moved < BURST {
            match self.plane.poll() as u64 {
                0 => return Err(Failure::Peer(format!("moved={moved} of {BURST} frames"))),
                more => moved += more,
            }
        }
        let routed = Instant::now();
        for sequence in first..self.sequence {
            let frame = self.subscriber.try_recv();
            let frame = frame.map_err(Failure::carrier("read"))?;
            let got: Option<Probe> = frame.and_then(|frame| frame.read().ok());
            if got != Some(probe(sequence)) {
                return Err(Failure::Content {
                    seq: sequence,
                    payload_len: got.map_or(0, |_| size_of::<Probe>()),
                    expected_len: size_of::<Probe>(),
                });
            }
        }
        Ok((routed - published, start.elapsed()))
    }
}
