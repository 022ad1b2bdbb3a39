//! What a service manager hears of the bridge, on a real datagram socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};

use mycelium_tests::{Place, WATCHDOG, bridge_binary, wait_for};
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
        manager
            .set_read_timeout(Some(WATCHDOG))
            .expect("a time limit");
        let mut command = Command::new(bridge_binary());
        command.arg("run").arg("--config").arg(place.write_config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
            .env("NOTIFY_SOCKET", socket)
            .envs(variables.iter().copied());
        let bridge = command.spawn().expect("start the bridge");
        Self { manager, bridge }
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
