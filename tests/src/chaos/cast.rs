//! Who plays: the workers with what they subscribe to and what may happen to them, and the configuration that names them.

use std::fmt::Write as _;
use std::path::Path;

use crate::{TOKEN, python, repository};

/// What a worker gets of a topic, and what is then promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every frame, at least once, in order.
    All,
    /// Every frame that is not counted as missed.
    AllButMissed,
    /// As [`Promise::AllButMissed`], and the last one of every lane.
    Latest,
    /// Together with the other members of its group every frame; a lane stays with one member.
    Share,
}

/// What may happen to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it shows that the faults of others do not reach it.
    Untouched,
    /// It is killed, stopped, made to exit, and started again with another environment.
    Any,
    /// It is killed, and dies over poisonous records until they are moved aside.
    Poisoned,
    /// It is killed, and stopped until the bridge finds that it hangs.
    Hangs,
}

/// One worker.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// Topics, and what holds for each.
    pub topics: &'static [(&'static str, Promise)],
    /// What may happen to it.
    pub fate: Fate,
    /// Whether it is a program in Rust, which starts in a fiftieth of the time; otherwise one in Python.
    rust: bool,
    /// What its table says beside what follows from the above.
    lines: &'static str,
}

use Promise::{All, AllButMissed, Latest, Share};

/// The workers that are there from the begin to the end. Rings are small, so that they are full soon.
pub const ROLES: &[Role] = &[
    Role {
        name: "ledger",
        rust: false,
        topics: &[("Order", All)],
        fate: Fate::Any,
        lines: "subscribe = ['Order']\nring_capacity = '16KiB'\nsettings = { receipts = true }",
    },
    Role {
        name: "clerk",
        rust: false,
        topics: &[("Order", All)],
        fate: Fate::Any,
        lines: "subscribe = ['Order']\nring_capacity = '16KiB'\ntransport = 'socket'\nsettings = { receipts = true }",
    },
    Role {
        name: "fragile",
        rust: false,
        topics: &[("Order", All)],
        fate: Fate::Poisoned,
        lines: "subscribe = ['Order']\nring_capacity = '8KiB'\nquarantine_after = 2\nsettings = { poison = true }",
    },
    Role {
        name: "hasty",
        rust: true,
        topics: &[("Order", All)],
        fate: Fate::Hangs,
        lines: "subscribe = ['Order']\nring_capacity = '8KiB'\nstall_timeout_ms = 400",
    },
    Role {
        name: "crew-a",
        rust: false,
        topics: &[("Job", Share)],
        fate: Fate::Any,
        lines: "subscribe = [{ topic = 'Job', group = 'crew' }]\nring_capacity = '4KiB'",
    },
    Role {
        name: "crew-b",
        rust: true,
        topics: &[("Job", Share)],
        fate: Fate::Any,
        lines: "subscribe = [{ topic = 'Job', group = 'crew' }]\nring_capacity = '4KiB'\ntransport = 'socket'",
    },
    Role {
        name: "recent",
        rust: true,
        topics: &[("Trade", AllButMissed)],
        fate: Fate::Any,
        lines: "subscribe = [{ topic = 'Trade', delivery = 'drop_oldest' }]\nring_capacity = '4KiB'\nstage_capacity = '8KiB'",
    },
    Role {
        name: "sample",
        rust: false,
        topics: &[("Trade", AllButMissed)],
        fate: Fate::Any,
        lines: "subscribe = [{ topic = 'Trade', delivery = 'drop_newest' }]\nring_capacity = '4KiB'\ntransport = 'socket'",
    },
    Role {
        name: "mirror",
        rust: true,
        topics: &[("Book", Latest)],
        fate: Fate::Any,
        lines: "subscribe = ['Book']\nring_capacity = '4KiB'\nstage_capacity = '8KiB'",
    },
    Role {
        name: "far-mirror",
        rust: true,
        topics: &[("Book", Latest)],
        fate: Fate::Any,
        lines: "subscribe = ['Book']\nring_capacity = '4KiB'\nstage_capacity = '8KiB'\ntransport = 'socket'",
    },
    Role {
        name: TURNCOAT,
        rust: false,
        topics: &[("Trade", AllButMissed)],
        fate: Fate::Any,
        lines: "ring_capacity = '4KiB'\nstage_capacity = '8KiB'",
    },
    Role {
        name: "calm",
        rust: false,
        topics: &[("Order", All), ("Job", All)],
        fate: Fate::Untouched,
        lines: "subscribe = ['Order', 'Job']\nring_capacity = '64KiB'",
    },
    Role {
        name: "serene",
        rust: false,
        topics: &[("Trade", AllButMissed), ("Book", Latest)],
        fate: Fate::Untouched,
        lines: "subscribe = ['Trade', 'Book']\nring_capacity = '4KiB'\nstage_capacity = '8KiB'",
    },
];

