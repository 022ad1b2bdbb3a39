//! What a carrier of messages has to do, and the loops that measure it. Every carrier runs in these very loops.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::sample::{Percentiles, Sample, median};
use crate::{CaseArgs, Failure, Measure, pattern};

/// Messages whose whole content is checked before anything is timed.
const CHECKED: u64 = 1000;
/// Round trips that warm caches and frequencies up.
const WARM_UP: u64 = 2000;
/// Round trips between two looks at the clock.
const BLOCK: u64 = 50;
/// Messages between two looks at the clock.
const BURST: u64 = 256;
/// Messages that a throughput case prepares before it sends them. A message that is copied while its words are still on
/// their way to the cache costs a stall that has nothing to do with its carrier.
const AHEAD: u64 = 4;
/// The longest round trip that the histogram tells apart, in nanoseconds: a minute.
const HIGHEST_NS: u64 = 60_000_000_000;

/// Bytes of the rings of all carriers that have one.
pub const RING_BYTES: usize = 1 << 18;

/// What a polling side does between two polls, the same for every carrier that polls.
///
/// A latency case looks again at once. In a throughput case a side that finds nothing looks away for a moment: otherwise
/// a consumer that is a little quicker than the producer takes every message over alone, line by line, and what is
/// measured is latency again, by chance and not in every run.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    pauses: u32,
}

impl Rest {
    /// How a case rests.
    #[must_use]
    pub fn of(args: &CaseArgs) -> Self {
        let pauses = match args.measure {
            Measure::Latency => 0,
            Measure::Throughput => 256,
        };
        Self { pauses }
    }

    /// Rests, because nothing was there.
    #[inline]
    pub fn rest(self) {
        for _ in 0..self.pauses {
            std::hint::spin_loop();
        }
    }
}

/// One side of a duplex carrier of messages.
pub trait Link {
    /// Sends a message of `payload_len` bytes that `fill` writes, waiting until the carrier takes it. A carrier that
    /// lends its memory lets `fill` write there.
    ///
    /// # Errors
    ///
    /// If the carrier fails.
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure>;

