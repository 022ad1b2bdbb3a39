//! What a service manager hears of the bridge, on a real datagram socket.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};

use mycelium_bridge::config::Config;
use mycelium_bridge::shutdown::{KILL_GRACE, TERMINATE_GRACE};
use mycelium_bridge::status::Status;
use mycelium_bridge::status::client::ControlClient;
use mycelium_tests::{
    Place, StoppedThread, WATCHDOG, bridge_binary, ends_with_this_thread, repository, wait_for,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Says what it inherited of the manager's variables, and stays.
const WORKER: &str = r#"
import os, pathlib, mycelium
with mycelium.connect() as channel:
    names = sorted(name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_")))
    pathlib.Path(__file__).with_name("inherited").write_text(f"{names}\n")
    for _ in channel:
        pass
"#;

/// The unit of the manual, by key.
fn documented_unit() -> BTreeMap<String, String> {
    let page = fs::read_to_string(repository().join("docs/operations.md")).expect("the page");
    let (_, unit) = page.split_once("```ini\n").expect("a unit");
    let (unit, _) = unit.split_once("```").expect("its end");
    let pairs = unit.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

struct Service {
    manager: UnixDatagram,
    bridge: Child,
}

impl Service {
    fn start(
        place: &Place,
        manager: UnixDatagram,
        socket: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(bridge_binary());
        command.arg("run").arg("--config").arg(place.write_config());
        Self::of(command, manager, socket, variables)
    }

    fn of(
        mut command: Command,
        manager: UnixDatagram,
        socket: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        manager
            .set_read_timeout(Some(WATCHDOG))
            .expect("a time limit");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
            .env("NOTIFY_SOCKET", socket)
            .envs(variables.iter().copied());
        let bridge = ends_with_this_thread(&mut command).spawn();
        let bridge = bridge.expect("start the bridge");
        Self { manager, bridge }
    }

    /// What has been told and not been read.
    fn drain(&self) -> Vec<String> {
        self.manager.set_nonblocking(true).expect("a socket");
        let mut told = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(length) = self.manager.recv(&mut buffer) {
            told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.manager.set_nonblocking(false).expect("a socket");
        told
    }

    fn next(&self) -> String {
        let mut buffer = [0; 512];
        let length = self
            .manager
            .recv(&mut buffer)
            .expect("watchdog: nothing is told");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// What comes before the first message that begins so, and that message.
    fn until(&self, begin: &str) -> Vec<String> {
        let mut told = vec![self.next()];
        while !told.last().is_some_and(|last| last.starts_with(begin)) {
            told.push(self.next());
        }
        told
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.bridge.id().cast_signed()), signal).expect("the bridge is there");
    }

    fn code(&mut self) -> Option<i32> {
        let bridge = &mut self.bridge;
        wait_for("the end of the bridge", || {
            bridge.try_wait().expect("ask for it")
        })
        .code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.bridge.kill();
        let _ = self.bridge.wait();
    }
}

#[test]
fn a_manager_hears_of_readiness_workers_reload_and_the_end() {
    let place = Place::new().worker("worker", WORKER, "");
    let path = place.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let mut service = Service::start(&place, manager, path.to_str().expect("text"), &[]);
    service.until("READY=1");
    service.until("STATUS=1 of 1 workers up, 0 clients");
    assert_eq!(place.first_line("inherited"), "[]");

    let config = place.path().join("bridge.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    std::fs::write(&config, format!("{text}\nnice = 1\n")).expect("write");
    service.signal(Signal::SIGHUP);
    let told = service.until("RELOADING=1\nMONOTONIC_USEC=");
    let micros = told.last().and_then(|last| last.rsplit('=').next());
    assert!(
        micros.is_some_and(|text| text.parse::<u64>().is_ok_and(|us| us > 0)),
        "{told:?}"
    );
    service.until("READY=1");
    service.until("STATUS=1 of 1 workers up, 0 clients");
    // A configuration with errors leaves the bridge ready, too.
    std::fs::write(&config, "[bridge]\n").expect("write");
    service.signal(Signal::SIGHUP);
    service.until("RELOADING=1");
    service.until("READY=1");

    service.signal(Signal::SIGTERM);
    service.until("STOPPING=1");
    assert_eq!(service.code(), Some(0));
}

#[test]
fn a_manager_with_an_abstract_socket_gets_signs_of_life() {
    let place = Place::new().listening();
    let name = format!("mycelium-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    let variables = [("WATCHDOG_USEC", "100000")];
    let mut service = Service::start(&place, manager, &format!("@{name}"), &variables);
    service.until("READY=1");
    for _ in 0..3 {
        service.until("WATCHDOG=1");
    }
    service.signal(Signal::SIGTERM);
    service.until("STOPPING=1");
    assert_eq!(service.code(), Some(0));
}

#[test]
fn a_watchdog_for_another_process_and_a_dead_manager_are_no_obstacle() {
    let place = Place::new().worker("worker", WORKER, "");
    let path = place.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let variables = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut service = Service::start(&place, manager, path.to_str().expect("text"), &variables);
    let told = [
        service.until("READY=1"),
        service.until("STATUS=1 of 1 workers up"),
    ]
    .concat();
    assert!(
        !told.iter().any(|message| message.contains("WATCHDOG")),
        "{told:?}"
    );
    service.manager = UnixDatagram::unbound().expect("a socket");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.code(), Some(0));

    // A manager that is not there at all.
    let manager = UnixDatagram::unbound().expect("a socket");
    let mut service = Service::start(&place, manager, "/nonexistent/socket", &[]);
    std::fs::remove_file(place.path().join("inherited")).expect("remove");
    assert_eq!(place.first_line("inherited"), "[]");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.code(), Some(0));
}

fn status(place: &Place) -> Status {
    let control = place.path().join("bridge.sock.control");
    let status = ControlClient::connect(&control).and_then(|mut client| client.status());
    status.unwrap_or_else(|error| panic!("{error}"))
}

/// A bridge with a watchdog whose data plane has been stopped, and nothing else of it; `None` where this user may not do
/// that to it.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn with_a_data_plane_that_stands_still(place: &Place) -> Option<(Service, StoppedThread)> {
    let path = place.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let variables = [("WATCHDOG_USEC", "100000")];
    let service = Service::start(place, manager, path.to_str().expect("text"), &variables);
    service.until("READY=1");
    service.until("WATCHDOG=1");
    match StoppedThread::named(service.bridge.id(), "mycelium-data") {
        Ok(stopped) => Some((service, stopped)),
        Err(error) => {
            eprintln!("not tested: no thread of another process can be stopped: {error}");
            None
        }
    }
}

#[test]
fn a_data_plane_that_stands_still_ends_the_signs_of_life_and_is_said_everywhere() {
    let place = Place::new()
        .listening()
        .table("[metrics]\nlisten = '127.0.0.1:0'");
    let Some((mut service, stopped)) = with_a_data_plane_that_stands_still(&place) else {
        return;
    };
    // What was on its way has been told once the control plane has answered something later.
    let first = status(&place);
    assert!(first.plane.is_none(), "{:?}", first.plane);
    service.drain();
    let again = status(&place);
    let silent_ms = again.plane_silent_ms.expect("it has not answered");
    // Many times the 50 ms from one sign to the next.
    assert!(silent_ms > 1000 && Some(silent_ms) > first.plane_silent_ms);
    let told = service.drain();
    assert!(
        !told.iter().any(|it| it.contains("WATCHDOG")),
        "the manager is told of life that is not there: {told:?}"
    );

    let mut shown = Command::new(bridge_binary());
    shown
        .args(["status", "--config"])
        .arg(place.path().join("bridge.toml"));
    let shown = shown.output().expect("run the program").stdout;
    let shown = String::from_utf8(shown).expect("text");
    assert!(
        shown.contains("data plane   does not answer, for "),
        "{shown}"
    );
    let mut metrics = TcpStream::connect(again.metrics.expect("an address")).expect("connect");
    metrics
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .expect("ask");
    let mut text = String::new();
    metrics.read_to_string(&mut text).expect("text");
    assert!(text.contains("\nmycelium_data_plane_answers 0\n"), "{text}");
    assert!(
        text.contains("\nmycelium_data_plane_silent_seconds "),
        "{text}"
    );

    drop(stopped);
    service.until("WATCHDOG=1");
    assert!(status(&place).plane.is_some(), "it goes on where it stood");
    service.signal(Signal::SIGTERM);
    service.until("STOPPING=1");
    assert_eq!(service.code(), Some(0));
}

#[test]
fn a_bridge_whose_data_plane_stands_still_can_be_stopped() {
    let place = Place::new()
        .listening()
        .bridge("shutdown_timeout_ms = 100")
        .worker("worker", WORKER, "");
    let Some((mut service, stopped)) = with_a_data_plane_that_stands_still(&place) else {
        return;
    };
    service.signal(Signal::SIGTERM);
    service.until("STOPPING=1");
    wait_until("the end of the stopped thread", || stopped.has_ended());
    assert_eq!(service.code(), Some(1));
}

#[test]
fn the_documented_unit_starts_reloads_and_stops_a_bridge() {
    let unit = documented_unit();
    let place = Place::new().listening();
    let config = place.write_config();
    let mut words = unit["ExecStart"].split(' ');
    let program = words.next().expect("a program");
    assert!(program.ends_with("/mycelium-bridge"), "{program}");
    let command = |config: &std::path::Path| {
        let mut command = Command::new(bridge_binary());
        let words = unit["ExecStart"].split(' ').skip(1);
        command.args(words.map(|word| match word {
            "/etc/mycelium/bridge.toml" => config.as_os_str().to_owned(),
            _ => word.into(),
        }));
        command
    };
    assert_eq!(unit["Type"], "notify");
    let watchdog_s: u64 = unit["WatchdogSec"].parse().expect("seconds");
    let watchdog = (watchdog_s * 1_000_000).to_string();
    let path = place.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let variables = [("WATCHDOG_USEC", &*watchdog)];
    let mut service = Service::of(
        command(&config),
        manager,
        path.to_str().expect("text"),
        &variables,
    );
    service.until("READY=1");
    service.until("WATCHDOG=1");

    let mut reload = Command::new("sh");
    reload.args(["-c", &unit["ExecReload"]]);
    reload.env("MAINPID", service.bridge.id().to_string());
    assert!(reload.status().expect("run it").success());
    service.until("RELOADING=1");
    service.until("READY=1");

    service.signal(Signal::SIGTERM);
    service.until("STOPPING=1");
    assert_eq!(service.code(), Some(0));
    // The manager waits for longer than a stop can take, and does not try again what cannot get better.
    let ours = fs::read_to_string(&config).expect("text");
    let usual: Vec<_> = ours
        .lines()
        .filter(|it| !it.contains("_timeout_ms"))
        .collect();
    fs::write(&config, usual.join("\n")).expect("write");
    let checked = Config::load(&config).expect("sound");
    let steps = checked.bridge.shutdown_timeout + TERMINATE_GRACE + KILL_GRACE;
    let patience: u64 = unit["TimeoutStopSec"].parse().expect("seconds");
    assert!(patience > steps.as_secs() + 1, "{patience} s for {steps:?}");
    let wrong = place.path().join("wrong.toml");
    fs::write(&wrong, "[bridge]\n").expect("write");
    let refused = command(&wrong).output().expect("run the program");
    let code = refused
        .status
        .code()
        .expect("it ends by itself")
        .to_string();
    assert_eq!(unit["RestartPreventExitStatus"], code);
}
