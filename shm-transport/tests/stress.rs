//! Two processes over one segment, each of them killed again and again while frames flow both ways.
//!
//! Every frame says where in the stream of its ring it begins, and its length and bytes follow from that. So each side can
//! check each frame with nothing but its own position, also after a predecessor was killed: a frame that is lost, torn,
//! repeated or out of order does not match. The sides send alone, shrunk and in batches, read alone and in batches, spin or
//! sleep, all at random. A wakeup that is lost is a sleep without end, which the watchdog reports.
//!
//! The processes are this test binary, started again for [`a_side`] with its orders in the environment. `make stress` runs
//! the same for `STRESS_SECONDS`.

use std::io::{BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_transport::error::{BatchError, ReserveError};
use shm_transport::frame::{FrameHeader, record_len};
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{BatchLimit, Consumer, Fencing, Producer};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::{Doorbell, heavy_fence, membarrier_is_available};

const CAPACITY: usize = 8192;
const PAYLOAD_MAX: usize = CAPACITY / 4 - 8;
const TOPIC: u16 = 1001;
const ORDERS: &str = "STRESS_ORDERS";
/// Bytes that each side sends in a round of the short form.
const GOAL: u64 = 4 << 20;
const KILLS: u64 = 16;
/// Turns of a side between two ticks on its standard output.
const TURNS_PER_TICK: u64 = 16;
/// Longest silence of both sides; what hangs fails.
const WATCHDOG: Duration = Duration::from_secs(120);

/// The payload of the frame that begins at `position`.
fn payload(position: u64, buffer: &mut Vec<u8>) {
    let mut random = Rng::with_seed(position);
    let len = match random.u64(..32) {
        0 => PAYLOAD_MAX as u64,
        1 => random.u64(..PAYLOAD_MAX as u64),
        2..=8 => random.u64(..400),
        _ => random.u64(..64),
    };
    buffer.clear();
    buffer.extend_from_slice(&position.to_le_bytes());
    buffer.resize((len as usize).max(8), 0);
    random.fill(&mut buffer[8..]);
}

/// One side of the link, of whatever generation.
struct Side {
    consumer: Consumer,
    producer: Producer,
    own: Doorbell,
    peer: Doorbell,
    random: Rng,
    goal: u64,
    expected: Vec<u8>,
}

impl Side {
    fn notify(&self) {
        // A doorbell that cannot be rung belongs to a side that is gone.
        let _ = self.peer.notify();
    }

    fn check(&mut self, position: u64, bytes: &[u8]) {
        payload(position, &mut self.expected);
        assert!(
            bytes == self.expected,
            "frame does not belong here: position={position} len={} expected_len={}",
            bytes.len(),
            self.expected.len()
        );
    }

    /// Reads one frame after the other; says whether there was one.
    fn read_alone(&mut self) -> bool {
        let mut read = false;
        for _ in 0..=self.random.u64(..20) {
            let position = self.consumer.position();
            let Some(guard) = self.consumer.try_read().expect("sound ring") else {
                break;
            };
            let bytes = guard.frame().to_vec();
            guard.release();
            self.check(position, &bytes);
            read = true;
        }
        read
    }

    /// Reads a run of frames; says whether there was one.
    fn read_batch(&mut self) -> bool {
        let limit = BatchLimit {
            bytes: self.random.u64(..CAPACITY as u64) as usize,
            frames: 1 + self.random.u64(..40) as usize,
        };
        let mut position = self.consumer.position();
        let mut frames = Vec::new();
        let Some(batch) = self.consumer.read_batch(limit).expect("sound ring") else {
            return false;
        };
        for frame in batch.iter() {
            let bytes = frame.expect("sound ring").to_vec();
            let len = record_len(bytes.len()) as u64;
            frames.push((position, bytes));
            // Records do not wrap: what does not fit before the end of the data area starts behind it.
            let room = CAPACITY as u64 - position % CAPACITY as u64;
            position += if len > room { room + len } else { len };
        }
        batch.release();
        assert_eq!(self.consumer.position(), position);
        for (position, bytes) in frames {
            self.check(position, &bytes);
        }
        true
    }

    fn read(&mut self) -> bool {
        let read = if self.random.u64(..2) == 0 {
            self.read_batch()
        } else {
            self.read_alone()
        };
        if self.consumer.wakeup_due() {
            self.notify();
        }
        read
    }

    /// Sends one frame after the other; says whether there was room for one.
    fn send_alone(&mut self) -> bool {
        let mut sent = false;
        for _ in 0..=self.random.u64(..20) {
            let position = self.producer.position();
            if position >= self.goal {
                break;
            }
            payload(position, &mut self.expected);
            let spare = self.random.u64(..2) as usize * self.random.u64(..200) as usize;
            let reserved = (self.expected.len() + spare).min(PAYLOAD_MAX);
            match self
                .producer
                .try_reserve(FrameHeader::new(TOPIC, reserved as u32))
            {
                Ok(mut reservation) => {
                    reservation.write_all(&self.expected).expect("reserved");
                    // A longer reservation may be padded where the frame itself would have fitted; the reader cannot
                    // tell, so such a one is given back.
                    let room = CAPACITY - position as usize % CAPACITY;
                    let fits = |len| record_len(len) <= room;
                    if fits(reserved) || !fits(self.expected.len()) {
                        reservation.commit_written();
                        sent = true;
                    }
                }
                Err(ReserveError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        sent
    }

    /// Sends a batch; says whether there was room for a frame. Now and then the batch is given up.
    fn send_batch(&mut self) -> bool {
        let give_up = self.random.u64(..16) == 0;
        let frames = self.random.u64(..40);
        let start = self.producer.position();
        let mut batch = self.producer.batch();
        for _ in 0..=frames {
            let position = start + batch.batch_len() as u64;
            if position >= self.goal {
                break;
            }
            payload(position, &mut self.expected);
            let header = FrameHeader::new(TOPIC, self.expected.len() as u32);
            match batch.try_push(header, &self.expected) {
                Ok(()) => {}
                Err(
                    BatchError::Reserve(ReserveError::Full { .. }) | BatchError::TooLong { .. },
                ) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if give_up {
            batch.abort();
        } else {
            batch.commit();
        }
        self.producer.position() > start
    }

    fn send(&mut self) -> bool {
        let sent = if self.random.u64(..2) == 0 {
            self.send_batch()
        } else {
            self.send_alone()
        };
        if self.producer.wakeup_due() {
            self.notify();
        }
        sent
    }

    fn has_sent_all(&self) -> bool {
        self.producer.position() >= self.goal
    }

    fn is_done(&self) -> bool {
        self.has_sent_all() && self.consumer.position() >= self.goal
    }

    fn can_go_on(&mut self) -> bool {
        let has_room =
            !self.has_sent_all() && self.producer.has_room(PAYLOAD_MAX).expect("sound ring");
        has_room || !self.consumer.is_empty()
    }

    /// Sleeps until the doorbell rings, for ever if need be.
    fn park(&mut self) {
        self.consumer.arm();
        if !self.has_sent_all() {
            self.producer.arm_room();
        }
        if self.consumer.wakeup_due() {
            self.notify();
        }
        heavy_fence();
        if !self.can_go_on() {
            let mut fds = [PollFd::new(self.own.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).expect("poll");
        }
        self.consumer.disarm();
        self.producer.disarm_room();
        self.own.drain().expect("doorbell");
    }

    /// Works until both rings have carried as much as was wanted.
    fn run(mut self) {
        // The predecessor may have died between clearing a flag and ringing.
        self.notify();
        let mut turn = 0_u64;
        while !self.is_done() {
            let moved = match self.random.u64(..3) {
                0 => self.read(),
                1 => self.send(),
                _ => self.read() | self.send(),
            };
            if !moved && !self.can_go_on() {
                for _ in 0..self.random.u64(..2) * self.random.u64(..20_000) {
                    std::hint::spin_loop();
                }
                self.park();
            }
            turn += 1;
            if turn.is_multiple_of(TURNS_PER_TICK) {
                std::io::stdout().write_all(b".").expect("a pipe");
                std::io::stdout().flush().expect("a pipe");
            }
        }
        self.consumer.publish_head();
        self.notify();
    }
}

/// What the supervising process keeps, and gives to each side.
struct Link {
    segment: Segment,
    bridge: Doorbell,
    peer: [Doorbell; 2],
    fencing: Fencing,
    goal: u64,
}

impl Link {
    fn new(fencing: Fencing, goal: u64) -> Self {
        let options = SegmentOptions::new(CAPACITY);
        Self {
            segment: Segment::create(&options).expect("segment"),
            bridge: Doorbell::new().expect("doorbell"),
            peer: Doorbell::pair().expect("doorbell").into(),
            fencing,
            goal,
        }
    }

    fn start(&self, number: usize, seed: u64) -> Child {
        let (own, peer) = if number == 0 {
            (&self.bridge, &self.peer[0])
        } else {
            (&self.peer[1], &self.bridge)
        };
        // `dup` makes descriptors that survive `exec`. Ours are closed again once the process runs.
        let dup = |fd: BorrowedFd<'_>| nix::unistd::dup(fd).expect("dup");
        let fds = [dup(self.segment.fd()), dup(own.as_fd()), dup(peer.as_fd())];
        let [segment, own, peer] = fds.each_ref().map(AsRawFd::as_raw_fd);
        let (fencing, goal) = (u8::from(self.fencing == Fencing::Asymmetric), self.goal);
        let child = Command::new(std::env::current_exe().expect("path of the test binary"))
            .args(["--exact", "a_side", "--nocapture"])
            .env(
                ORDERS,
                format!("{number} {fencing} {seed} {goal} {segment} {own} {peer}"),
            )
            .stdout(Stdio::piped())
            .spawn();
        child.expect("a process")
    }
}

#[test]
fn a_side() {
    let Ok(orders) = std::env::var(ORDERS) else {
        // Nobody has started this as a side: there is nothing to do.
        let mut bytes = Vec::new();
        payload(24, &mut bytes);
        assert_eq!(
            bytes[..8],
            24_u64.to_le_bytes(),
            "a payload tells its position"
        );
        return;
    };
    let numbers: Vec<u64> = orders
        .split(' ')
        .map(|word| word.parse().expect("a number"))
        .collect();
    let fd = |number: u64| {
        // SAFETY: the process that started this one left open descriptors under these numbers, for this test alone.
        unsafe { OwnedFd::from_raw_fd(number as i32) }
    };
    let fencing = if numbers[1] == 1 {
        assert!(membarrier_is_available(), "the supervising process had it");
        Fencing::Asymmetric
    } else {
        Fencing::Fenced
    };
    let segment = Segment::open(fd(numbers[4])).expect("sound segment");
    let (read, write) = if numbers[0] == 0 {
        (RING_TO_BRIDGE, RING_TO_PEER)
    } else {
        (RING_TO_PEER, RING_TO_BRIDGE)
    };
    let mut consumer = Consumer::attach(segment.ring(read)).expect("sound ring");
    let mut producer = Producer::attach(segment.ring(write)).expect("sound ring");
    consumer.set_fencing(fencing);
    producer.set_fencing(fencing);
    let side = Side {
        consumer,
        producer,
        own: Doorbell::from_fd(fd(numbers[5])),
        peer: Doorbell::from_fd(fd(numbers[6])),
        random: Rng::with_seed(numbers[2]),
        goal: numbers[3],
        expected: Vec::new(),
    };
    side.run();
}

/// Passes on what a side prints: a tick, or its end.
fn listen(number: usize, output: ChildStdout, events: mpsc::Sender<(usize, bool)>) {
    std::thread::spawn(move || {
        let mut bytes = BufReader::new(output).bytes();
        while let Some(Ok(byte)) = bytes.next() {
            if byte == b'.' && events.send((number, true)).is_err() {
                return;
            }
        }
        let _ = events.send((number, false));
    });
}

/// One segment, until both rings have carried `GOAL` bytes; `KILLS` times one of the sides is killed on the way.
fn round(fencing: Fencing, seed: u64) {
    let link = Link::new(fencing, GOAL);
    let mut random = Rng::with_seed(seed);
    let (sender, events) = mpsc::channel();
    let start = |number, random: &mut Rng| {
        let mut child = link.start(number, random.u64(..));
        listen(number, child.stdout.take().expect("piped"), sender.clone());
        Some(child)
    };
    let mut sides = [start(0, &mut random), start(1, &mut random)];
    let (mut kills, mut ticks_left) = (0, 1 + random.u64(..40));
    while sides.iter().any(Option::is_some) {
        let event = events.recv_timeout(WATCHDOG);
        let (number, is_tick) =
            event.unwrap_or_else(|error| panic!("no tick: {error} seed={seed} kills={kills}"));
        if !is_tick {
            let mut child = sides[number].take().expect("it was running");
            let status = child.wait().expect("wait");
            if status.success() {
                continue;
            }
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(nix::libc::SIGKILL),
                "a side failed: {status} number={number} seed={seed}"
            );
            sides[number] = start(number, &mut random);
            continue;
        }
        ticks_left -= 1;
        if ticks_left == 0 {
            ticks_left = 1 + random.u64(..40);
            let victim = random.u64(..2) as usize;
            if let (Some(child), true) = (&mut sides[victim], kills < KILLS) {
                for _ in 0..random.u64(..50_000) {
                    std::hint::spin_loop();
                }
                child.kill().expect("SIGKILL");
                kills += 1;
            }
        }
    }
    for ring in [RING_TO_BRIDGE, RING_TO_PEER] {
        let producer = Producer::attach(link.segment.ring(ring)).expect("sound ring");
        let mut consumer = Consumer::attach(link.segment.ring(ring)).expect("sound ring");
        assert!(producer.position() >= GOAL, "ring={ring}");
        assert_eq!(
            consumer.position(),
            producer.position(),
            "everything was read"
        );
        assert!(consumer.peek().expect("sound ring").is_none());
    }
    assert!(kills > 0, "nobody was killed: seed={seed}");
}

#[test]
fn two_processes_that_are_killed_again_and_again_lose_nothing() {
    let seconds = std::env::var("STRESS_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    let (started, mut seed) = (Instant::now(), 1);
    loop {
        if membarrier_is_available() {
            round(Fencing::Asymmetric, seed);
        }
        round(Fencing::Fenced, seed + 1);
        seed += 2;
        if started.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
}
