//! Two sides of a link in one process: what each has to do before it sleeps, and what it takes from a peer.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::error::ReserveError;
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{Consumer, Fencing, Frame, Producer, RingMemory};
use shm_transport::socket::{FillOutcome, FrameStream};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};

const TOPIC: u16 = 1001;

#[test]
fn a_side_acknowledges_what_it_has_read_before_it_sleeps_for_room() {
    let rings = [(); 2].map(|()| RingMemory::heap(4096).expect("heap ring"));
    let doorbells = [(); 2].map(|()| Doorbell::new().expect("doorbell"));
    let side = |read: usize, write: usize| {
        let [own, peer] = [write, read].map(|number| doorbells[number].try_clone().expect("dup"));
        LinkEnds::attach(
            rings[read].clone(),
            rings[write].clone(),
            own,
            peer,
            Fencing::Fenced,
        )
        .expect("fresh rings")
    };
    let (mut bridge, mut peer) = (side(0, 1), side(1, 0));
    for _ in 0..2 {
        bridge
            .try_publish(&Frame::new(TOPIC, &[1; 40]))
            .expect("room");
    }
    assert!(peer.peek().expect("sound").is_some());
    peer.advance();
    assert!(peer.peek().expect("sound").is_some());
    assert_eq!(rings[1].occupancy(), 96, "head may lag while it is awake");
    while !matches!(
        peer.try_publish(&Frame::new(TOPIC, &[2; 1000])),
        Err(ReserveError::Full { .. })
    ) {}

    let mut spin = SpinBudget::new(WaitStrategy::Park);
    let soon = Instant::now() + Duration::from_millis(1);
    let waited = peer.wait(
        &mut spin,
        WaitFor::Room { payload_len: 1000 },
        Some(soon),
        None,
    );
    assert_eq!(waited.expect("sound"), Waited::TimedOut);
    assert_eq!(
        rings[1].occupancy(),
        48,
        "the frame in hand is not released"
    );
    assert!(peer.peek().expect("sound").is_some());
}

#[test]
fn a_busy_spin_notices_the_other_descriptor() {
    let rings = [(); 2].map(|()| RingMemory::heap(4096).expect("heap ring"));
    let doorbell = || Doorbell::new().expect("doorbell");
    let [read, write] = rings;
    let ends = LinkEnds::attach(read, write, doorbell(), doorbell(), Fencing::Fenced);
    let mut ends = ends.expect("fresh rings");
    let interrupt = doorbell();
    interrupt.notify().expect("notify");
    let mut spin = SpinBudget::new(WaitStrategy::BusySpin);
    let watchdog = Instant::now() + Duration::from_secs(20);
    let waited = ends.wait(
        &mut spin,
        WaitFor::Frame,
        Some(watchdog),
        Some(interrupt.as_fd()),
    );
    assert_eq!(waited.expect("sound"), Waited::Interrupted);
    assert_eq!(ends.parks(), 0);
}

#[test]
fn descriptors_that_nobody_asked_for_do_not_pile_up() {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let mut stream = FrameStream::new(ours).expect("stream");
    let gift = Doorbell::new().expect("doorbell");
    for round in 0..20 {
        let fds = [gift.as_raw_fd(); 3];
        sendmsg::<UnixAddr>(
            theirs.as_raw_fd(),
            &[IoSlice::new(&[round])],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .expect("sendmsg");
        assert_eq!(stream.fill().expect("open"), FillOutcome::Data(1));
    }
    assert_eq!(stream.take_fds().len(), 3, "one Welcome carries three");
}

#[test]
fn descriptors_that_are_more_than_there_is_room_for_are_closed() {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let mut stream = FrameStream::new(ours).expect("stream");
    let (watched, gift) = UnixStream::pair().expect("socketpair");
    for count in [5, 64] {
        let fds = vec![gift.as_raw_fd(); count];
        let rights = [ControlMessage::ScmRights(&fds)];
        let bytes = [IoSlice::new(b"x")];
        sendmsg::<UnixAddr>(theirs.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)
            .expect("sendmsg");
        assert_eq!(stream.fill().expect("open"), FillOutcome::Data(1));
    }
    drop((stream, gift));
    watched.set_nonblocking(true).expect("nonblocking");
    let ended = std::io::Read::read(&mut &watched, &mut [0]);
    assert!(matches!(ended, Ok(0)), "somebody still has it: {ended:?}");
}

#[test]
fn the_longest_time_that_there_is_stands_for_ever() {
    let (there, back) = (
        RingMemory::heap(4096).expect("heap ring"),
        RingMemory::heap(4096).expect("heap ring"),
    );
    let doorbell = || Doorbell::new().expect("doorbell");
    let own = doorbell();
    let bell = own.try_clone().expect("dup");
    let ends = LinkEnds::attach(there.clone(), back, own, doorbell(), Fencing::Fenced);
    let mut ends = ends.expect("fresh rings");
    let reader = std::thread::spawn(move || {
        let mut spin = SpinBudget::new(WaitStrategy::Park);
        let frame = ends.read(&mut spin, Some(Duration::MAX)).expect("sound");
        frame.map(|frame| frame.to_vec())
    });
    let mut producer = Producer::attach(there.clone()).expect("producer");
    while !there.glance().consumer_parked && !reader.is_finished() {
        std::thread::yield_now();
    }
    producer
        .try_push(FrameHeader::new(TOPIC, 1), &[1])
        .expect("room");
    bell.notify().expect("notify");
    assert_eq!(reader.join().expect("no panic"), Some(vec![1]));
}

#[test]
fn a_successor_wakes_a_peer_whose_flag_its_predecessor_had_cleared_already() {
    let memory = RingMemory::heap(4096).expect("heap ring");
    let back = RingMemory::heap(4096).expect("heap ring");
    let mut consumer = Consumer::attach(memory.clone()).expect("consumer");
    consumer.arm();
    let mut predecessor = Producer::attach(memory.clone()).expect("producer");
    predecessor
        .try_push(FrameHeader::new(TOPIC, 1), &[1])
        .expect("room");
    assert!(predecessor.wakeup_due(), "and here it dies");
    drop(predecessor);

    let asleep = Doorbell::new().expect("doorbell");
    let own = Doorbell::new().expect("doorbell");
    let peer = asleep.try_clone().expect("dup");
    let successor = LinkEnds::attach(back, memory, own, peer, Fencing::Fenced);
    assert!(successor.is_ok());
    let mut fds = [PollFd::new(asleep.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1), "sleeps for ever");
}
