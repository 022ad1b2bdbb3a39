//! The sample configurations: each one is started as it is, but for ports, the interpreter and the project's messages.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_messages::Message as _;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_messages::zerocopy::IntoBytes as _;
use mycelium_tests::tls::Certificates;
use mycelium_tests::{
    Place, TOKEN, WATCHDOG, bridge_binary, expect, expected_transport, publish, python, quote,
    repository, subscribe, wait_for,
};
use serde_json::Value;
use shm_transport::channel::{Channel, ConnectOptions, Transport};
use shm_transport::socket::TlsOptions;

const STRATEGY: &str = "
import mycelium
from mycelium.messages import Side, Signal
with mycelium.connect(ADDRESS) as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker='strategy', quote_sequence=quote.sequence, side=Side.HOLD))
";

fn samples() -> std::path::PathBuf {
    repository().join("bridge/samples")
}

fn sample(name: &str) -> String {
    let path = samples().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A place with a sample in it, and everything that samples name.
fn prepare(name: &str) -> (Place, String) {
    let place = Place::new();
    let put = |name: &str, text: &str| {
        std::fs::write(place.path().join(name), text).expect("write a file");
    };
    let contracts = repository().join("contracts/bandit.yaml");
    std::fs::copy(contracts, place.path().join("contracts.yaml")).expect("copy the contracts");
    std::fs::create_dir(place.path().join("run")).expect("a directory");
    let address = if name == "stdio" { "'stdio:'" } else { "" };
    put("strategy.py", &STRATEGY.replace("ADDRESS", address));
    put("bridge.token", TOKEN);
    let certificates = Certificates::make(&place, "sample");
    std::fs::copy(&certificates.server.0, place.path().join("bridge.pem")).expect("copy");
    std::fs::copy(&certificates.server.1, place.path().join("bridge-key.pem")).expect("copy");
    let python = python();
    let text = sample(&format!("{name}.toml"))
        .replace("\"python3\"", &format!("{python:?}"))
        .replace("0.0.0.0:7443", "127.0.0.1:0")
        .replace("127.0.0.1:7001", "127.0.0.1:0");
    (place, text)
}

fn start(place: &Place, text: &str) -> Bridge {
    let file = place.path().join("bridge.toml");
    std::fs::write(&file, text).expect("write the configuration");
    let config = Config::load(file).unwrap_or_else(|error| panic!("{error}"));
    Bridge::start(&config).unwrap_or_else(|error| panic!("{error}"))
}

fn options(name: &str) -> ConnectOptions {
    ConnectOptions {
        timeout: WATCHDOG,
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

/// A client at this address hears what an actor publishes.
fn check_client(bridge: &Bridge, address: &str, options: &ConnectOptions) -> Transport {
    let mut client = Channel::connect(address, options).unwrap_or_else(|error| panic!("{error}"));
    client.subscribe::<Quote>().expect("subscribe");
    let mut actor = bridge.attach("market").expect("attach");
    publish(&mut actor, &quote(7));
    let heard: Quote = client
        .recv(Some(WATCHDOG))
        .expect("a frame")
        .read()
        .expect("a quote");
    assert_eq!(heard, quote(7));
    client.transport()
}

/// The worker of the sample answers quotes.
fn check_strategy(bridge: &Bridge) -> Option<Transport> {
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(bridge, &actor);
    for sequence in 1..=100 {
        publish(&mut actor, &quote(sequence));
        let signal: Signal = expect(&mut actor);
        assert_eq!(signal.quote_sequence, sequence);
    }
    bridge.link("strategy").expect("its link").transport
}

fn unix(place: &Place, socket: &str) -> String {
    format!("unix:{}", place.path().join(socket).display())
}

#[test]
fn every_sample_is_started_by_a_test() {
    let names: BTreeSet<String> = std::fs::read_dir(samples())
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let tested = ["container", "init", "stdio", "tls", "unix", "uplink"];
    assert_eq!(names, tested.map(|name| format!("{name}.toml")).into());
}

#[test]
fn unix_has_a_strategy_and_clients_over_shared_memory() {
    let (place, text) = prepare("unix");
    let bridge = start(&place, &text);
    assert_eq!(check_strategy(&bridge), Some(expected_transport()));
    let transport = check_client(&bridge, &unix(&place, "bridge.sock"), &options("client"));
    assert_eq!(transport, expected_transport());
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn stdio_has_a_strategy_on_its_standard_streams() {
    let (place, text) = prepare("stdio");
    let bridge = start(&place, &text);
    assert_eq!(check_strategy(&bridge), Some(Transport::Socket));
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn tls_has_an_encrypted_port_and_one_for_this_host() {
    let (place, text) = prepare("tls");
    let bridge = start(&place, &text);
    let [encrypted, local] = bridge.addresses() else {
        panic!("two endpoints: {:?}", bridge.addresses());
    };
    let mut options = options("far");
    options.token = TOKEN.to_owned();
    options.tls = TlsOptions {
        ca_file: Some(place.path().join("sample-ca.pem")),
        certificate: None,
    };
    for address in [encrypted, local].map(ToString::to_string) {
        assert_eq!(check_client(&bridge, &address, &options), Transport::Socket);
    }
    options.token = "some other token, also long".to_owned();
    for address in [encrypted, local].map(ToString::to_string) {
        let error = Channel::connect(&address, &options)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("NOT_ALLOWED"), "{error}");
    }
}

#[test]
fn container_needs_the_directory_of_the_socket_only() {
    let (place, text) = prepare("container");
    let bridge = start(&place, &text);
    let held: Vec<_> = std::fs::read_dir(place.path().join("run"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(held, ["bridge.sock"]);
    // Another name for the same directory, as in a container.
    let mounted = place.path().join("mounted");
    std::os::unix::fs::symlink(place.path().join("run"), &mounted).expect("a link");
    let address = unix(&place, "mounted/bridge.sock");
    let transport = check_client(&bridge, &address, &options("in-a-container"));
    assert_eq!(transport, expected_transport());
    // The user's own number goes first, so that the line works as it stands.
    let own = nix::unistd::getuid();
    let line = "#allowed_uids = [1000, 100000]";
    let more = text.replace(line, &format!("allowed_uids = [{own}, 100000]"));
    assert_ne!(more, text);
    std::fs::write(place.path().join("bridge.toml"), more).expect("write");
    Config::load(place.path().join("bridge.toml")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn uplink_has_a_strategy_on_a_bus() {
    let (place, text) = prepare("uplink");
    let bus = UnixListener::bind(place.path().join("bus.sock")).expect("bind");
    bus.set_nonblocking(true).expect("a socket");
    let bridge = start(&place, &text);
    let (mut bus, _) = wait_for("the uplink", || bus.accept().ok());
    bus.set_nonblocking(false).expect("a socket");
    bus.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    bus.read_exact(&mut [0; 34]).expect("the handshake");
    for sequence in 1..=10 {
        let quote = quote(sequence);
        let len = u32::try_from(quote.as_bytes().len()).expect("short");
        bus.write_all(&1001_u16.to_le_bytes()).expect("write");
        bus.write_all(&len.to_le_bytes()).expect("write");
        bus.write_all(quote.as_bytes()).expect("write");
        let mut header = [0; 6];
        bus.read_exact(&mut header).expect("a header");
        let mut answer = Signal::default().as_bytes().to_vec();
        let len = u32::try_from(answer.len()).expect("short");
        assert_eq!(header[..2], 1002_u16.to_le_bytes());
        assert_eq!(header[2..], len.to_le_bytes());
        bus.read_exact(&mut answer).expect("a payload");
        let signal = Signal::read(&answer).expect("a signal");
        assert_eq!(signal.quote_sequence, sequence);
    }
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

fn run(arguments: &[&str], directory: &Path) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(bridge_binary())
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn init_writes_what_check_accepts_and_never_over_a_file() {
    let place = Place::new();
    let (code, stdout, _) = run(&["init"], place.path());
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout,
        "wrote bridge.toml\nwrote contracts.yaml\nnext: mycelium-bridge check --config bridge.toml\n"
    );
    let (code, stdout, stderr) = run(&["check", "--config", "bridge.toml"], place.path());
    assert_eq!((code, &*stderr), (Some(0), ""), "not a warning either");
    assert!(stdout.starts_with("ok: 0 workers, "), "{stdout}");

    std::fs::write(place.path().join("bridge.toml"), "mine").expect("write");
    for again in [".", "bridge.toml"] {
        let (code, _, stderr) = run(&["init", again], place.path());
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("File exists") && stderr.contains("\nhint: "),
            "{stderr}"
        );
    }
    let read = |name| std::fs::read_to_string(place.path().join(name)).expect("read");
    assert_eq!(read("bridge.toml"), "mine");

    std::fs::write(place.path().join("contracts.yaml"), "messages: {}").expect("write");
    let (code, stdout, _) = run(&["init", "other.toml"], place.path());
    assert_eq!(code, Some(0));
    assert!(stdout.contains("kept contracts.yaml"), "{stdout}");
    assert_eq!(read("contracts.yaml"), "messages: {}");
    assert_eq!(read("other.toml"), sample("init.toml"));
}

#[test]
fn init_starts_and_so_does_all_that_it_shows_as_comments() {
    let (place, text) = prepare("init");
    let bridge = start(&place, &text);
    check_client(&bridge, &unix(&place, "bridge.sock"), &options("client"));
    drop(bridge);
    // A '#' without a space is a setting.
    let settings: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', '#']) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(
        !settings
            .lines()
            .any(|line| line.starts_with('#') && !line.starts_with("# "))
    );
    assert_eq!(
        settings.matches("\n[").count(),
        7,
        "all tables are there: {settings}"
    );
    std::fs::write(place.path().join("all.toml"), settings).expect("write");
    let config = Config::load(place.path().join("all.toml"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.workers.len(), config.uplinks.len()), (1, 1));
}

/// What a table of the configuration knows, from the hint about a key that it does not.
fn known_keys(stderr: &str, line: usize) -> BTreeSet<String> {
    let mut lines = stderr.lines();
    let place = format!(".toml:{line}:");
    lines
        .find(|text| text.contains(&place))
        .unwrap_or_else(|| panic!("no problem in line {line}: {stderr}"));
    let hint = lines.next().expect("a hint");
    let keys = hint
        .strip_prefix("hint: known keys: ")
        .unwrap_or_else(|| panic!("{hint}"));
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_keys_that_the_bridge_knows() {
    let (place, _) = prepare("unix");
    let text = "qqqqqqqq = 1
[bridge]
qqqqqqqq = 1
contracts = 'contracts.yaml'
[contracts]
qqqqqqqq = 1
[[listen]]
qqqqqqqq = 1
address = 'unix:a'
[[uplink]]
qqqqqqqq = 1
address = 'unix:b'
import = '*'
[[worker]]
qqqqqqqq = 1
name = 'a'
command = ['sh']
[[worker]]
memory = { qqqqqqqq = 1 }
name = 'b'
command = ['sh']
[[worker]]
limits = { qqqqqqqq = 1 }
name = 'c'
command = ['sh']
[[worker]]
subscribe = [{ topic = 'Quote', qqqqqqqq = 1 }]
name = 'd'
command = ['sh']
[metrics]
qqqqqqqq = 1
listen = '127.0.0.1:0'
";
    std::fs::write(place.path().join("bridge.toml"), text).expect("write");
    let (code, _, stderr) = run(&["check", "--config", "bridge.toml"], place.path());
    assert_eq!(code, Some(2));
    let (code, schema, _) = run(&["schema"], place.path());
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    for (line, table) in [
        (1, ""),
        (3, "/properties/bridge"),
        (6, "/properties/contracts"),
        (8, "/properties/listen/items"),
        (11, "/$defs/uplink"),
        (15, "/properties/worker/items"),
        (19, "/$defs/memory"),
        (23, "/$defs/limits"),
        (27, "/$defs/subscription"),
        (31, "/properties/metrics"),
    ] {
        let table_schema = schema.pointer(table).expect("a table");
        let keys = table_schema["properties"].as_object().expect("properties");
        let keys: BTreeSet<_> = keys.keys().cloned().collect();
        assert_eq!(keys, known_keys(&stderr, line), "{table}");
        assert_eq!(table_schema["additionalProperties"], false, "{table}");
    }
    // Every reference leads somewhere.
    let text = schema.to_string();
    for (at, _) in text.match_indices("\"#/") {
        let path = text[at + 2..].split('"').next().expect("closed");
        assert!(schema.pointer(path).is_some(), "{path}");
    }
}
