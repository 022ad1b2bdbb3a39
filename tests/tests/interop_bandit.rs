//! The page for Bandit repositories, done word for word: an adapter on a bus, the worker beside it, the same numbers from
//! both, and the switch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mycelium_messages::Message as _;
use mycelium_messages::bandit::{Quote, Signal};
use mycelium_messages::zerocopy::IntoBytes as _;
use mycelium_tests::pages::blocks;
use mycelium_tests::{Place, bridge_binary, contracts_binary, quote, repository, wait_until};
use nix::sys::signal::{self, kill};
use nix::unistd::Pid;
use shm_transport::disable::VARIABLE;

const PAGE: &str = "docs/interop-bandit.md";
/// Quotes of each comparison.
const COUNT: u64 = 200;

/// What a bus has heard, by the number of the connection.
#[derive(Debug, Default)]
struct Heard {
    clients: Vec<UnixStream>,
    signals: BTreeMap<usize, Vec<Signal>>,
}

/// A bus of the stream format that gives every frame to everybody else.
#[derive(Clone)]
struct Bus(Arc<Mutex<Heard>>);

impl Bus {
    fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bind");
        let bus = Self(Arc::default());
        let accepting = bus.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = accepting.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        bus
    }

    fn with<T>(&self, act: impl FnOnce(&mut Heard) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, mut stream: UnixStream) {
        let mut greeting = [0; 34];
        stream.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(greeting[..2], 32_u16.to_le_bytes());
        let number = self.with(|heard| {
            heard.clients.push(stream.try_clone().expect("a socket"));
            heard.clients.len() - 1
        });
        let mut header = [0; 6];
        while stream.read_exact(&mut header).is_ok() {
            let (type_id, len) = header.split_at(2);
            let len = u32::from_le_bytes(len.try_into().expect("four bytes"));
            let mut payload = vec![0; len as usize];
            stream.read_exact(&mut payload).expect("a payload");
            assert_eq!(type_id, Signal::TOPIC_ID.to_le_bytes());
            let signal = Signal::read(&payload).expect("a signal");
            self.with(|heard| heard.signals.entry(number).or_default().push(signal));
        }
    }

    /// Waits until so many connections have said what they have to say.
    fn wait_for_clients(&self, count: usize) {
        wait_until("a client of the bus", || {
            self.with(|heard| heard.clients.len()) >= count
        });
    }

    /// What a feed on the bus does; those that are gone are no concern of it.
    fn send(&self, quote: &Quote) {
        let payload = quote.as_bytes();
        let len = u32::try_from(payload.len()).expect("short");
        let type_id = Quote::TOPIC_ID.to_le_bytes();
        let frame = [&type_id[..], &len.to_le_bytes(), payload].concat();
        self.with(|heard| {
            for client in &mut heard.clients {
                let _ = client.write_all(&frame);
            }
        });
    }

    fn signals(&self, number: usize) -> Vec<Signal> {
        self.with(|heard| heard.signals.get(&number).cloned().unwrap_or_default())
    }
}

/// A process of the page, killed at the end of the test; what it prints goes into a file.
struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    fn start(directory: &Path, script: &str, name: &str) -> Self {
        let output = directory.join(format!("{name}.log"));
        let file = fs::File::create(&output).expect("a file");
        let child = shell(directory, &format!("exec {script}"))
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("start it");
        Self { child, output }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn wait_for_output(&mut self, text: &str) {
        wait_until(text, || {
            let ended = self.child.try_wait().expect("ask for it");
            assert!(ended.is_none(), "{ended:?}: {}", self.output());
            self.output().contains(text)
        });
    }

    /// Asks it to end, and waits until it has.
    fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal::Signal::SIGTERM).expect("it runs");
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(directory: &Path, script: &str) -> Command {
    let bin = bridge_binary();
    let bin = bin.parent().expect("a directory").display();
    let path = std::env::var("PATH").expect("a path");
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("PATH", format!("{bin}:{path}"))
        .env_remove(VARIABLE)
        .env_remove("VIRTUAL_ENV")
        .env_remove("PYTHONPATH")
        .stdin(Stdio::null());
    command
}

