//! What a running bridge shows of itself: a picture of one moment, a socket to ask for it, and metrics over HTTP.
//!
//! [`Status`] is the picture, the same for all readers. It is made when somebody asks and costs nothing before.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinSet;

use crate::config::Config;
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
    Delivered, Endpoint, Level, Link, Missed, Plane, Status, Topic, Totals, Uplink, Worker,
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

/// What does not change while the bridge runs.
#[derive(Debug)]
struct Facts {
    config: String,
    started: SystemTime,
    metrics: Option<String>,
}

/// The bound sockets of a bridge that is about to run. Needs a tokio runtime.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    control: Option<control::Socket>,
    metrics: Option<http::Socket>,
    /// Ends with this value.
    tasks: JoinSet<()>,
}

impl Windows {
    /// Binds what the configuration names. A control socket that nobody chose and that cannot be bound is done without, and
    /// said so. `by_default`: whether there is one where the configuration names none.
    pub(crate) fn open(config: &Config, by_default: bool) -> Result<Self, ListenError> {
        let chosen = &config.bridge.control;
        let control = match bind_control(config) {
            _ if !chosen.is_named && !by_default => None,
            Ok(socket) => Some(socket),
            Err(error) if chosen.is_named => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "no control socket: status and top cannot ask this bridge; name a path with control in [bridge]");
                None
            }
        };
        let metrics = config.metrics.as_ref().map(http::Socket::bind);
        Ok(Self {
            control,
            metrics: metrics.transpose()?,
            tasks: JoinSet::new(),
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
                metrics: address,
            }),
        };
        if let Some(socket) = self.control.take() {
            self.tasks.spawn(socket.serve(source.clone()));
        }
        if let Some(socket) = self.metrics.take() {
            self.tasks.spawn(socket.serve(source));
        }
    }
}

fn bind_control(config: &Config) -> Result<control::Socket, ListenError> {
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
