//! Workers that die: what they had not acknowledged goes to their successor, in order, and nothing is lost.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::Signal;
use mycelium_tests::{
    Place, expect, expected_transport, has_ended, publish, quote, subscribe, wait_for, wait_until,
};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use shm_transport::channel::Transport;

/// Answers every quote with a signal that names the epoch of the link and the process.
const ECHO: &str = r#"
import os, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        with signals.reserve() as signal:
            signal.worker = f"{channel.epoch}:{os.getpid()}"
            signal.quote_sequence = quote.sequence
            signal.side = Side.HOLD
"#;

const OVER_ANY: &str = "";
const OVER_SOCKET: &str = "transport = \"socket\"\n";

/// A worker that starts again at once, whatever becomes of it.
fn lines(transport: &str) -> String {
    format!(
        "subscribe = [\"Quote\"]\nrestart_backoff_ms = 1\nrestart_backoff_max_ms = 20\n{transport}"
    )
}

fn expected(transport: &str) -> Transport {
    if transport == OVER_SOCKET {
        Transport::Socket
    } else {
        expected_transport()
    }
}

fn start(script: &str, lines: &str) -> (Place, Bridge, LocalChannel) {
    let place = Place::new().worker("echo", script, lines);
    let bridge = place.start();
    let actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    (place, bridge, actor)
}

/// Epoch and process in a signal's text.
fn sender(signal: &Signal) -> (u64, u32) {
    let text = signal.worker.as_str().expect("text");
    let (epoch, pid) = text.split_once(':').expect("epoch and process");
    (
        epoch.parse().expect("a number"),
        pid.parse().expect("a number"),
    )
}

fn sigkill(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Sig::SIGKILL).expect("the worker is there");
}

/// Follows the answers: each process goes on without gaps, and a successor starts at or before the next one due.
#[derive(Default)]
struct Follower {
    answered: u64,
    last: Option<(u64, u64)>,
    epochs: u64,
    repeated: u64,
}

impl Follower {
    /// Takes the next answer in and returns the process that gave it.
    fn take(&mut self, actor: &mut LocalChannel) -> u32 {
        let signal: Signal = expect(actor);
        let (epoch, pid) = sender(&signal);
        let sequence = signal.quote_sequence;
        match self.last {
            Some((last_epoch, last)) if last_epoch == epoch => {
                assert_eq!(sequence, last + 1, "order in epoch {epoch}")
            }
            Some((last_epoch, _)) => {
                assert!(epoch > last_epoch, "epoch {epoch} after {last_epoch}");
                assert!(
                    sequence <= self.answered + 1,
                    "lost: {} up to {sequence}",
                    self.answered + 1
                );
                self.epochs += 1;
            }
            None => assert_eq!(sequence, 1),
        }
        self.last = Some((epoch, sequence));
        self.repeated += u64::from(sequence <= self.answered);
        self.answered = self.answered.max(sequence);
        pid
    }
}

