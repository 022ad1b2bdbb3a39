//! What a running bridge shows of itself: a picture of one moment, a socket to ask for it, and metrics over HTTP.
//!
//! [`Status`] is the picture, the same for all readers. It is made when somebody asks and costs nothing before.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::task::JoinHandle;

use crate::config::{Config, MetricsConfig};
use crate::event_loop::ControlHandle;
use crate::link::Registry;
use crate::listen::{ListenError, Listener};

pub mod client;
mod collect;
mod control;
mod decode;
mod http;
mod metrics;
mod model;
mod tap;

pub use model::{
    Bucket, Control, Delivered, Endpoint, Level, Link, Missed, Plane, Residence, Status, Topic,
    Totals, Uplink, Worker,
};

/// Connections to one of the two sockets that are served at once; further ones are closed at once.
const CONNECTIONS_MAX: usize = 16;

/// Where the answers come from.
#[derive(Debug, Clone)]
struct Source {
    control: ControlHandle,
    registry: Registry,
    facts: Arc<Facts>,
}

/// What the bridge is, apart from its links and workers.
#[derive(Debug)]
struct Facts {
    config: String,
    started: SystemTime,
    /// Where the metrics are at the moment.
    metrics: Mutex<Option<String>>,
    /// When the first request was made that the data plane has not answered.
    silent_since: Mutex<Option<Instant>>,
}

impl Facts {
    fn metrics(&self) -> Option<String> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.clone()
    }

    fn set_metrics(&self, address: Option<String>) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// A task that ends with this value.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    /// Ends it and waits for that: its sockets are closed then.
    async fn end(mut self) {
        self.0.abort();
        // Cancelled or over; a panic in it has been reported by the runtime.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The bound sockets of a bridge that is about to run. Needs a tokio runtime.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    control: Option<control::Socket>,
    metrics: Option<http::Socket>,
    /// Whether there is a control socket where the configuration names none.
    by_default: bool,
    /// Since it is served.
    source: Option<Source>,
    control_task: Option<Task>,
    metrics_task: Option<Task>,
}

impl Windows {
    /// Binds what the configuration names. A control socket that nobody chose and that cannot be bound is done without, and
    /// said so. `by_default`: whether there is one where the configuration names none.
    pub(crate) fn open(config: &Config, by_default: bool) -> Result<Self, ListenError> {
        let control = bind_control(config, by_default)?;
        let metrics = config.metrics.as_ref().map(http::Socket::bind);
        Ok(Self {
            control,
            metrics: metrics.transpose()?,
            by_default,
            ..Self::default()
        })
    }

    /// Begins to answer.
    pub(crate) fn serve(&mut self, config: &Config, control: ControlHandle, registry: Registry) {
        let address = self.metrics.as_ref().map(http::Socket::address);
        let source = Source {
            control,
            registry,
            facts: Arc::new(Facts {
                config: config.path.display().to_string(),
                started: SystemTime::now(),
                metrics: Mutex::new(address),
                silent_since: Mutex::default(),
            }),
        };
        self.source = Some(source.clone());
        let control = self.control.take();
        let served = control.map(|socket| tokio::spawn(socket.serve(source.clone())));
        self.control_task = served.map(Task);
        let metrics = self.metrics.take();
        let served = metrics.map(|socket| tokio::spawn(socket.serve(source)));
        self.metrics_task = served.map(Task);
    }

    /// Has the metrics somewhere else, or nowhere. Bound once the old socket is closed, which may have had the same port.
    pub(crate) fn move_metrics(&mut self, to: Option<&MetricsConfig>) {
        let (old, to) = (self.metrics_task.take(), to.cloned());
        let Some(source) = self.source.clone() else {
            return;
        };
        source.facts.set_metrics(None);
        self.metrics_task = to.map(|config| {
            Task(tokio::spawn(async move {
                if let Some(old) = old {
                    old.end().await;
                }
                match http::Socket::bind(&config) {
                    Ok(socket) => {
                        source.facts.set_metrics(Some(socket.address()));
                        socket.serve(source).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, hint = error.hint(), "no metrics; reload again when the cause is gone");
                    }
                }
            }))
        });
    }

    /// Whether metrics are asked for and could not be bound when they moved.
    pub(crate) fn lacks_metrics(&self) -> bool {
        let task = self.metrics_task.as_ref();
        task.is_some_and(|task| task.0.is_finished())
    }

    /// Has the control socket somewhere else. Who is connected is cut off.
    pub(crate) fn move_control(&mut self, config: &Config) {
        let (old, by_default) = (self.control_task.take(), self.by_default);
        let Some(source) = self.source.clone() else {
            return;
        };
        let config = config.clone();
        self.control_task = Some(Task(tokio::spawn(async move {
            if let Some(old) = old {
                old.end().await;
            }
            match bind_control(&config, by_default) {
                Ok(Some(socket)) => socket.serve(source).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, hint = error.hint(), "no control socket; reload with another path for control in [bridge]");
                }
            }
        })));
    }
}

/// Binds the control socket, if there is to be one. One that nobody chose and that cannot be bound is done without, and said
/// so.
fn bind_control(config: &Config, by_default: bool) -> Result<Option<control::Socket>, ListenError> {
    let chosen = &config.bridge.control;
    if !chosen.is_named && !by_default {
        return Ok(None);
    }
    match bind_chosen(config) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if chosen.is_named => Err(error),
        Err(error) => {
            tracing::warn!(%error, "no control socket: status and top cannot ask this bridge; name a path with control in [bridge]");
            Ok(None)
        }
    }
}

fn bind_chosen(config: &Config) -> Result<control::Socket, ListenError> {
    let chosen = &config.bridge.control;
    let directory = chosen.made_in.as_deref();
    let made = directory.map(control::OwnDirectory::make).transpose()?;
    let listener = Listener::bind(&chosen.path)?;
    control::Socket::new(listener, made)
}

/// A connection failed: whoever asked has gone, which concerns nobody else.
fn note_failed(what: &'static str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "{what} was not answered");
    }
}
