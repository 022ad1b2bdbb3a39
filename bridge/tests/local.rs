//! Actors in the process of the bridge.

mod common;

use std::sync::mpsc;

use common::{Site, WATCHDOG};
use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_messages::bandit::Quote;
use shm_transport::error::ChannelError;

#[test]
fn an_actor_that_waits_learns_that_the_bridge_has_stopped() {
    let site = Site::new("", "");
    let bridge = Bridge::start(&Config::load(site.config()).expect("sound")).expect("bridge");
    let mut reader = bridge.attach("reader").expect("link");
    let mut writer = bridge.attach("writer").expect("link");
    reader.subscribe::<Quote>().expect("running");
    let (done, outcomes) = mpsc::channel();
    let reading = done.clone();
    std::thread::spawn(move || {
        let outcome = loop {
            match reader.recv(None) {
                Ok(frame) => assert!(frame.read::<Quote>().is_ok()),
                Err(error) => break error,
            }
        };
        reading.send(outcome)
    });
    writer
        .publish(&Quote::default(), None)
        .expect("the bridge runs");
    bridge.shut_down().expect("control plane");
    // Nobody empties the ring any more.
    std::thread::spawn(move || {
        let outcome = loop {
            if let Err(error) = writer.publish(&Quote::default(), None) {
                break error;
            }
        };
        done.send(outcome)
    });
    for _ in 0..2 {
        let error = outcomes
            .recv_timeout(WATCHDOG)
            .expect("an actor waits for ever");
        assert!(matches!(error, ChannelError::Closed { .. }), "{error}");
    }
}
