//! A client in a container: namespaces of its own for users, mounts, processes, IPC and the network, a `/tmp` and a
//! `/dev/shm` of its own, and of the bridge nothing but the directory of its socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_messages::bandit::Signal;
use mycelium_tests::{
    Place, expect, expected_transport, publish, python, quote, repository, subscribe, wait_until,
};
use shm_transport::channel::Transport;

/// Namespaces as `docker run` makes them, but without an image: the files of the host are there, read-only or not.
const NAMESPACES: [&str; 7] = [
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--ipc",
    "--net",
];

/// The user that the client is in the container.
const USER: &str = "4321";

/// Hides what a container does not see, and mounts what it does: the repository, which stands for the image, and the
/// directory of the socket.
const CONTAINER: &str = r#"
set -e
run=$1 repository=$2 user=$3 python=$4 client=$5
mount -t tmpfs none /dev/shm
mkdir /dev/shm/run /dev/shm/repository
mount --rbind "$run" /dev/shm/run
mount --rbind "$repository" /dev/shm/repository
mount -t tmpfs none /tmp
mkdir -p /tmp/mycelium "$repository"
mount --move /dev/shm/run /tmp/mycelium
if [ -e "$repository/Cargo.toml" ]; then umount -l /dev/shm/repository
else mount --move /dev/shm/repository "$repository"; fi
rmdir /dev/shm/run /dev/shm/repository
mount -t proc none /proc
cd /
exec unshare --user --map-user="$user" --map-group="$user" "$python" -c "$client"
"#;

const CLIENT: &str = r#"
import os
import mycelium
from mycelium.messages import Quote, Side, Signal

assert os.listdir("/dev/shm") == [] and os.listdir("/tmp/mycelium") == ["bridge.sock"], os.listdir("/tmp/mycelium")
with mycelium.connect("unix:/tmp/mycelium/bridge.sock", name="in-a-container") as channel:
    channel.subscribe(Quote)
    signals = channel.publisher(Signal)
    print("transport", channel.transport, "uid", os.getuid(), "pid", os.getpid(), flush=True)
    for quote in channel:
        signals.send(Signal(worker="inside", quote_sequence=quote.sequence, side=Side.HOLD))
print("done")
"#;

/// The reason if this kernel gives users no namespaces, and with it no container without privileges.
fn refused() -> Option<String> {
    let tried = Command::new("unshare")
        .args(NAMESPACES)
        .args([
            "sh",
            "-c",
            "mount -t tmpfs none /tmp && unshare --user --map-user=4321 true",
        ])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The bridge of the sample, with the messages of the project.
fn start(place: &Place, lines: &str) -> Bridge {
    let sample = repository().join("bridge/samples/container.toml");
    let text = fs::read_to_string(sample).expect("the sample");
    let contracts = repository().join("contracts/bandit.yaml");
    fs::copy(contracts, place.path().join("contracts.yaml")).expect("copy the contracts");
    fs::create_dir(place.path().join("run")).expect("a directory");
    let file = place.path().join("bridge.toml");
    fs::write(&file, text + lines).expect("write the configuration");
    let config = Config::load(file).unwrap_or_else(|error| panic!("{error}"));
    Bridge::start(&config).unwrap_or_else(|error| panic!("{error}"))
}

fn contained(place: &Place) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACES)
        .args(["sh", "-c", CONTAINER, "container"])
        .arg(place.path().join("run"))
        .arg(repository())
        .arg(USER)
        .arg(python())
        .arg(CLIENT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Said past the capturing of the test's output: whoever runs the tests has to see it.
fn not_tested(reason: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "NOT TESTED: a client in a container: this kernel or user gets no namespaces: {reason}"
    );
}

#[test]
fn a_client_in_a_container_gets_shared_memory_through_the_socket_alone() {
    if let Some(reason) = refused() {
        return not_tested(&reason);
    }
    let place = Place::new();
    let bridge = start(&place, "");
    let mut actor = bridge.attach("market").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    let mut container = contained(&place).spawn().expect("start the container");
    // The first answer says that the client has subscribed.
    wait_until("the first answer", || {
        let ended = container.try_wait().expect("ask for it");
        if ended.is_some() {
            let mut said = String::new();
            let mut errors = container.stderr.take().expect("a pipe");
            errors.read_to_string(&mut said).expect("text");
            panic!("{ended:?}: {said}");
        }
        publish(&mut actor, &quote(0));
        actor.try_recv().expect("no failure").is_some()
    });
    let link = bridge.link("in-a-container").expect("a link");
    assert_eq!(link.transport, Some(expected_transport()), "{link:?}");
    // The bridge has the number that the host knows; inside it is 1.
    let pid = link.pid.expect("a client of this host");
    let command = fs::read(format!("/proc/{pid}/cmdline")).expect("a process of this host");
    assert!(String::from_utf8_lossy(&command).contains("in-a-container"));
    for sequence in 1..=1000 {
        publish(&mut actor, &quote(sequence));
        loop {
            let signal: Signal = expect(&mut actor);
            if signal.quote_sequence == sequence {
                break;
            }
            // Answers to the first one, which was published more than once.
            assert_eq!(signal.quote_sequence, 0);
        }
    }
    drop(actor);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
    let output = container.wait_with_output().expect("its end");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && text.ends_with("done\n"),
        "{text}{errors}"
    );
    let transport = match expected_transport() {
        Transport::Shm => "shm",
        Transport::Socket => "socket",
    };
    // The container's first process is the client itself.
    let expected = format!("transport {transport} uid {USER} pid 1\n");
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn the_bridge_checks_the_user_that_the_host_knows() {
    if let Some(reason) = refused() {
        return not_tested(&reason);
    }
    let place = Place::new();
    // The user as the container knows it is allowed, which says nothing: outside it is another one.
    let bridge = start(&place, &format!("allowed_uids = [{USER}]\n"));
    let output = contained(&place).output().expect("run the container");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    let own = nix::unistd::getuid();
    let expected = format!("code=NOT_ALLOWED user is not allowed to connect: uid={own}, pid=");
    assert!(errors.contains(&expected), "{errors}");
    assert!(bridge.link("in-a-container").is_none());
}
