//! Another configuration for a running bridge.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::event_loop::ReloadCounters;

use crate::{Place, wait_until};

/// Changes the configuration of a place.
///
/// # Panics
///
/// If nothing was changed, or the file cannot be read or written.
pub fn edit(place: &Place, change: impl FnOnce(&str) -> String) {
    let path = place.path().join("bridge.toml");
    let old = std::fs::read_to_string(&path).expect("read the configuration");
    let new = change(&old);
    assert_ne!(old, new, "the configuration was to change");
    std::fs::write(&path, new).expect("write the configuration");
}

/// Has a bridge read its configuration again, and waits until that is done or refused, by the data plane too: what it was
/// asked for before it answers, it has carried out.
///
/// # Panics
///
/// If the watchdog barks, or the data plane has stopped.
pub fn reload(bridge: &Bridge) {
    let ReloadCounters { applied, refused } = bridge.reloads();
    bridge.reload();
    wait_until("the reload", || {
        bridge.reloads() != ReloadCounters { applied, refused }
    });
    bridge.snapshot().expect("the data plane answers");
}