/// Streams quotes and kills the worker `kills` times on the way.
fn a_stream_survives_kills(transport: &str, kills: u64) {
    const BETWEEN: u64 = 4_000;
    const IN_FLIGHT: u64 = 700;
    // A head lags by up to an eighth of this, which is less than what is in flight.
    let lines = format!("ring_capacity = \"64KiB\"\n{}", lines(transport));
    let (_place, bridge, mut actor) = start(ECHO, &lines);
    let mut follower = Follower::default();
    let mut sent = 0;
    for round in 1..=kills + 1 {
        let goal = round * BETWEEN;
        let mut pid = 0;
        while follower.answered < goal - IN_FLIGHT {
            while sent < goal && sent < follower.answered + IN_FLIGHT {
                sent += 1;
                publish(&mut actor, &quote(sent));
            }
            pid = follower.take(&mut actor);
        }
        if round <= kills {
            assert!(sent > follower.answered, "killed in mid-stream");
            sigkill(pid);
        }
    }
    while follower.answered < (kills + 1) * BETWEEN {
        if sent < (kills + 1) * BETWEEN {
            sent += 1;
            publish(&mut actor, &quote(sent));
        }
        follower.take(&mut actor);
    }
    assert_eq!(follower.epochs, kills, "every successor answered something");
    assert!(
        follower.repeated <= kills * IN_FLIGHT,
        "repeated: {}",
        follower.repeated
    );
    let status = bridge.link("echo").expect("the worker's link");
    assert_eq!(
        (status.epoch, status.transport),
        (kills + 1, Some(expected(transport)))
    );
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_successor_resumes_a_stream_and_nothing_is_lost() {
    a_stream_survives_kills(OVER_ANY, 1);
}

#[test]
fn a_successor_resumes_a_stream_over_the_socket_and_nothing_is_lost() {
    a_stream_survives_kills(OVER_SOCKET, 1);
}

#[test]
fn five_kills_in_a_row_lose_nothing() {
    a_stream_survives_kills(OVER_ANY, 5);
}

#[test]
fn five_kills_in_a_row_lose_nothing_over_the_socket() {
    a_stream_survives_kills(OVER_SOCKET, 5);
}

fn a_worker_killed_in_a_reservation_leaves_no_trace_of_it(transport: &str) {
    let script = r#"
import os, signal as signals_of_the_system, mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        with signals.reserve() as signal:
            signal.worker = f"{channel.epoch}:{os.getpid()}"
            signal.quote_sequence = quote.sequence + (1000 if channel.epoch == 1 and quote.sequence == 3 else 0)
            signal.side = Side.HOLD
            if signal.quote_sequence > 1000:
                os.kill(os.getpid(), signals_of_the_system.SIGKILL)
"#;
    let (_place, bridge, mut actor) = start(script, &lines(transport));
    for sequence in 1..=10 {
        publish(&mut actor, &quote(sequence));
    }
    let mut follower = Follower::default();
    while follower.answered < 10 {
        follower.take(&mut actor);
    }
    assert_eq!((follower.epochs, follower.last), (1, Some((2, 10))));
    let link = bridge.link("echo").expect("the worker's link");
    assert_eq!((link.epoch, link.transport), (2, Some(expected(transport))));
    let counters = bridge.snapshot().expect("counters").links;
    let counters = counters
        .iter()
        .find(|(id, _)| *id == link.link)
        .expect("the worker's counters")
        .1;
    assert_eq!(
        (counters.frames_in, counters.dropped),
        (10 + follower.repeated, 0)
    );
}

#[test]
fn a_worker_killed_in_a_reservation_leaves_no_trace_of_it_in_the_ring() {
    a_worker_killed_in_a_reservation_leaves_no_trace_of_it(OVER_ANY);
}

#[test]
fn a_worker_killed_in_a_reservation_leaves_no_trace_of_it_on_the_socket() {
    a_worker_killed_in_a_reservation_leaves_no_trace_of_it(OVER_SOCKET);
}

/// The state letter of a process.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn a_worker_killed_in_its_sleep_is_replaced(transport: &str) {
    let (_place, bridge, mut actor) = start(ECHO, &format!("spin_us = 0\n{}", lines(transport)));
    publish(&mut actor, &quote(1));
    let mut follower = Follower::default();
    for sequence in 2..=6 {
        let pid = follower.take(&mut actor);
        wait_until("a worker that sleeps", || state(pid) == Some('S'));
        sigkill(pid);
        // Published to nobody: the doorbell of the dead worker is rung, or not.
        publish(&mut actor, &quote(sequence));
        while follower.answered < sequence - 1 {
            follower.take(&mut actor);
        }
        wait_until("the end of the worker", || has_ended(pid));
    }
    while follower.answered < 6 {
        follower.take(&mut actor);
    }
    assert_eq!(follower.epochs, 5);
    assert_eq!(bridge.link("echo").expect("the worker's link").epoch, 6);
}

#[test]
fn a_worker_killed_in_its_sleep_is_replaced_and_its_successor_woken() {
    a_worker_killed_in_its_sleep_is_replaced(OVER_ANY);
}

#[test]
fn a_worker_killed_in_its_sleep_on_the_socket_is_replaced_and_its_successor_woken() {
    a_worker_killed_in_its_sleep_is_replaced(OVER_SOCKET);
}

fn a_worker_that_dies_before_it_attaches(transport: &str, before: &str) {
    let script = format!(
        r#"
import os, pathlib
marker = pathlib.Path(__file__).with_name("tried")
if not marker.exists():
    marker.write_text("once\n")
{before}
    os._exit(3)
{ECHO}"#
    );
    let (_place, bridge, mut actor) = start(&script, &lines(transport));
    publish(&mut actor, &quote(1));
    publish(&mut actor, &quote(2));
    let mut follower = Follower::default();
    while follower.answered < 2 {
        follower.take(&mut actor);
    }
    assert_eq!(follower.last, Some((2, 2)));
    assert_eq!(follower.repeated, 0);
    let link = bridge.link("echo").expect("the worker's link");
    assert_eq!((link.epoch, link.transport), (2, Some(expected(transport))));
}

