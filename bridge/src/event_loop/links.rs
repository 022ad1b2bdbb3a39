//! The link layer, as the control plane sees it.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::Duration;

use super::ControlHandle;
use crate::config::{Config, WorkerConfig};
use crate::link::{LinkSetupError, Registry};
use crate::listen::{Client, NotAllowed};
use crate::reload::Plan;
use crate::worker::Outcome;
use crate::worker::stall::Progress;

/// A worker process that the link layer is to serve.
#[derive(Debug)]
pub struct StartedWorker<'c> {
    /// Index of the worker, for reports through the [`ControlHandle`].
    pub worker: usize,
    /// Its configuration.
    pub config: &'c WorkerConfig,
    /// Its process id.
    pub pid: u32,
    /// The bridge's end of its connection, in blocking mode.
    pub socket: UnixStream,
    /// Counts its processes from 1; above 1 this one takes over from a predecessor.
    pub incarnation: u64,
}

/// What became of a worker process.
#[derive(Debug)]
pub struct ExitedWorker<'c> {
    /// Index of the worker.
    pub worker: usize,
    /// Its configuration.
    pub config: &'c WorkerConfig,
    /// Which of its processes.
    pub incarnation: u64,
    /// How it ended; `None` where the system would not say.
    pub status: Option<ExitStatus>,
    /// Whether its link had come up.
    pub attached: bool,
    /// Time until a successor starts; `None` if there will be none, which [`Links::worker_ended`] says too.
    pub restart_after: Option<Duration>,
}

/// The link layer, as the control plane sees it. Methods run on the control thread, inside its tokio runtime, and must
/// not block: longer work goes to a task or to the data-plane thread.
pub trait Links {
    /// Called once before everything else with the handle for reports.
    fn begin(&mut self, control: ControlHandle);
    /// What is known of the links, for the control socket and the metrics; a layer without has neither.
    fn registry(&self) -> Option<Registry> {
        None
    }
    /// A worker process runs and will speak first on its socket.
    fn worker_started(&mut self, started: StartedWorker<'_>);
    /// A worker process and all it started are gone. What it committed is still to be delivered.
    fn worker_exited(&mut self, exited: ExitedWorker<'_>);
    /// No successor will come: what was kept for one can be released.
    fn worker_ended(&mut self, worker: usize, config: &WorkerConfig, outcome: Outcome);
    /// A worker that is new in the configuration. Frames are kept for it from here on.
    ///
    /// # Errors
    /// Why it cannot be served.
    fn worker_added(&mut self, worker: usize, config: &WorkerConfig) -> Result<(), LinkSetupError>;
    /// A worker will start with another configuration. What was kept for it stays if its rings can.
    ///
    /// # Errors
    /// Why it cannot be served.
    fn worker_changed(
        &mut self,
        worker: usize,
        old: &WorkerConfig,
        new: &WorkerConfig,
    ) -> Result<(), LinkSetupError>;
    /// Carries out what a new configuration changes apart from workers and endpoints. Returns the names of new uplinks that
    /// cannot be served, with the reasons. A layer without uplinks and policies has nothing to do.
    fn reconfigure(&mut self, _plan: &Plan, _config: &Config) -> Vec<(String, LinkSetupError)> {
        Vec::new()
    }
    /// The worker's process is to end although the bridge goes on: send it a Shutdown frame, behind what is published.
    fn ask_worker_to_end(&mut self, worker: usize, deadline: Duration, reason: &str);
    /// What the rings of a worker show; `None` if it has none.
    fn progress(&self, worker: usize) -> Option<Progress>;
    /// Report which workers wait for room at which with [`ControlHandle::workers_wait`]. A layer that knows reports them all; one
    /// that does not reports nothing.
    fn ask_for_waits(&self) {}
    /// Report a round of the data plane with [`ControlHandle::data_plane_round`], once it has made one from here on.
    fn ask_for_round(&self);
    /// A client has connected and will speak first: from the network, or a process whose user is allowed. Its token is
    /// not checked yet.
    fn client_connected(&mut self, client: Client);
    /// A client whose user is not allowed has connected: tell it why and close.
    fn client_refused(&mut self, client: Client, error: &NotAllowed);
    /// The bridge is stopping: accept no more handshakes, send every peer a Shutdown frame.
    fn ask_to_end(&mut self, deadline: Duration, reason: &str);
    /// Frames that were discarded because their worker ended for good, once the last links have been given up.
    fn undelivered(&mut self) -> impl Future<Output = u64> {
        std::future::ready(0)
    }
}
