//! A bridge that runs as a process of its own, and clients of it.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mycelium_bridge::status::Status;
use mycelium_bridge::status::client::{AskError, ControlClient};
use mycelium_messages::bandit::{CONTRACTS, Quote};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_transport::channel::{Channel, ConnectOptions};

use super::{Site, WATCHDOG, ends_with_this_thread, wait_for};

/// A bridge that runs as a process of its own; dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) control: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-bridge"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ends_with_this_thread(command)
}

impl Running {
    pub(crate) fn start(site: &Site, control: &str) -> Self {
        let child = program(&["run", "--config"])
            .arg(site.config())
            .stderr(Stdio::null())
            .spawn()
            .expect("the bridge starts");
        let running = Self {
            child,
            control: site.path(control),
        };
        wait_for("the control socket", || running.client().ok());
        running
    }

    pub(crate) fn client(&self) -> Result<ControlClient, AskError> {
        ControlClient::connect(&self.control)
    }

    pub(crate) fn status(&self) -> Status {
        let status = self.client().and_then(|mut client| client.status());
        status.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("the bridge is there");
        self.child.wait().expect("its status").code()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the program runs");
    (status.code(), text(&stdout), text(&stderr))
}

pub(crate) fn connect(site: &Site, name: &str) -> Channel {
    let options = ConnectOptions::for_contracts(&CONTRACTS).named(name);
    let address = format!("unix:{}", site.path("bridge.sock").display());
    Channel::connect(&address, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Two clients, one of which publishes quotes to the other; both stay.
pub(crate) fn exchange(site: &Site, quotes: u64) -> (Channel, Channel) {
    let (mut publisher, mut subscriber) = (connect(site, "feed"), connect(site, "reader"));
    subscriber.subscribe::<Quote>().expect("subscribe");
    for sequence in 1..=quotes {
        let quote = Quote {
            sequence,
            ..Quote::default()
        };
        publisher.publish(&quote, Some(WATCHDOG)).expect("publish");
        subscriber.recv(Some(WATCHDOG)).expect("a quote");
    }
    // Who finds nothing more has acknowledged everything.
    assert!(subscriber.recv(Some(Duration::from_millis(1))).is_err());
    (publisher, subscriber)
}