#[test]
fn a_worker_that_dies_before_it_says_hello_takes_nothing_with_it() {
    a_worker_that_dies_before_it_attaches(OVER_ANY, "");
    a_worker_that_dies_before_it_attaches(OVER_SOCKET, "");
}

#[test]
fn a_worker_that_dies_in_the_middle_of_the_handshake_takes_nothing_with_it() {
    let hello = r#"
    import socket
    from mycelium._handshake import Handshake
    hello = Handshake(name="echo", token="", transport="auto", schema_digest=bytes(32), membarrier=True, fd_passing=True).hello()
    connection = socket.socket(fileno=int(os.environ["MYCELIUM_FD"]))
    connection.send(hello)
    connection.recv(1)
"#;
    a_worker_that_dies_before_it_attaches(OVER_ANY, hello);
    a_worker_that_dies_before_it_attaches(OVER_SOCKET, hello);
}

fn what_a_worker_published_before_its_death_is_delivered(transport: &str) {
    let script = r#"
import os, signal as signals_of_the_system, mycelium
from mycelium.messages import Quote, Side, Signal
channel = mycelium.connect()
signals = channel.publisher(Signal)
channel.recv()
for number in range(1, 501):
    signals.send(Signal(worker=f"{channel.epoch}:{os.getpid()}", quote_sequence=number, side=Side.HOLD))
os.kill(os.getpid(), signals_of_the_system.SIGKILL)
"#;
    let (_place, bridge, mut actor) = start(
        script,
        &format!("restart = \"never\"\n{}", lines(transport)),
    );
    publish(&mut actor, &quote(1));
    let mut follower = Follower::default();
    while follower.answered < 500 {
        follower.take(&mut actor);
    }
    assert_eq!(follower.repeated, 0);
    wait_until("the end of the link", || bridge.link("echo").is_none());
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.exit_code(), summary.failed),
        (1, vec!["echo".to_owned()])
    );
}

/// The tail is stored after the commit, so a worker can die between the two, and the bridge may take and release the
/// record before the successor comes.
#[test]
fn a_worker_killed_between_a_commit_and_its_tail_is_replaced_on_the_same_transport() {
    let script = r#"
import os, signal as signals_of_the_system, time, mycelium
from mycelium import _layout as layout
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=f"{channel.epoch}:{os.getpid()}", quote_sequence=quote.sequence, side=Side.HOLD))
        if channel.epoch == 1:
            producer = channel._link.producer
            if channel.transport == "shm":
                committed = producer.words[producer.tail_word]
                head = producer.tail_word + (layout.RING_HEAD_OFFSET - layout.RING_TAIL_OFFSET) // 8
                while producer.words[head] != committed:
                    time.sleep(0.001)
                producer.words[producer.tail_word] = 0
            os.kill(os.getpid(), signals_of_the_system.SIGKILL)
"#;
    let (_place, bridge, mut actor) = start(script, &lines(OVER_ANY));
    let mut follower = Follower::default();
    for sequence in 1..=100 {
        publish(&mut actor, &quote(sequence));
        while follower.answered < sequence {
            follower.take(&mut actor);
        }
    }
    assert_eq!(follower.last, Some((2, 100)));
    let link = bridge.link("echo").expect("the worker's link");
    assert_eq!(
        (link.epoch, link.transport),
        (2, Some(expected_transport()))
    );
}

#[test]
fn what_a_worker_published_before_its_death_is_delivered_from_the_ring() {
    what_a_worker_published_before_its_death_is_delivered(OVER_ANY);
}

#[test]
fn what_a_worker_published_before_its_death_is_delivered_from_the_socket() {
    what_a_worker_published_before_its_death_is_delivered(OVER_SOCKET);
}

#[test]
fn a_worker_that_always_fails_is_given_up_and_its_publisher_goes_on() {
    let lines = format!(
        "ring_capacity = \"4KiB\"\nrestart_limit = 3\n{}",
        lines(OVER_ANY)
    );
    let (_place, bridge, mut actor) = start("raise SystemExit(5)", &lines);
    // More than the worker's ring takes: the publisher waits until the worker is given up, and no longer.
    for sequence in 1..=200 {
        publish(&mut actor, &quote(sequence));
    }
    wait_until("the end of the link", || bridge.link("echo").is_none());
    wait_for("everything taken from the publisher", || {
        let links = bridge.snapshot().expect("counters").links;
        links
            .iter()
            .find(|(id, counters)| *id == actor.link() && counters.frames_in == 200)
            .map(drop)
    });
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.exit_code(), summary.failed),
        (1, vec!["echo".to_owned()])
    );
}
