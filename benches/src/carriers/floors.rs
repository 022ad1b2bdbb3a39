//! What no transport can go below.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mycelium_bench_harness::case::measure_threads;
use mycelium_bench_harness::{CaseArgs, Failure, Link, Sample, pattern};

/// One cache line, and the one that the processor fetches with it.
#[repr(align(128))]
struct Line(AtomicU64);

/// One side of a hand-over. It carries the number of a message and nothing else.
struct Turns {
    /// What this side writes, and what it polls: two lines, or the same one.
    outgoing: Arc<Line>,
    incoming: Arc<Line>,
    /// What this side writes next: odd for the near one, even for the far one.
    turn: u64,
    payload: [u8; 8],
}

impl Link for Turns {
    #[inline]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.payload);
        let turn = if pattern::first(&self.payload) == pattern::END {
            pattern::END
        } else {
            self.turn
        };
        self.outgoing.0.store(turn, Ordering::Release);
        self.turn += 2;
        Ok(())
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        let awaited = self.turn - 1;
        let seq = (awaited - 1) / 2;
        loop {
            match self.incoming.0.load(Ordering::Acquire) {
                pattern::END => return Ok(look(&pattern::END.to_le_bytes())),
                turn if turn == awaited => return Ok(look(&seq.to_le_bytes())),
                _ => {}
            }
        }
    }
}

/// The bare hand-over of a cache line between two threads, in the loops of every other carrier.
///
/// With two lines each is written by one side and polled by the other, as memory is that carries messages one way. With
/// one line both write it in turn; processors notice that and hand the right to write over together with the content,
/// which spares every second transfer and is of no use to a ring.
pub(super) fn cache_line(args: &CaseArgs, lines: usize) -> Result<Sample, Failure> {
    let args = CaseArgs {
        payload: 8,
        ..args.clone()
    };
    let there = Arc::new(Line(AtomicU64::new(0)));
    let back = if lines == 1 {
        there.clone()
    } else {
        Arc::new(Line(AtomicU64::new(0)))
    };
    let side = |outgoing: &Arc<Line>, incoming: &Arc<Line>, turn| Turns {
        outgoing: outgoing.clone(),
        incoming: incoming.clone(),
        turn,
        payload: [0; 8],
    };
    let (mut near, mut far) = (side(&there, &back, 1), side(&back, &there, 2));
    measure_threads(&args, &mut near, move |args| args.run_far(&mut far))
}

/// Copies between two looks at the clock.
const BURST: u64 = 64;

/// Messages copied into memory and out again on one core, `area` bytes of memory in turn.
pub(super) fn memcpy(args: &CaseArgs, area: usize) -> Result<Sample, Failure> {
    args.pin_near();
    let payload_len = args.payload;
    let places = (area / payload_len).max(1);
    let mut middle = vec![0_u8; places * payload_len];
    let (mut payload, mut received) = (vec![0_u8; payload_len], vec![0_u8; payload_len]);
    let mut pass = |seq: u64, whole: bool| {
        let at = (seq as usize % places) * payload_len;
        if whole {
            pattern::write(&mut payload, seq);
        } else {
            pattern::stamp(&mut payload, seq);
        }
        let place = &mut middle[at..at + payload_len];
        place.copy_from_slice(std::hint::black_box(&payload));
        received.copy_from_slice(std::hint::black_box(place));
        if whole {
            pattern::check(&received, payload_len, seq)
        } else {
            pattern::check_stamp(&received, payload_len, seq)
        }
    };
    let checked = 2 * places as u64;
    for seq in 0..checked {
        pass(seq, true)?;
    }
    let mut seq = checked;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(args.millis) {
        for _ in 0..BURST {
            pass(seq, false)?;
            seq += 1;
        }
    }
    Ok(Sample::of_rate(seq - checked, seq, start.elapsed()))
}
