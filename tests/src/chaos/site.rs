//! The bridge of a run: its process, its configuration, what it says of itself, and signals to its workers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mycelium_bridge::status::Status;
use mycelium_bridge::status::client::ControlClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cast::{ROLES, Settings, configuration};
use super::faults::Change;
use crate::{BridgeProcess, Place, WATCHDOG, repository, wait_for, wait_until};

/// The bridge, and what was done to its workers.
#[derive(Debug)]
pub struct Site {
    place: Place,
    rust: PathBuf,
    bridge: BridgeProcess,
    control: ControlClient,
    settings: Settings,
    /// For each role the incarnation whose end was brought about last.
    ended: [u64; ROLES.len()],
    /// For each role how many ends were brought about.
    pub ends: [u64; ROLES.len()],
}

/// A process of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The worker, a number of [`ROLES`].
    number: usize,
    pid: u32,
    incarnation: u64,
}

/// The bridge's answer costs it a millisecond or so; asking without a pause would take a core from those who are waited for.
pub const BETWEEN_LOOKS: Duration = Duration::from_millis(15);

/// What a process holds, to be compared with what it held before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Mappings of memory files.
    pub mappings: usize,
    /// Processes that it has started.
    pub children: usize,
}

impl Site {
    /// Starts the bridge with all workers, those in Rust with this program, and waits until they are up.
    ///
    /// # Panics
    ///
    /// If they do not come up before the watchdog barks.
    #[must_use]
    pub fn start(rust: PathBuf) -> Self {
        let place = Place::new().listening();
        let folder = place.path();
        std::fs::create_dir(folder.join("journal")).expect("a folder for the journals");
        for script in ["worker.py", "client.py"] {
            let ours = repository().join("tests/src/chaos").join(script);
            std::fs::copy(ours, folder.join(script)).expect("copy a script");
        }
        let contracts = repository().join("tests/contracts");
        std::fs::write(
            folder.join("contracts"),
            contracts.to_str().expect("a path in UTF-8"),
        )
        .expect("write the path of the contracts");
        let settings = Settings::default();
        write_config(folder, &rust, &settings);
        let bridge = BridgeProcess::of_folder(folder, []);
        let socket = folder.join("bridge.sock.control");
        let control = wait_for("the control socket", || {
            ControlClient::connect(&socket).ok()
        });
        let mut site = Self {
            place,
            rust,
            bridge,
            control,
            settings,
            ended: [0; ROLES.len()],
            ends: [0; ROLES.len()],
        };
        for number in 0..ROLES.len() {
            site.up(number);
        }
        site
    }