    /// Sends a copy of a message that lies somewhere else.
    ///
    /// # Errors
    ///
    /// If the carrier fails.
    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.send(payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Waits for the next message and shows it. A carrier that lends its memory shows it there.
    ///
    /// # Errors
    ///
    /// If the carrier fails.
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure>;

    /// Lets go of what a carrier that batches holds back. Called when an answer is waited for.
    ///
    /// # Errors
    ///
    /// If the carrier fails.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn exchange(link: &mut impl Link, payload_len: usize, seq: u64) -> Result<(), Failure> {
    link.send(payload_len, |payload| pattern::write(payload, seq))?;
    link.flush()?;
    link.receive(|payload| pattern::check(payload, payload_len, seq))?
}

/// The measuring side of a latency case: sends, waits for the answer, and so on. Both sides write every byte of what
/// they send and check every byte of what they receive.
///
/// # Errors
///
/// If the carrier fails or garbles a message.
pub fn round_trips(link: &mut impl Link, args: &CaseArgs) -> Result<Sample, Failure> {
    let payload_len = args.payload;
    let half = Duration::from_millis(args.millis) / 2;
    let mut seq = 0;
    let until = Instant::now() + half;
    while seq < CHECKED + WARM_UP && Instant::now() < until {
        exchange(link, payload_len, seq)?;
        seq += 1;
    }

    let warm = seq;
    let mut blocks = vec![];
    let begin = Instant::now();
    let mut start = begin;
    while start - begin < half {
        for _ in 0..BLOCK {
            exchange(link, payload_len, seq)?;
            seq += 1;
        }
        let end = Instant::now();
        blocks.push((end - start).as_nanos() as f64 / (2 * BLOCK) as f64);
        start = end;
    }

    let mut histogram = Histogram::<u64>::new_with_bounds(1, HIGHEST_NS, 3)
        .map_err(Failure::carrier("histogram"))?;
    let begin_single = Instant::now();
    start = begin_single;
    while start - begin_single < half {
        exchange(link, payload_len, seq)?;
        seq += 1;
        let end = Instant::now();
        histogram.saturating_record((end - start).as_nanos() as u64);
        start = end;
    }
    let elapsed = begin.elapsed();
    link.send(payload_len, |payload| pattern::write(payload, pattern::END))?;
    link.flush()?;
    Ok(Sample {
        messages: 2 * (seq - warm),
        messages_total: 2 * seq,
        elapsed_ns: elapsed.as_nanos() as u64,
        one_way_ns: Some(median(&blocks)),
        round_trip_ns: Some(Percentiles::from(&histogram)),
        rate: None,
    })
}

/// The other side of a latency case: answers every message with one of the same number.
///
/// # Errors
///
/// If the carrier fails or garbles a message.
pub fn echo(link: &mut impl Link, args: &CaseArgs) -> Result<(), Failure> {
    let payload_len = args.payload;
    let mut seq = 0;
    loop {
        let ended = link.receive(|payload| {
            if pattern::first(payload) == pattern::END {
                return Ok(true);
            }
            pattern::check(payload, payload_len, seq).map(|()| false)
        })??;
        if ended {
            return Ok(());
        }
        link.send(payload_len, |payload| pattern::write(payload, seq))?;
        link.flush()?;
        seq += 1;
    }
}

/// The measuring side of a throughput case: sends as fast as the carrier takes it, and stops the clock when the other
/// side has said that it has read the last message.
///
/// # Errors
///
/// If the carrier fails or garbles a message.
pub fn produce(link: &mut impl Link, args: &CaseArgs) -> Result<Sample, Failure> {
    let payload_len = args.payload;
    let limit = Duration::from_millis(args.millis);
    for seq in 0..CHECKED {
        link.send(payload_len, |payload| pattern::write(payload, seq))?;
    }
    await_count(link, CHECKED)?;

    let mut payloads = vec![vec![0; payload_len]; (2 * AHEAD) as usize];
    let place = |seq: u64| (seq % (2 * AHEAD)) as usize;
    for seq in CHECKED..CHECKED + AHEAD {
        pattern::stamp(&mut payloads[place(seq)], seq);
    }
    let mut seq = CHECKED;
    let start = Instant::now();
    while start.elapsed() < limit {
        for _ in 0..BURST {
            pattern::stamp(&mut payloads[place(seq + AHEAD)], seq + AHEAD);
            link.send_copy(&payloads[place(seq)])?;
            seq += 1;
        }
    }
    let last = &mut payloads[place(seq)];
    pattern::stamp(last, pattern::END);
    link.send_copy(last)?;
    await_count(link, seq)?;
    Ok(Sample::of_rate(seq - CHECKED, seq, start.elapsed()))
}

fn await_count(link: &mut impl Link, count: u64) -> Result<(), Failure> {
    link.flush()?;
    let told = link.receive(pattern::first)?;
    if told == count {
        return Ok(());
    }
    Err(Failure::Peer(format!(
        "another number of messages arrived: sent={count} received={told}"
    )))
}

/// The other side of a throughput case: checks the number of every message, and says when it has read all.
///
/// # Errors
///
/// If the carrier fails or garbles a message.
pub fn consume(link: &mut impl Link, args: &CaseArgs) -> Result<(), Failure> {
    let payload_len = args.payload;
    for seq in 0..CHECKED {
        link.receive(|payload| pattern::check(payload, payload_len, seq))??;
    }
    tell_count(link, payload_len, CHECKED)?;

    let mut seq = CHECKED;
    loop {
        let ended = link.receive(|payload| {
            if pattern::first(payload) == pattern::END {
                return Ok(true);
            }
            pattern::check_stamp(payload, payload_len, seq).map(|()| false)
        })??;
        if ended {
            return tell_count(link, payload_len, seq);
        }
        seq += 1;
    }
}

fn tell_count(link: &mut impl Link, payload_len: usize, count: u64) -> Result<(), Failure> {
    link.send(payload_len, |payload| pattern::write(payload, count))?;
    link.flush()
}
