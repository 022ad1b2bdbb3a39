//! Link layers that do nothing with the workers that they are given: one notes what it is told, one only keeps connections.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mycelium_bridge::config::{Config, WorkerConfig};
use mycelium_bridge::event_loop::{
    ControlHandle, ControlOptions, ControlPlane, ExitedWorker, Links, StartedWorker,
};
use mycelium_bridge::link::LinkSetupError;
use mycelium_bridge::listen::{Client, NotAllowed, Peer};
use mycelium_bridge::shutdown::Summary;
use mycelium_bridge::worker::Outcome;
use mycelium_bridge::worker::stall::Progress;

use super::{Site, WATCHDOG, runtime};

/// What the link layer was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Started {
        pid: i32,
        incarnation: u64,
    },
    Exited {
        status: String,
        restart_after: Option<Duration>,
    },
    Ended(Outcome),
    Connected(u32),
    Refused(String),
    AskedToEnd(String),
}

/// What a test does about it, on the control thread.
pub(crate) type Reaction = Box<dyn FnMut(&Told, &ControlHandle)>;

pub(crate) struct Recorder {
    told: Arc<Mutex<Vec<Told>>>,
    sockets: HashMap<usize, UnixStream>,
    control: Option<ControlHandle>,
    reaction: Reaction,
}

impl Recorder {
    fn note(&mut self, told: Told) {
        if let Some(control) = &self.control {
            (self.reaction)(&told, control);
        }
        self.told.lock().unwrap().push(told);
    }
}

impl Links for Recorder {
    fn begin(&mut self, control: ControlHandle) {
        self.control = Some(control);
    }

    fn worker_started(&mut self, started: StartedWorker<'_>) {
        self.sockets.insert(started.worker, started.socket);
        self.note(Told::Started {
            pid: started.pid.cast_signed(),
            incarnation: started.incarnation,
        });
    }

    fn worker_exited(&mut self, exited: ExitedWorker<'_>) {
        let status = exited.status.expect("a status").to_string();
        self.note(Told::Exited {
            status,
            restart_after: exited.restart_after,
        });
    }

    fn worker_ended(&mut self, _worker: usize, _config: &WorkerConfig, outcome: Outcome) {
        self.note(Told::Ended(outcome));
    }

    fn worker_added(&mut self, _: usize, _: &WorkerConfig) -> Result<(), LinkSetupError> {
        Ok(())
    }

    fn worker_changed(
        &mut self,
        _: usize,
        _: &WorkerConfig,
        _: &WorkerConfig,
    ) -> Result<(), LinkSetupError> {
        Ok(())
    }

    fn ask_worker_to_end(&mut self, worker: usize, _deadline: Duration, _reason: &str) {
        self.sockets.remove(&worker);
    }

    fn ask_for_round(&self) {}

    fn progress(&self, _worker: usize) -> Option<Progress> {
        None
    }

    fn client_connected(&mut self, client: Client) {
        let Peer::Local(credentials) = client.peer else {
            panic!("a UNIX socket leads to local peers: {}", client.peer);
        };
        self.note(Told::Connected(credentials.uid));
    }

    fn client_refused(&mut self, _client: Client, error: &NotAllowed) {
        self.note(Told::Refused(error.to_string()));
    }

    fn ask_to_end(&mut self, _deadline: Duration, reason: &str) {
        self.sockets.clear();
        self.note(Told::AskedToEnd(reason.to_owned()));
    }
}

/// A link layer that keeps the connections of workers and does nothing with them.
#[derive(Default)]
pub(crate) struct HeldSockets(Vec<UnixStream>);

impl Links for HeldSockets {
    fn begin(&mut self, _control: ControlHandle) {}

    fn worker_started(&mut self, started: StartedWorker<'_>) {
        self.0.push(started.socket);
    }

    fn worker_exited(&mut self, _exited: ExitedWorker<'_>) {}

    fn worker_ended(&mut self, _worker: usize, _config: &WorkerConfig, _outcome: Outcome) {}

    fn worker_added(&mut self, _: usize, _: &WorkerConfig) -> Result<(), LinkSetupError> {
        Ok(())
    }

    fn worker_changed(
        &mut self,
        _: usize,
        _: &WorkerConfig,
        _: &WorkerConfig,
    ) -> Result<(), LinkSetupError> {
        Ok(())
    }

    fn ask_worker_to_end(&mut self, worker: usize, _deadline: Duration, _reason: &str) {
        drop(self.0.remove(worker));
    }

    fn ask_for_round(&self) {}

    fn progress(&self, _worker: usize) -> Option<Progress> {
        None
    }

    fn client_connected(&mut self, _client: Client) {}

    fn client_refused(&mut self, _client: Client, _error: &NotAllowed) {}

    fn ask_to_end(&mut self, _deadline: Duration, _reason: &str) {}
}

/// Runs the control loop to its end and returns what the link layer was told.
pub(crate) fn run(
    site: &Site,
    reaction: impl FnMut(&Told, &ControlHandle) + 'static,
) -> (Vec<Told>, Summary) {
    let config = Config::load(site.config()).unwrap_or_else(|error| panic!("{error}"));
    run_config(config, reaction)
}

pub(crate) fn run_config(
    config: Config,
    reaction: impl FnMut(&Told, &ControlHandle) + 'static,
) -> (Vec<Told>, Summary) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder {
        told: Arc::clone(&told),
        sockets: HashMap::new(),
        control: None,
        reaction: Box::new(reaction),
    };
    let runtime = runtime();
    let options = ControlOptions {
        end_with_workers: true,
        ..ControlOptions::default()
    };
    let summary = runtime.block_on(async {
        let plane = ControlPlane::new(&config, recorder, options).unwrap();
        tokio::time::timeout(WATCHDOG, plane.run())
            .await
            .expect("the control loop ends")
    });
    let told = told.lock().unwrap().clone();
    (told, summary)
}
