//! What is known of an uplink, for other threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::UplinkConfig;

/// Where an uplink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UplinkState {
    /// There is no connection; it is tried again and again.
    #[default]
    Disconnected,
    /// There is a connection. Whether the bus has accepted the handshake shows only in that it stays.
    Connected,
    /// The bridge is stopping, or the configuration is without it, and what there was is sent.
    Ended,
}

/// What is known of one uplink. Numbers count since the start of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkStatus {
    /// Its name, and that of its link.
    pub name: String,
    /// Where the bus listens.
    pub address: String,
    /// Where it stands.
    pub state: UplinkState,
    /// Connections that were made.
    pub connections: u64,
    /// Why the last attempt or connection ended.
    pub last_error: Option<String>,
    /// Frames from the bus that were published.
    pub imported: u64,
    /// Frames that were handed to a connection whole. The format has no acknowledgement: whether the bus read them is
    /// not known.
    pub exported: u64,
    /// Frames from the bus of types that are not imported.
    pub ignored: u64,
    /// Frames from the bus whose payload has not the size of the contract; dropped.
    pub wrong_size: u64,
    /// Frames for the bus over `max_payload`; dropped.
    pub too_large: u64,
    /// Frames that waited for the bus when a reload took their topic from `export`; dropped.
    pub withdrawn: u64,
}

/// The live form of [`UplinkStatus`].
#[derive(Debug, Default)]
pub(in crate::link) struct Board {
    name: String,
    text: Mutex<Text>,
    pub(super) connections: AtomicU64,
    pub(super) imported: AtomicU64,
    pub(super) exported: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) wrong_size: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) withdrawn: AtomicU64,
}

#[derive(Debug, Default)]
struct Text {
    address: String,
    state: UplinkState,
    error: Option<String>,
}

impl Board {
    pub(in crate::link) fn new(config: &UplinkConfig) -> Self {
        Self {
            name: config.name.clone(),
            text: Mutex::new(Text {
                address: config.address.to_string(),
                ..Text::default()
            }),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        // Every change leaves the text whole.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_address(&self, address: String) {
        self.lock().address = address;
    }

    pub(super) fn set(&self, state: UplinkState, error: Option<String>) {
        let mut text = self.lock();
        text.state = state;
        if error.is_some() {
            text.error = error;
        }
    }

    pub(in crate::link) fn status(&self) -> UplinkStatus {
        let text = self.lock();
        UplinkStatus {
            name: self.name.clone(),
            address: text.address.clone(),
            state: text.state,
            connections: self.connections.load(Relaxed),
            last_error: text.error.clone(),
            imported: self.imported.load(Relaxed),
            exported: self.exported.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            wrong_size: self.wrong_size.load(Relaxed),
            too_large: self.too_large.load(Relaxed),
            withdrawn: self.withdrawn.load(Relaxed),
        }
    }
}