    /// The directory of the run.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The address of the UNIX socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.place.address()
    }

    /// The address of the port.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn port(&mut self) -> String {
        let endpoints = self.status().endpoints;
        let port = endpoints.iter().find(|it| it.address.starts_with("tcp:"));
        port.expect("an endpoint over TCP").address.clone()
    }

    /// What the bridge says of itself.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn status(&mut self) -> Status {
        let status = self.control.status();
        status.unwrap_or_else(|error| panic!("{error}\n{}", self.last_words()))
    }

    /// The end of the log, and where all of it is kept.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.bridge.log();
        let kept = repository().join("target/chaos.log");
        let kept = match std::fs::write(&kept, &log) {
            Ok(()) => format!("the whole log: {}", kept.display()),
            Err(error) => format!("the whole log is not kept: {error}"),
        };
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("{end}\n{kept}")
    }

    /// The process of a worker that is up, and whose end was not brought about.
    ///
    /// # Panics
    ///
    /// If there is none before the watchdog barks.
    pub fn up(&mut self, number: usize) -> Target {
        let name = ROLES[number].name;
        let start = Instant::now();
        loop {
            let workers = self.status().workers;
            let worker = workers.iter().find(|worker| worker.name == name);
            let fresh = worker
                .filter(|worker| worker.phase == "up" && worker.incarnation > self.ended[number]);
            if let Some((pid, incarnation)) = fresh.and_then(|it| Some((it.pid?, it.incarnation))) {
                return Target {
                    number,
                    pid,
                    incarnation,
                };
            }
            let words = || format!("{workers:?}\n{}", self.last_words());
            assert!(start.elapsed() < WATCHDOG, "{name} is not up: {}", words());
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Waits until every worker is up.
    pub fn all_up(&mut self) {
        for number in 0..ROLES.len() {
            self.up(number);
        }
    }

    /// The journal of a process; none before its first frame.
    #[must_use]
    pub fn journal(&self, target: Target) -> Option<PathBuf> {
        let begin = format!("{}.", ROLES[target.number].name);
        let end = format!(".{}", target.pid);
        let folder = std::fs::read_dir(self.path().join("journal")).expect("the journals");
        let mut files = folder.filter_map(|entry| Some(entry.ok()?.path()));
        files.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&begin) && name.ends_with(&end))
        })
    }

    /// A signal for a worker that is up. One that has ended meanwhile, by itself or by the bridge, gets none.
    ///
    /// # Panics
    ///
    /// If the signal cannot be sent.
    pub fn signal(&mut self, target: Target, signal: Signal) {
        let Target {
            number,
            pid,
            incarnation,
        } = target;
        if ![Signal::SIGSTOP, Signal::SIGCONT].contains(&signal) {
            self.ended[number] = incarnation;
            self.ends[number] += 1;
        }
        // Its number belongs to somebody else by now if it is no child of the bridge any more.
        if parent(pid) == Some(self.bridge.pid()) {
            match kill(Pid::from_raw(pid.cast_signed()), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => panic!("cannot signal {}: {errno}", ROLES[number].name),
            }
        }
    }

    /// Changes the configuration, sends SIGHUP, and waits until it is taken or refused.
    pub fn reload(&mut self, change: Change) {
        match change {
            Change::Mood(number) => self.settings.moods[number] += 1,
            Change::Rule(number) => self.settings.rules[number] += 1,
            Change::Policy => self.settings.policy += 1,
            Change::Extra(extra) => self.settings.extras[extra] ^= true,
            Change::Broken | Change::Nothing => {}
        }
        // Nothing else starts a process again, a change of the policy neither.
        if let Change::Mood(number) = change {
            self.ended[number] = self.up(number).incarnation;
            self.ends[number] += 1;
        }
        self.apply(change == Change::Broken);
    }

    /// Removes all extras.
    pub fn without_extras(&mut self) {
        if self.settings.extras.contains(&true) {
            self.settings.extras = Default::default();
            self.apply(false);
        }
    }

    fn apply(&mut self, broken: bool) {
        let path = write_config(self.place.path(), &self.rust, &self.settings);
        if broken {
            let text = std::fs::read_to_string(&path).expect("read the configuration");
            std::fs::write(&path, text.replace("'always'", "'sometimes'")).expect("write it");
        }
        let reloads = |status: Status| {
            let totals = status.totals;
            (totals.reloads_applied, totals.reloads_refused)
        };
        let (applied, refused) = reloads(self.status());
        self.bridge.signal(Signal::SIGHUP);
        let expected = (applied + u64::from(!broken), refused + u64::from(broken));
        wait_until("the reload", || {
            let now = reloads(self.status());
            assert!(
                now == (applied, refused) || now == expected,
                "{now:?}, but expected {expected:?}: {}",
                self.last_words()
            );
            now == expected
        });
    }

    /// Publisher and number of each order in the quarantine.
    ///
    /// # Panics
    ///
    /// If its file is not as it is documented.
    #[must_use]
    pub fn set_aside(&self) -> Vec<(u32, u64)> {
        let file = self.path().join("state/quarantine.jsonl");
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        let order = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let payload = line["payload"].as_str().expect("the payload");
            // Both in hexadecimal, the lowest byte first.
            let number = |at: std::ops::Range<usize>| {
                let digits = payload.get(at).expect("a whole order");
                let number = u64::from_str_radix(digits, 16).expect("hexadecimal digits");
                number.swap_bytes() >> (64 - 4 * digits.len())
            };
            (number(0..8) as u32, number(16..32))
        };
        lines.lines().map(order).collect()
    }

    /// What the bridge's process holds.
    ///
    /// # Panics
    ///
    /// If it has ended.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let pid = self.bridge.pid();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the bridge runs");
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the bridge runs");
        Holdings {
            descriptors: descriptors.count(),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
            children: processes().filter(|it| parent(*it) == Some(pid)).count(),
        }
    }

    /// Ends the bridge as an operator would, and returns its whole log.
    ///
    /// # Panics
    ///
    /// If its exit code is not 0, or a process is left that was started for this run.
    #[must_use]
    pub fn stop(mut self) -> String {
        self.bridge.signal(Signal::SIGTERM);
        let status = self.bridge.wait();
        assert_eq!(status.code(), Some(0), "{}", self.last_words());
        let folder = self.place.path().to_str().expect("a path in UTF-8");
        let left: Vec<String> = processes()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
            .filter(|command| command.contains(folder))
            .collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        self.bridge.log()
    }
}

fn write_config(folder: &Path, rust: &Path, settings: &Settings) -> PathBuf {
    let path = folder.join("bridge.toml");
    std::fs::write(&path, configuration(folder, rust, settings)).expect("write the configuration");
    path
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("a list of processes");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(1)?.parse().ok()
}
