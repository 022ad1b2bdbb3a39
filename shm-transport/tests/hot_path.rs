//! The hot path of the ring, publish and read, allocates nothing and makes no system call.

#[path = "common/counting.rs"]
mod counting;

use std::io::Write as _;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use shm_transport::channel::LinkEnds;
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{BatchLimit, Consumer, Fencing, Producer, RingMemory};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};

use counting::allocations;

const HANDOVERS: u64 = 100_000;
const TOPIC: u16 = 1001;
/// Exit code of a child whose kernel has no seccomp.
const NO_SECCOMP: i32 = 77;

fn ends(fencing: Fencing) -> (Producer, Consumer) {
    let memory = RingMemory::heap(4096).expect("heap ring");
    let mut producer = Producer::attach(memory.clone()).expect("producer");
    let mut consumer = Consumer::attach(memory).expect("consumer");
    producer.set_fencing(fencing);
    consumer.set_fencing(fencing);
    (producer, consumer)
}

/// Publishes and reads frames of several lengths, many times round the ring; returns how many came out as they went in.
fn hand_over(producer: &mut Producer, consumer: &mut Consumer) -> u64 {
    let source = [0x5A_u8; 96];
    let mut good = 0;
    for number in 0..HANDOVERS {
        let len = 8 + (number % 89) as usize;
        let header = FrameHeader::new(TOPIC, len as u32);
        let pushed = producer.try_push(header, &source[..len]).is_ok();
        let nobody_sleeps = !producer.wakeup_due();
        if let Ok(Some(guard)) = consumer.try_read() {
            good += u64::from(guard.frame().header() == header && pushed && nobody_sleeps);
        }
        good -= u64::from(consumer.wakeup_due());
    }
    good
}

/// Frames that are written in place in parts, shrunk, committed in batches and read in batches; returns how many came
/// out as long as they went in.
fn hand_over_in_batches(producer: &mut Producer, consumer: &mut Consumer) -> u64 {
    let limit = BatchLimit {
        bytes: 2048,
        frames: 3,
    };
    let mut good = 0;
    for number in 0..HANDOVERS / 4 {
        let len = 8 + (number % 89) as usize;
        let mut batch = producer.batch();
        for part in 0..4 {
            let Ok(mut reservation) = batch.try_reserve(FrameHeader::new(TOPIC, 200)) else {
                continue;
            };
            let _ = reservation.write_all(&number.to_le_bytes());
            reservation.commit_len(len + part);
        }
        batch.commit();
        let nobody_sleeps = !producer.wakeup_due();
        let mut part = 0;
        while let Ok(Some(batch)) = consumer.read_batch(limit) {
            for frame in batch.iter() {
                let whole = frame.is_ok_and(|frame| frame.payload_len() == len + part);
                good += u64::from(whole && nobody_sleeps);
                part += 1;
            }
        }
        let is_empty = consumer.is_empty() && producer.is_empty() == Ok(true);
        good -= u64::from(!is_empty || consumer.wakeup_due());
    }
    good
}

fn hand_over_all(producer: &mut Producer, consumer: &mut Consumer) -> bool {
    hand_over(producer, consumer) == HANDOVERS
        && hand_over_in_batches(producer, consumer) == HANDOVERS
}

/// Two sides of a link over heap memory.
fn link(fencing: Fencing) -> [LinkEnds; 2] {
    let rings = [(); 2].map(|()| RingMemory::heap(4096).expect("heap ring"));
    let doorbells = [(); 2].map(|()| Doorbell::new().expect("doorbell"));
    [0, 1].map(|own: usize| {
        let [bell, peer] = [own, 1 - own].map(|it| doorbells[it].try_clone().expect("dup"));
        let (read, write) = (rings[own].clone(), rings[1 - own].clone());
        LinkEnds::attach(read, write, bell, peer, fencing).expect("fresh rings")
    })
}

/// The calls that wait, where there is nothing to wait for; returns how many frames came out as they went in.
fn hand_over_between_ends([ours, theirs]: &mut [LinkEnds; 2]) -> u64 {
    let mut spin = SpinBudget::new(WaitStrategy::Park);
    let mut good = 0;
    for number in 0..HANDOVERS {
        let header = FrameHeader::new(TOPIC, 8);
        if let Ok(mut room) = ours.reserve(&mut spin, header, None) {
            room.copy_from_slice(&number.to_le_bytes());
            room.commit();
        }
        if let Ok(Some(frame)) = theirs.read(&mut spin, Some(Duration::from_secs(1))) {
            good += u64::from(frame.header() == header);
            theirs.advance();
        }
    }
    good
}

#[test]
fn publish_and_read_allocate_nothing() {
    let (mut producer, mut consumer) = ends(Fencing::Asymmetric);
    let before = allocations();
    let good = hand_over_all(&mut producer, &mut consumer);
    let after_rings = allocations();
    let mut link = link(Fencing::Asymmetric);
    let before_link = allocations();
    let good = good && hand_over_between_ends(&mut link) == HANDOVERS;
    let setup = before_link - after_rings;
    let after = allocations() - setup;
    assert_eq!((good, after - before), (true, 0));
    drop(std::hint::black_box(Box::new(1_u8)));
    assert!(allocations() > after, "the counter counts");
}

/// Forks a child that may only read, write and exit while it runs `work`, and returns how it ended.
fn run_without_system_calls(work: impl FnOnce() -> bool) -> WaitStatus {
    // SAFETY: the child calls nothing but `prctl`, the work, which uses memory that exists already, and `exit`.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
        ForkResult::Child => {
            // SAFETY: these calls take integers only. From the first on the kernel kills the child at any other system
            // call than read, write, exit and sigreturn; so it ends with `exit` itself instead of `exit_group`.
            unsafe {
                let strict = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0);
                let code = match strict {
                    0 => i32::from(!work()),
                    _ => NO_SECCOMP,
                };
                libc::syscall(libc::SYS_exit, code);
            }
            unreachable!("exit does not return");
        }
    }
}

#[test]
fn publish_and_read_make_no_system_call() {
    let caught = run_without_system_calls(|| nix::unistd::getppid().as_raw() > 0);
    if matches!(caught, WaitStatus::Exited(_, NO_SECCOMP)) {
        // This kernel cannot tell.
        return;
    }
    assert!(
        matches!(caught, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "the guard lets a system call pass: {caught:?}"
    );
    for fencing in [Fencing::Asymmetric, Fencing::Fenced] {
        let (mut producer, mut consumer) = ends(fencing);
        let mut link = link(fencing);
        let ended = run_without_system_calls(|| {
            hand_over_all(&mut producer, &mut consumer)
                && hand_over_between_ends(&mut link) == HANDOVERS
        });
        assert!(
            matches!(ended, WaitStatus::Exited(_, 0)),
            "{fencing:?}: {ended:?}"
        );
    }
}