/// The worker whose policy changes with reloads.
pub const TURNCOAT: &str = "turncoat";

/// Workers that reloads add and remove.
pub const EXTRAS: [&str; 2] = ["extra-a", "extra-b"];

const POLICIES: [&str; 2] = ["drop_oldest", "drop_newest"];

/// What reloads change.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// For each role: how often its environment was changed.
    pub moods: [u32; ROLES.len()],
    /// For each role: how often a rule of it was changed that needs no restart.
    pub rules: [u32; ROLES.len()],
    /// Which policy the turncoat has.
    pub policy: usize,
    /// Which of [`EXTRAS`] are there.
    pub extras: [bool; EXTRAS.len()],
}

/// The whole configuration as it is to be. `rust` is the program of the workers in Rust.
///
/// # Panics
///
/// Never: writing into a text does not fail.
#[must_use]
pub fn configuration(place: &Path, rust: &Path, settings: &Settings) -> String {
    let contracts = repository().join("tests/contracts/chaos.yaml");
    let mut text = format!(
        "[bridge]\ncontracts = {contracts:?}\nlisten = {:?}\nring_capacity = '16KiB'\nstate_dir = 'state'\n\
         shutdown_timeout_ms = 30000\n\n[[listen]]\naddress = 'tcp:127.0.0.1:0'\ntoken_file = 'token'\n",
        place.join("bridge.sock")
    );
    std::fs::write(place.join("token"), TOKEN).expect("write the token");
    let mut worker = |name: &str, in_rust: bool, lines: &str, mood: u32, rule: u32| {
        let command = if in_rust {
            vec![rust.to_owned(), "worker".into(), place.to_owned()]
        } else {
            vec![python(), place.join("worker.py")]
        };
        let _ = write!(
            text,
            "\n[[worker]]\nname = '{name}'\ncommand = {command:?}\n{lines}\nenv = {{ CHAOS_MOOD = '{mood}' }}\n\
             restart = 'always'\nrestart_backoff_ms = 1\nrestart_backoff_max_ms = {}\nrestart_limit = 1000\n\
             restart_window_ms = 1\nattach_timeout_ms = 60000\n",
            20 + rule % 10
        );
        if !lines.contains("quarantine_after") {
            text += "quarantine_after = 0\n";
        }
    };
    for (number, role) in ROLES.iter().enumerate() {
        let mut lines = role.lines.to_owned();
        if role.name == TURNCOAT {
            let policy = POLICIES[settings.policy % POLICIES.len()];
            let _ = write!(
                lines,
                "\nsubscribe = [{{ topic = 'Trade', delivery = '{policy}' }}]"
            );
        }
        worker(
            role.name,
            role.rust,
            &lines,
            settings.moods[number],
            settings.rules[number],
        );
    }
    for (name, there) in EXTRAS.iter().zip(settings.extras) {
        if there {
            worker(name, false, "subscribe = ['Order', 'Trade']", 0, 0);
        }
    }
    text
}
