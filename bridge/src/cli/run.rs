//! `mycelium-bridge run`: log, listening socket, control loop.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use mycelium_bridge::config::{Config, WorkerConfig};
use mycelium_bridge::event_loop::{
    ControlHandle, ControlOptions, ControlPlane, ExitedWorker, Links, StartError, StartedWorker,
};
use mycelium_bridge::listen::{NotAllowed, PeerCredentials};
use mycelium_bridge::logging;
use mycelium_bridge::shutdown::Summary;
use mycelium_bridge::worker::Outcome;

use super::{EXIT_CONFIG, EXIT_FAILURE, RunArguments, config_error, failure};

pub(super) fn run(arguments: &RunArguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return config_error(&error),
    };
    let filter = arguments.log.as_deref().unwrap_or(&config.bridge.log);
    if let Err(error) = logging::init(filter, arguments.log_format) {
        return failure(
            error,
            "write a level (error | warn | info | debug | trace) or target=level",
            EXIT_CONFIG,
        );
    }
    match control(&config) {
        Ok(summary) => {
            tracing::info!("{summary}");
            ExitCode::from(summary.exit_code())
        }
        Err(StartError::Listen(error)) => failure(&error, error.hint(), EXIT_FAILURE),
        Err(error) => failure(error, "", EXIT_FAILURE),
    }
}

/// Runs the control loop on this thread, the main one: it ends with the process, as supervision needs it.
fn control(config: &Config) -> Result<Summary, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| StartError::System {
        action: "set up the control runtime",
        source,
    })?;
    let options = ControlOptions {
        handle_signals: true,
        end_with_workers: true,
    };
    runtime.block_on(async {
        let plane = ControlPlane::new(config, HeldConnections::default(), options)?;
        Ok(plane.run().await)
    })
}

/// Supervision alone: a worker's connection stays open until the worker ends or the bridge stops.
#[derive(Debug, Default)]
struct HeldConnections {
    workers: HashMap<usize, UnixStream>,
}

impl Links for HeldConnections {
    fn begin(&mut self, _control: ControlHandle) {}

    fn worker_started(&mut self, started: StartedWorker<'_>) {
        self.workers.insert(started.worker, started.socket);
    }

    fn worker_exited(&mut self, exited: ExitedWorker<'_>) {
        self.workers.remove(&exited.worker);
    }

    fn worker_ended(&mut self, _worker: usize, _config: &WorkerConfig, _outcome: Outcome) {}

    fn client_connected(&mut self, stream: UnixStream, _credentials: PeerCredentials) {
        drop(stream);
    }

    fn client_refused(&mut self, stream: UnixStream, _error: &NotAllowed) {
        drop(stream);
    }

    fn ask_to_end(&mut self, _deadline: Duration, _reason: &str) {
        self.workers.clear();
    }
}
