//! A segment between two real processes: frames of all lengths both ways, with both sides sleeping, and with the second
//! process killed in the middle of its work.
//!
//! The second process is this very test binary, started again for the one test [`the_other_process`], which finds its
//! orders in the environment.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fastrand::Rng;
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::error::{AttachError, ReserveError};
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{Consumer, Fencing, Frame, Producer};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy, membarrier_is_available};

const RING_CAPACITY: usize = 8192;
const TOPIC: u16 = 1001;
/// The frame that ends the second process.
const END_TOPIC: u16 = 1002;
const ORDERS: &str = "TWO_PROCESSES_ORDERS";

/// Both sides' time for a whole test; what hangs fails.
const WATCHDOG: Duration = Duration::from_secs(120);

/// The payload of frame `number`: the number, then bytes that follow from it. A torn frame does not match.
fn payload(number: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(number);
    let len_max = match random.u8(..16) {
        0 => RING_CAPACITY / 4 - 16,
        1..=3 => 256,
        _ => 48,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + random.usize(..len_max), 0);
    random.fill(&mut bytes[8..]);
    bytes
}

fn number_of(frame: &Frame<'_>) -> u64 {
    let bytes = frame.to_vec();
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert!(
        bytes == payload(number),
        "frame is torn: number={number} len={}",
        bytes.len()
    );
    number
}

/// One side of the link with its watchdog.
struct Side {
    ends: LinkEnds,
    spin: SpinBudget,
    deadline: Instant,
}

impl Side {
    fn new(ends: LinkEnds, wait: WaitStrategy) -> Self {
        let (spin, deadline) = (SpinBudget::new(wait), Instant::now() + WATCHDOG);
        Self {
            ends,
            spin,
            deadline,
        }
    }

    fn wait(&mut self, what: WaitFor) {
        let waited = self
            .ends
            .wait(&mut self.spin, what, Some(self.deadline), None);
        assert_eq!(waited.expect("sound link"), Waited::Ready, "{what:?}");
    }

