//! The bridge as a program, and its end: by SIGKILL, which it cannot prepare for, and by SIGTERM, which it can.

use std::collections::BTreeSet;
use std::path::Path;

use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_tests::{
    BridgeProcess, Place, WATCHDOG, expected_transport, has_ended, quote, run_python, wait_until,
};
use nix::sys::signal::Signal as Sig;
use shm_transport::channel::{Channel, ConnectOptions};
use shm_transport::error::ChannelError;

/// Answers quotes, and writes down its process id at the begin and how it ended.
const WORKER: &str = r#"
import os, pathlib, mycelium
from mycelium.messages import Quote, Side, Signal
place = pathlib.Path(__file__).parent
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    (place / f"{channel.name}.{channel.epoch}.pid").write_text(f"{os.getpid()}\n")
    for quote in channel:
        signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
    (place / f"{channel.name}.end").write_text("left the loop\n")
"#;

fn place() -> Place {
    Place::new()
        .listening()
        .worker("first", WORKER, "subscribe = [\"Quote\"]")
        .worker(
            "second",
            WORKER,
            "subscribe = [\"Quote\"]\ntransport = \"socket\"",
        )
}

fn pids(place: &Place) -> [u32; 2] {
    ["first", "second"].map(|name| {
        place
            .first_line(&format!("{name}.1.pid"))
            .parse()
            .expect("a process id")
    })
}

fn connect(place: &Place) -> Channel {
    let options = ConnectOptions::for_contracts(&CONTRACTS).named("client");
    Channel::connect(&place.address(), &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Two answers to a quote, one of each worker.
fn both_workers_answer(client: &mut Channel, sequence: u64) {
    client
        .publish(&quote(sequence), Some(WATCHDOG))
        .expect("publish");
    let mut workers = BTreeSet::new();
    for _ in 0..2 {
        let signal: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(signal.quote_sequence, sequence);
        workers.insert(signal.worker.as_str().expect("text").to_owned());
    }
    assert_eq!(workers, ["first", "second"].map(str::to_owned).into());
}

/// What lies in a directory for shared memory or temporary files.
fn entries(directory: &str) -> BTreeSet<std::ffi::OsString> {
    let listed = std::fs::read_dir(Path::new(directory))
        .map(|list| list.flatten().map(|entry| entry.file_name()).collect());
    listed.unwrap_or_default()
}

/// Memory files of a link that some process other than this one still has open.
fn holds_a_segment(pid: u32) -> bool {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else {
        return false;
    };
    maps.contains("mycelium-segment")
}

#[test]
fn a_killed_bridge_leaves_nothing_behind_and_the_next_one_starts() {
    let place = place();
    let before = entries("/dev/shm");
    let mut bridge = BridgeProcess::listening(&place, None);
    let workers = pids(&place);
    let mut client = connect(&place);
    assert_eq!(client.transport(), expected_transport());
    client.subscribe::<Signal>().expect("subscribe");
    both_workers_answer(&mut client, 1);
    if expected_transport() == shm_transport::channel::Transport::Shm {
        assert!(
            holds_a_segment(workers[0]),
            "the first worker has mapped its segment"
        );
    }

    bridge.signal(Sig::SIGKILL);
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&bridge.wait()),
        Some(9)
    );
    for pid in workers {
        wait_until("the end of an orphan", || has_ended(pid));
        assert!(!holds_a_segment(pid));
    }
    wait_until("the state of /dev/shm as before", || {
        entries("/dev/shm").is_subset(&before)
    });
    let lost = client.recv(Some(WATCHDOG)).expect_err("the bridge is gone");
    assert!(matches!(lost, ChannelError::PeerLost { .. }), "{lost}");
    drop(client);

    // The socket of the dead bridge is still there, and no obstacle.
    assert!(place.socket().exists());
    for name in ["first", "second"] {
        std::fs::remove_file(place.path().join(format!("{name}.1.pid")))
            .expect("remove the process id");
    }
    let mut bridge = BridgeProcess::listening(&place, None);
    let successors = pids(&place);
    assert!(workers.iter().all(|pid| !successors.contains(pid)));
    let mut client = connect(&place);
    client.subscribe::<Signal>().expect("subscribe");
    both_workers_answer(&mut client, 2);
    client.close().expect("close");
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
}

#[test]
fn a_client_that_polls_learns_of_the_killed_bridge_too() {
    let place = Place::new().listening();
    let bridge = BridgeProcess::listening(&place, None);
    let mut client = connect(&place);
    assert!(matches!(client.try_recv(), Ok(None)));
    bridge.signal(Sig::SIGKILL);
    let mut lost = None;
    wait_until("the word that the bridge is lost", || {
        lost = client.try_recv().err();
        lost.is_some()
    });
    assert!(
        matches!(lost, Some(ChannelError::PeerLost { .. })),
        "{lost:?}"
    );
}