/// Writes the files of the page and runs its commands, up to the one that stays in the background or to the end.
fn follow(page: &str, directory: &Path, background: impl FnOnce(&str)) -> String {
    let mut background = Some(background);
    let mut addition = String::new();
    for block in blocks(page) {
        match (block.language, block.mark) {
            ("python", "") | ("toml", "") if block.name.contains('.') => {
                fs::write(directory.join(block.name), block.text).expect("write");
            }
            ("toml", "") if block.name == "[uplink]" => block.text.clone_into(&mut addition),
            // A release build takes minutes and is not what the page is about: the caller has the programs on the path.
            ("sh", "the programs are built") => {}
            ("sh", "in the background") => background.take().expect("once")(block.text.trim()),
            ("sh", "") => {
                let output = shell(directory, block.text).output().expect("run bash");
                let shown = String::from_utf8_lossy(&output.stdout);
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}\n{shown}\n{errors}", block.text);
            }
            other => panic!(
                "the page has a block that nobody runs: {other:?} {}",
                block.text
            ),
        }
    }
    addition
}

fn summary(signal: &Signal) -> (u64, f64, u8) {
    (signal.quote_sequence, signal.price, signal.side.0)
}

#[test]
fn the_page_for_bandit_leads_from_an_adapter_to_a_worker_with_the_same_signals() {
    let page = fs::read_to_string(repository().join(PAGE)).expect("the page");
    let place = Place::new();
    let directory = place.path().join("bandit");
    fs::create_dir(&directory).expect("a directory");
    std::os::unix::fs::symlink(repository(), place.path().join("mycelium-bridge")).expect("a link");
    let contracts = repository().join("contracts/bandit.yaml");
    fs::copy(contracts, directory.join("contracts.yaml")).expect("copy the contracts");
    assert!(contracts_binary().exists(), "on the path of the page");
    let bus = Bus::start(&directory.join("bus.sock"));

    // Side by side: the bridge, then the old adapter, and the program that compares.
    let mut bridge = None;
    let addition = follow(&page, &directory, |command| {
        let mut started = Running::start(&directory, command, "bridge");
        started.wait_for_output("worker is up");
        bus.wait_for_clients(1);
        bridge = Some(started);
    });
    let bridge = bridge.expect("the page starts it");
    let adapter = Running::start(&directory, "python3 old_adapter.py", "adapter");
    bus.wait_for_clients(2);
    let python = "worker-env/bin/python compare.py";
    let mut compare = Running::start(&directory, python, "compare");
    let mut first = 0;
    // The first quotes tell when its subscription stands; the means of both sides go on with them.
    wait_until("the first comparison", || {
        first += 1;
        bus.send(&quote(first));
        !compare.output().is_empty()
    });
    for sequence in first + 1..=first + COUNT {
        bus.send(&quote(sequence));
    }
    compare.wait_for_output(&format!("\n{} ", first + COUNT));
    wait_until("the old adapter", || {
        bus.signals(1).len() as u64 == first + COUNT
    });
    let old: BTreeMap<u64, String> = bus
        .signals(1)
        .iter()
        .map(|signal| {
            let side = ["BUY", "SELL", "HOLD"][usize::from(signal.side.0) - 1];
            let number = signal.quote_sequence;
            (number, format!("{number} {:.5} {side}", signal.price))
        })
        .collect();
    let shown = compare.output();
    assert!(shown.lines().count() as u64 > COUNT, "{shown}");
    for line in shown.lines() {
        let number: u64 = line
            .split(' ')
            .next()
            .expect("a number")
            .parse()
            .expect(line);
        assert_eq!(old[&number], line);
    }
    assert_eq!(bus.signals(0).len(), 0, "the bridge gives nothing back yet");

    // The switch.
    drop(adapter);
    assert_eq!(compare.stop(), None);
    assert_eq!(bridge.stop(), Some(0));
    let file = directory.join("bridge.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    let switched = text.replace("[uplink]\n", &format!("[uplink]\n{addition}"));
    assert_ne!(switched, text);
    fs::write(&file, switched).expect("write");
    let mut bridge = Running::start(&directory, "mycelium-bridge run", "bridge");
    bridge.wait_for_output("worker is up");
    bus.wait_for_clients(3);
    for sequence in 1..=COUNT {
        bus.send(&quote(sequence));
    }
    wait_until("the signals of the worker", || {
        bus.signals(2).len() as u64 == COUNT
    });
    // The same numbers as the adapter had from the same quotes.
    let old = bus.signals(1);
    for (new, old) in bus.signals(2).iter().zip(&old) {
        assert_eq!(summary(new), summary(old));
        assert_eq!(new.worker.as_str(), Ok("momentum"));
    }
    assert_eq!(bridge.stop(), Some(0));
}