    /// Publishes if there is room.
    fn try_send(&mut self, topic_id: u16, bytes: &[u8]) -> bool {
        match self.ends.try_publish(&Frame::new(topic_id, bytes)) {
            Ok(()) => true,
            Err(ReserveError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, topic_id: u16, bytes: &[u8]) {
        while !self.try_send(topic_id, bytes) {
            self.wait(WaitFor::Room {
                payload_len: bytes.len(),
            });
        }
    }

    /// The number of the oldest frame, which stays unacknowledged; `None` for the frame that ends it all.
    fn look(&mut self) -> Option<u64> {
        self.wait(WaitFor::Frame);
        let frame = self
            .ends
            .peek()
            .expect("sound ring")
            .expect("a frame was there");
        (frame.topic_id() == TOPIC).then(|| number_of(&frame))
    }

    fn receive(&mut self) -> Option<u64> {
        let number = self.look();
        self.ends.advance();
        number
    }
}

/// What the first process keeps of a link, and hands to one second process after the other.
struct Link {
    segment: Segment,
    bridge_doorbell: Doorbell,
    peer_doorbell: Doorbell,
    fencing: Fencing,
}

impl Link {
    fn new(fencing: Fencing) -> Self {
        let options = SegmentOptions::new(RING_CAPACITY);
        Self {
            segment: Segment::create(&options).expect("segment"),
            bridge_doorbell: Doorbell::new().expect("doorbell"),
            peer_doorbell: Doorbell::new().expect("doorbell"),
            fencing,
        }
    }

    fn bridge_side(&self, wait: WaitStrategy) -> Side {
        let ends = LinkEnds::attach(
            self.segment.ring(RING_TO_BRIDGE),
            self.segment.ring(RING_TO_PEER),
            self.bridge_doorbell.try_clone().expect("dup"),
            self.peer_doorbell.try_clone().expect("dup"),
            self.fencing,
        );
        Side::new(ends.expect("sound segment"), wait)
    }

    fn start(&self, role: &str) -> Child {
        // `dup` makes descriptors that survive `exec`. Ours are closed again once the process runs.
        let dup = |fd: BorrowedFd<'_>| nix::unistd::dup(fd).expect("dup");
        let fds = [
            dup(self.segment.fd()),
            dup(self.peer_doorbell.as_fd()),
            dup(self.bridge_doorbell.as_fd()),
        ];
        let [segment, own, peer] = fds.each_ref().map(AsRawFd::as_raw_fd);
        let fencing = match self.fencing {
            Fencing::Asymmetric => "asymmetric",
            Fencing::Fenced => "fenced",
        };
        Command::new(std::env::current_exe().expect("path of the test binary"))
            .args(["--exact", "the_other_process", "--quiet"])
            .env(ORDERS, format!("{role} {fencing} {segment} {own} {peer}"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("second process")
    }
}

#[test]
fn the_other_process() {
    let Ok(orders) = std::env::var(ORDERS) else {
        // Nobody has started this as a second process: there is nothing to do.
        assert_eq!(
            number_of(&Frame::new(TOPIC, &payload(7))),
            7,
            "payloads carry their number"
        );
        return;
    };
    let words: Vec<&str> = orders.split(' ').collect();
    let fd = |word: &str| {
        // SAFETY: the process that started this one left open descriptors under these numbers, for this test alone.
        unsafe { OwnedFd::from_raw_fd(word.parse().expect("a descriptor")) }
    };
    let fencing = match words[1] {
        "asymmetric" => {
            assert!(
                membarrier_is_available(),
                "the first process had membarrier"
            );
            Fencing::Asymmetric
        }
        _ => Fencing::Fenced,
    };
    let segment = Segment::open(fd(words[2])).expect("sound segment");
    let ends = LinkEnds::attach(
        segment.ring(RING_TO_PEER),
        segment.ring(RING_TO_BRIDGE),
        Doorbell::from_fd(fd(words[3])),
        Doorbell::from_fd(fd(words[4])),
        fencing,
    );
    let ends = ends.expect("sound segment");
    match words[0] {
        "sleepy" => echo(Side::new(ends, WaitStrategy::Park)),
        "counting" => count(Side::new(ends, WaitStrategy::Park)),
        _ => echo(Side::new(ends, WaitStrategy::Hybrid { spin_us: 100 })),
    }
}

/// Sends back every frame before it acknowledges it, so that a successor repeats what is not acknowledged.
fn echo(mut side: Side) {
    while let Some(number) = side.look() {
        side.send(TOPIC, &payload(number));
        side.ends.advance();
    }
    side.ends.advance();
    side.ends.publish_head();
}

/// Takes everything and answers at the end, with how much it was.
fn count(mut side: Side) {
    let mut expected = 0;
    while let Some(number) = side.receive() {
        assert_eq!(number, expected, "order");
        expected += 1;
    }
    side.send(TOPIC, &payload(expected));
}

/// Bursts that overflow the rings, so that either side sleeps for frames and the second one also for room.
fn exchange(fencing: Fencing) {
    const FRAMES: u64 = 50_000;
    let link = Link::new(fencing);
    let mut child = link.start("sleepy");
    let mut side = link.bridge_side(WaitStrategy::Park);
    let (mut sent, mut received, mut fulls) = (0, 0, 0_u64);
    while received < FRAMES {
        let burst = (sent + 1 + sent * 31 % 97).min(FRAMES);
        while sent < burst {
            if side.try_send(TOPIC, &payload(sent)) {
                sent += 1;
            } else {
                // The other process may itself be waiting for room: take what it sent.
                fulls += 1;
                break;
            }
        }
        let keep = if sent == FRAMES { 0 } else { sent % 7 };
        loop {
            assert_eq!(side.receive(), Some(received), "order");
            received += 1;
            if sent - received <= keep {
                break;
            }
        }
    }
    side.send(END_TOPIC, &[]);
    assert!(child.wait().expect("wait").success(), "second process");
    assert_eq!((sent, received), (FRAMES, FRAMES));
    assert!(
        side.ends.parks() > 0 && side.ends.wakeups_sent() > 0 && fulls > 0,
        "nobody slept: parks={} wakeups_sent={} fulls={fulls}",
        side.ends.parks(),
        side.ends.wakeups_sent()
    );
}

#[test]
fn two_processes_exchange_frames_in_asymmetric_mode() {
    // Without membarrier there is no such mode.
    if membarrier_is_available() {
        exchange(Fencing::Asymmetric);
    }
}

#[test]
fn two_processes_exchange_frames_in_fenced_mode() {
    exchange(Fencing::Fenced);
}

/// The end of a ring that another process has is refused, and free again once that process is killed.
#[test]
fn an_end_belongs_to_one_process_until_it_ends() {
    let link = Link::new(Fencing::Fenced);
    let mut child = link.start("sleepy");
    let mut side = link.bridge_side(WaitStrategy::Park);
    side.send(TOPIC, &payload(1));
    assert_eq!(side.receive(), Some(1), "the second process is attached");
    // As a third process that has been given the same descriptor.
    let third = Segment::open(link.segment.fd().try_clone_to_owned().expect("dup")).expect("sound");
    assert_eq!(
        Producer::attach(third.ring(RING_TO_BRIDGE)).expect_err("taken"),
        AttachError::TakenElsewhere { end: "producer" }
    );
    assert_eq!(
        Consumer::attach(third.ring(RING_TO_BRIDGE)).expect_err("taken"),
        AttachError::TakenElsewhere { end: "consumer" }
    );
    child.kill().expect("SIGKILL");
    child.wait().expect("wait");
    let producer = Producer::attach(third.ring(RING_TO_BRIDGE)).expect("free");
    assert_eq!(producer.capacity(), RING_CAPACITY);
    Consumer::attach(third.ring(RING_TO_PEER)).expect("free");
    Consumer::attach(third.ring(RING_TO_BRIDGE)).expect_err("ours, as before");
}

/// One way only, so that the producer of the first process sleeps for room.
#[test]
fn a_producer_that_sleeps_for_room_is_woken_by_the_other_process() {
    const FRAMES: u64 = 20_000;
    for fencing in [Fencing::Asymmetric, Fencing::Fenced] {
        if fencing == Fencing::Asymmetric && !membarrier_is_available() {
            continue;
        }
        let link = Link::new(fencing);
        let mut child = link.start("counting");
        let mut side = link.bridge_side(WaitStrategy::Park);
        for number in 0..FRAMES {
            side.send(TOPIC, &payload(number));
        }
        assert!(side.ends.parks() > 0, "{fencing:?}: never slept for room");
        side.send(END_TOPIC, &[]);
        assert_eq!(side.receive(), Some(FRAMES), "{fencing:?}");
        assert!(child.wait().expect("wait").success(), "second process");
    }
}

/// The second process is killed again and again at whatever instruction it is at; its successor goes on with the same
/// segment. Every frame comes back, whole and in order, some of them twice.
fn kill_and_resume(fencing: Fencing) {
    const KILLS: u64 = 25;
    /// Most frames that a successor may repeat: what fits into the lag of head, and the one in hand.
    const REPEATED_MAX: u64 = (RING_CAPACITY / 8 / 16) as u64 + 1;
    let link = Link::new(fencing);
    let mut side = link.bridge_side(WaitStrategy::Hybrid { spin_us: 50 });
    let (mut sent, mut expected, mut random) = (0_u64, 0_u64, Rng::with_seed(1));
    let note = |number: u64, is_first: bool, expected: &mut u64| {
        if is_first && number < *expected {
            assert!(
                *expected - number <= REPEATED_MAX,
                "number={number} expected={expected}"
            );
        } else {
            assert_eq!(number, *expected, "a frame was lost or came twice");
        }
        *expected = number + 1;
    };
    for round in 0..=KILLS {
        let mut child = link.start("awake");
        let goal = expected + 50 + random.u64(..3000);
        let mut is_first = true;
        let mut ending = false;
        while expected < goal || round == KILLS && expected < sent {
            while !ending && sent < goal + 500 && side.try_send(TOPIC, &payload(sent)) {
                sent += 1;
            }
            let number = side.receive().expect("no end was sent");
            note(number, is_first, &mut expected);
            is_first = false;
            ending = round == KILLS && expected >= goal;
        }
        if round == KILLS {
            side.send(END_TOPIC, &[]);
            assert!(child.wait().expect("wait").success(), "last successor");
            break;
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("wait");
        // What the dead process committed still counts.
        while let Some(frame) = side.ends.peek().expect("sound ring") {
            let number = number_of(&frame);
            note(number, is_first, &mut expected);
            is_first = false;
            side.ends.advance();
        }
    }
    assert_eq!(expected, sent, "nothing is lost");
    assert!(
        side.ends.peek().expect("sound ring").is_none(),
        "nothing is left over"
    );
}

#[test]
fn a_killed_process_leaves_whole_frames_and_its_successor_resumes_in_asymmetric_mode() {
    // Without membarrier there is no such mode.
    if membarrier_is_available() {
        kill_and_resume(Fencing::Asymmetric);
    }
}

#[test]
fn a_killed_process_leaves_whole_frames_and_its_successor_resumes_in_fenced_mode() {
    kill_and_resume(Fencing::Fenced);
}
