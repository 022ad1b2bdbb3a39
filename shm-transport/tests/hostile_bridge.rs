//! The peer's end against a process that writes into the segment what it likes, while the link is alive: every call comes
//! back, and the error names the field.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapOptions;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use shm_transport::channel::{EndsError, LinkEnds, WaitError, WaitFor};
use shm_transport::error::{Corrupt, ReserveError};
use shm_transport::frame::FrameHeader;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::Fencing;
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};

const CAPACITY: usize = 4096;
const WATCHDOG: Duration = Duration::from_secs(60);
const FIELDS: [&str; 7] = [
    "payload_len",
    "topic_id",
    "padding room",
    "padding topic_id",
    "padding payload_len",
    "head",
    "tail",
];

/// A process that never stops to write random words over the whole segment and to ring.
struct Vandal(Pid);

impl Vandal {
    fn start(segment: &Segment, doorbell: &Doorbell, seed: u64, only_small: bool) -> Self {
        let mapping = MmapOptions::new()
            .len(segment.len())
            .map_raw(segment.fd().as_raw_fd())
            .expect("map");
        let words = segment.len() / 8;
        // SAFETY: the child calls nothing but stores into a mapping that exists already, `write` or `send`, and it never
        // returns.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                loop {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let index = (state >> 20) as usize % words;
                    // Small numbers are more often believed than large ones.
                    let value = if only_small {
                        (state % (2 * CAPACITY as u64)) & !7
                    } else {
                        state
                    };
                    // SAFETY: the index lies inside the mapping, which is page-aligned; others use atomics too.
                    let word = unsafe {
                        AtomicU64::from_ptr(mapping.as_mut_ptr().cast::<u64>().add(index))
                    };
                    word.store(value, Ordering::Relaxed);
                    if state.is_multiple_of(64) {
                        let _ = doorbell.notify();
                    }
                }
            }
        }
    }
}

impl Drop for Vandal {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

fn names_a_field(corrupt: &Corrupt) {
    let text = corrupt.to_string();
    assert!(
        FIELDS.contains(&corrupt.field),
        "field={}: {text}",
        corrupt.field
    );
    assert!(text.contains("legal="), "{text}");
}

fn as_corrupt(error: &EndsError) -> &Corrupt {
    match error {
        EndsError::Corrupt(corrupt) => corrupt,
        EndsError::Io { .. } => panic!("a peer's words are no failure of the system: {error}"),
    }
}

/// Reads and publishes until both rings are found broken. Says how much of either it took for true.
fn use_until_broken(ends: &mut LinkEnds) -> (u64, u64) {
    let mut spin = SpinBudget::new(WaitStrategy::Park);
    let watchdog = Instant::now() + WATCHDOG;
    let moment = Some(Duration::from_millis(1));
    let (mut read, mut written) = (0, 0);
    let (mut reading, mut writing) = (true, true);
    while reading || writing {
        assert!(
            Instant::now() < watchdog,
            "watchdog: neither ring was found broken"
        );
        if reading {
            match ends.read(&mut spin, moment) {
                Ok(Some(frame)) => {
                    assert!(frame.to_vec().len() <= CAPACITY / 4);
                    read += 1;
                    ends.advance();
                }
                Ok(None) => {}
                Err(error) => {
                    names_a_field(as_corrupt(&error));
                    reading = false;
                }
            }
        }
        if writing {
            match ends.reserve(&mut spin, FrameHeader::new(1001, 100), moment) {
                Ok(mut room) => {
                    room.copy_from_slice(&[1; 100]);
                    room.commit();
                    written += 1;
                }
                Err(WaitError::Reserve(ReserveError::Full { .. })) => {}
                Err(WaitError::Reserve(ReserveError::Corrupt(corrupt))) => {
                    names_a_field(&corrupt);
                    writing = false;
                }
                Err(WaitError::Ends(error)) => {
                    names_a_field(as_corrupt(&error));
                    writing = false;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (read, written)
}

#[test]
fn random_words_everywhere_end_in_an_error_that_names_the_field() {
    for seed in 1..=20 {
        let segment = Segment::create(&SegmentOptions::new(CAPACITY)).expect("segment");
        let (bell, waiting) = Doorbell::pair().expect("doorbell");
        let other = Doorbell::new().expect("doorbell");
        let (read, write) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
        let mut ends =
            LinkEnds::attach(read, write, waiting, other, Fencing::Fenced).expect("fresh rings");
        let _vandal = Vandal::start(&segment, &bell, seed, seed % 2 == 0);
        let _ = use_until_broken(&mut ends);
    }
}

#[test]
fn a_doorbell_that_never_stops_does_not_keep_a_wait_beyond_its_time() {
    for strategy in [WaitStrategy::Park, WaitStrategy::Hybrid { spin_us: 20 }] {
        let segment = Segment::create(&SegmentOptions::new(CAPACITY)).expect("segment");
        let (bell, waiting) = Doorbell::pair().expect("doorbell");
        let other = Doorbell::new().expect("doorbell");
        let (read, write) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
        let mut ends =
            LinkEnds::attach(read, write, waiting, other, Fencing::Fenced).expect("fresh rings");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    bell.notify().expect("notify");
                }
            });
            let mut spin = SpinBudget::new(strategy);
            let outcome = ends
                .read(&mut spin, Some(Duration::from_millis(20)))
                .map(|frame| frame.is_some());
            // A quiet end that becomes readable still interrupts.
            let (quiet, told) = Doorbell::pair().expect("doorbell");
            quiet.notify().expect("notify");
            let waited = ends.wait(
                &mut spin,
                WaitFor::Frame,
                Some(Instant::now() + WATCHDOG),
                Some(told.as_fd()),
            );
            stop.store(true, Ordering::Relaxed);
            assert!(!outcome.expect("sound"), "nothing was sent");
            assert_eq!(
                waited.expect("sound"),
                shm_transport::channel::Waited::Interrupted
            );
        });
    }
}

#[test]
fn a_segment_cannot_be_cut_off_under_its_user() {
    let segment = Segment::create(&SegmentOptions::new(CAPACITY)).expect("segment");
    let file = std::fs::File::from(segment.fd().try_clone_to_owned().expect("dup"));
    for len in [0, 4096, segment.len() as u64 - 1, 1 << 30] {
        assert!(file.set_len(len).is_err(), "len={len}");
    }
}
