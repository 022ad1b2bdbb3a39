//! Links that nothing travels on: what they cost the bridge.

use std::path::Path;
use std::time::{Duration, Instant};

use mycelium_bench_harness::PeerProcess;
use mycelium_benches::probe::{CONTRACTS, Probe};
use serde::Serialize;
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};

use crate::proc::{cpu_ns, memory};
use crate::site::{Helper, PATIENCE, Setup, many_files, ready_until_told, text};

/// Links of one process.
const LINKS_PER_PROCESS: u32 = 250;
/// Bytes of each of a link's two rings: so small that the links are what is measured, and not their memory.
const RING: &str = "ring_capacity = \"4KiB\"";
/// After the last link is there, the bridge settles.
const SETTLE: Duration = Duration::from_millis(300);

/// What links cost that nothing travels on.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Idle {
    pub(crate) links: u32,
    /// Processor time of the bridge with the links, in percent of a core.
    pub(crate) cpu_percent: f64,
    /// The same without any link.
    pub(crate) cpu_percent_without: f64,
    /// Memory of the bridge's own per link, in bytes.
    pub(crate) own_bytes_per_link: f64,
    /// Shared memory per link that the bridge has mapped, in bytes; two rings of 4 KiB and their segment's pages.
    pub(crate) shared_bytes_per_link: f64,
}

pub(crate) fn measure(python: &Path, links: u32, millis: u64) -> Result<Idle, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let setup = Setup {
        python,
        transport: Transport::Shm,
        spin_us: None,
        delivery: None,
        workers: &[],
        more: RING,
    };
    let config = setup.write(folder.path())?;
    let mut bridge = Helper::start(&["bridge", &config.to_string_lossy()])?;
    bridge.wait_until_ready()?;
    let pid = bridge.pid();
    let time = Duration::from_millis(millis);
    std::thread::sleep(SETTLE);
    let cpu_percent_without = cpu_percent(pid, time / 2)?;
    let before = memory(pid)?;
    let address = format!("unix:{}", folder.path().join("s").display());
    let mut clients = vec![];
    let mut left = links;
    while left > 0 {
        let some = left.min(LINKS_PER_PROCESS);
        let client = Helper::start(&["idle-clients", &address, &some.to_string()])?;
        clients.push(client);
        left -= some;
    }
    for client in &mut clients {
        client.wait_until_ready()?;
    }
    std::thread::sleep(SETTLE);
    let cpu_percent = cpu_percent(pid, time)?;
    let after = memory(pid)?;
    for client in clients {
        client.finish()?;
    }
    bridge.finish()?;
    let per_link = |before: u64, after: u64| (after as f64 - before as f64) / f64::from(links);
    Ok(Idle {
        links,
        cpu_percent,
        cpu_percent_without,
        own_bytes_per_link: per_link(before.own, after.own),
        shared_bytes_per_link: per_link(before.shared, after.shared),
    })
}

/// Processor time of a process over time, in percent of a core.
fn cpu_percent(pid: u32, time: Duration) -> Result<f64, String> {
    let (start, used) = (Instant::now(), cpu_ns(pid)?);
    std::thread::sleep(time);
    let used = cpu_ns(pid)?.saturating_sub(used);
    Ok(100.0 * used as f64 / start.elapsed().as_nanos() as f64)
}

/// A process that holds links, each of which has subscribed to a topic that nobody publishes.
pub(crate) fn be_clients(address: &str, links: u32) -> Result<(), String> {
    PeerProcess::begin().map_err(text)?;
    many_files()?;
    let options = ConnectOptions {
        timeout: PATIENCE,
        ..ConnectOptions::for_contracts(&CONTRACTS).over(TransportRequest::Shm)
    };
    let mut channels = Vec::new();
    for _ in 0..links {
        let mut channel = Channel::connect(address, &options).map_err(text)?;
        channel.subscribe::<Probe>().map_err(text)?;
        channels.push(channel);
    }
    ready_until_told()?;
    channels
        .into_iter()
        .try_for_each(|channel| channel.close().map_err(text))
}