#[test]
fn a_blocked_publisher_learns_of_the_killed_bridge_too() {
    for transport in ["auto", "socket"] {
        let place = Place::new()
            .listening()
            .bridge("ring_capacity = \"4KiB\"")
            .bridge(&format!("transport = {transport:?}"));
        let bridge = BridgeProcess::listening(&place, None);
        let reader_options = ConnectOptions::for_contracts(&CONTRACTS).named("reader");
        let mut reader = Channel::connect(&place.address(), &reader_options).expect("connect");
        reader.subscribe::<Quote>().expect("subscribe");
        let mut client = connect(&place);
        let publisher = std::thread::spawn(move || {
            (1..)
                .find_map(|sequence| client.publish(&quote(sequence), None).err())
                .expect("an error")
        });
        // The reader never reads, so the publisher comes to stand; whether it does so before the end does not matter.
        wait_until("frames in the ring of the reader", || {
            reader.try_recv().is_ok_and(|frame| frame.is_some())
        });
        bridge.signal(Sig::SIGKILL);
        let error = publisher.join().expect("the publisher");
        assert!(matches!(error, ChannelError::PeerLost { .. }), "{error}");
    }
}

#[test]
fn a_python_client_learns_that_the_bridge_was_killed() {
    let place = Place::new().listening();
    let bridge = BridgeProcess::listening(&place, None);
    let script = r#"
import os, signal, sys, mycelium
from mycelium.messages import Quote, Signal
bridge = int(sys.argv[2])
for transport in ("auto", "socket"):
    channel = mycelium.connect(sys.argv[1], transport=transport)
    channel.subscribe(Quote)
    if transport == "auto":
        other = channel
os.kill(bridge, signal.SIGKILL)
for channel in (other, channel):
    for receive in (lambda: channel.recv(timeout=50), lambda: next(iter(channel)), lambda: channel.recv(timeout=0)):
        try:
            receive()
        except mycelium.PeerLost as error:
            assert isinstance(error, ConnectionError) and "hung up without a shutdown" in str(error), error
        else:
            raise AssertionError("the bridge is not lost")
    try:
        channel.publisher(Signal)
    except mycelium.PeerLost:
        pass
    channel.close()
try:
    mycelium.connect(sys.argv[1])
except mycelium.PeerLost as error:
    # A process that is being ended closes its connections before or after its listening socket.
    assert "bridge.sock" in str(error) or "hung up during the handshake" in str(error), error
else:
    raise AssertionError("somebody listens")
print("done")
"#;
    run_python(script, &[&place.address(), &bridge.pid().to_string()]).assert_done();
}

#[test]
fn a_terminated_bridge_lets_everybody_leave() {
    for signal in [Sig::SIGTERM, Sig::SIGINT] {
        let place = place();
        let mut bridge = BridgeProcess::listening(&place, None);
        let workers = pids(&place);
        bridge.signal(signal);
        assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
        for name in ["first", "second"] {
            assert_eq!(place.lines(&format!("{name}.end")), ["left the loop"]);
            let log = bridge.log();
            let goodbye = |line: &&str| line.contains("said goodbye") && line.contains(name);
            assert!(log.lines().any(|line| goodbye(&line)), "{log}");
        }
        assert!(workers.into_iter().all(has_ended));
        assert!(!place.socket().exists(), "the socket is removed");
        bridge.wait_for_log(&[
            "bridge stopped",
            signal.as_str(),
            "drained=2, terminated=0, killed=0",
        ]);
    }
}

#[test]
fn a_second_bridge_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let place = place();
    let first = BridgeProcess::listening(&place, None);
    pids(&place);
    let other = Place::new().bridge(&format!("listen = {:?}", place.socket()));
    let mut second = BridgeProcess::start(&other, None);
    assert_eq!(second.wait().code(), Some(1));
    let log = second.log();
    assert!(
        log.contains("error:") && log.contains("bridge.sock") && log.contains("hint:"),
        "{log}"
    );
    let mut client = connect(&place);
    client.subscribe::<Signal>().expect("subscribe");
    both_workers_answer(&mut client, 1);
    drop(first);
}

#[test]
fn what_workers_have_started_ends_with_a_killed_bridge_too() {
    let script = r#"
import os, pathlib, subprocess, mycelium
place = pathlib.Path(__file__).parent
with mycelium.connect() as channel:
    for name, session in (("child", False), ("daemon", True)):
        process = subprocess.Popen(["sleep", "1000"], start_new_session=session)
        (place / f"{name}.pid").write_text(f"{process.pid}\n")
    for _ in channel:
        pass
"#;
    let place = Place::new().worker("parent", script, "");
    let mut bridge = BridgeProcess::start(&place, None);
    let pids = ["child.pid", "daemon.pid"]
        .map(|file| -> u32 { place.first_line(file).parse().expect("a process id") });
    assert!(!pids.into_iter().any(has_ended));
    bridge.signal(Sig::SIGKILL);
    let _ = bridge.wait();
    for pid in pids {
        wait_until("the end of a descendant", || has_ended(pid));
    }
    wait_until("the word of the guard", || {
        bridge
            .log()
            .contains("descendants of its workers were ended: count=")
    });
}
