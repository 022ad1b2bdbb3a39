//! Two processes that share rings without a bridge and without a handshake: the parent asks, the child answers.
//!
//! The parent creates a segment and two doorbells and lets its child inherit them; which descriptor is which travels on
//! the command line. Over a socket they would travel as SCM_RIGHTS instead. The child's standard input is a pipe that
//! nobody writes to: it becomes readable when the parent is gone, however it ended, so neither side waits for a dead one.
//!
//! ```sh
//! cargo run --release -p shm-transport --example two_processes -- 100000
//! ```

#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::frame::FrameHeader;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::Fencing;
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};

const QUESTION: u16 = 1001;
const ANSWER: u16 = 1002;
const ROUND_TRIPS: u64 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [role, fds @ ..] if role == "answer" => answer(fds),
        [count] => ask(count.parse()?),
        _ => ask(ROUND_TRIPS),
    }
}

fn ask(round_trips: u64) -> Result<(), Box<dyn Error>> {
    let segment = Segment::create(&SegmentOptions::new(64 << 10))?;
    let (own, peer) = (Doorbell::new()?, Doorbell::new()?);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("answer").stdin(Stdio::piped());
    for fd in [segment.fd(), own.as_fd(), peer.as_fd()] {
        inherit(fd)?;
        command.arg(fd.as_raw_fd().to_string());
    }
    let mut child = command.spawn()?;

    let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
    // Both are Rust, but neither knows whether the other could run `membarrier`; `Fenced` asks for nothing.
    let mut ends = LinkEnds::attach(read, write, own, peer, Fencing::Fenced)?;
    let mut spin = SpinBudget::new(WaitStrategy::default());
    let patience = Some(Duration::from_secs(30));
    let started = Instant::now();
    for number in 1..=round_trips {
        let mut question = ends.reserve(&mut spin, FrameHeader::new(QUESTION, 8), patience)?;
        question.copy_from_slice(&number.to_le_bytes());
        question.commit();
        let answer = ends
            .read(&mut spin, patience)?
            .ok_or("the child does not answer")?;
        assert_eq!(answer.topic_id(), ANSWER);
        assert_eq!(answer.to_vec(), (number * number).to_le_bytes());
        ends.advance();
    }
    let elapsed = started.elapsed();
    drop(child.stdin.take());
    let status = child.wait()?;
    let (parks, wakeups) = (ends.parks(), ends.wakeups_sent());
    println!(
        "round_trips={round_trips} elapsed={elapsed:?} parks={parks} wakeups_sent={wakeups} child={status}"
    );
    Ok(())
}

fn answer(fds: &[String]) -> Result<(), Box<dyn Error>> {
    let mut fds = fds.iter().map(|text| text.parse().map(take));
    let mut next = || fds.next().ok_or("a descriptor is missing");
    let segment = Segment::open(next()??)?;
    let (peer, own) = (Doorbell::from_fd(next()??), Doorbell::from_fd(next()??));

    let (read, write) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
    let mut ends = LinkEnds::attach(read, write, own, peer, Fencing::Fenced)?;
    let mut spin = SpinBudget::new(WaitStrategy::default());
    let stdin = std::io::stdin();
    loop {
        match ends.wait(&mut spin, WaitFor::Frame, None, Some(stdin.as_fd()))? {
            Waited::Ready => {}
            // The parent is done, or gone.
            Waited::Interrupted | Waited::TimedOut => return Ok(()),
        }
        let mut number = [0; 8];
        let question = ends.peek()?.ok_or("a frame vanished")?;
        number.copy_from_slice(&question.to_vec());
        ends.advance();
        let number = u64::from_le_bytes(number);
        let mut answer = ends.reserve(&mut spin, FrameHeader::new(ANSWER, 8), None)?;
        answer.copy_from_slice(&(number * number).to_le_bytes());
        answer.commit();
    }
}

/// Lets a child that is started from now on have the descriptor under the same number.
fn inherit(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Takes over a descriptor that was inherited.
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the parent passes each number once, and nothing else in this process knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
