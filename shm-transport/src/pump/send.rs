//! From the ring to the stream.

use std::io::ErrorKind;

use super::acknowledgements::Acknowledgements;
use super::{PumpError, Sent};
use crate::ring::{Consumer, RingSlice, Run};
use crate::socket::{ByteStream, SendQueue, Traffic};

/// Bytes of records that one call on the stream is offered, unless a single record is longer.
const CALL_MAX: usize = 256 * 1024;
/// Calls in a row, after which the other direction has its turn.
const CALLS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Outflow {
    pub(super) consumer: Consumer,
    /// Control frames that wait.
    pub(super) queue: SendQueue,
    /// A record of which the stream has taken only a part: where it begins, what is sent of it, where it ends. Nothing
    /// else may go out before its rest.
    begun: Option<(u64, u64, u64)>,
    acknowledgements: Acknowledgements,
}

impl Outflow {
    pub(super) fn new(mut consumer: Consumer) -> Self {
        consumer.set_manual_ack(true);
        let acknowledgements = Acknowledgements::new(consumer.position());
        Self {
            consumer,
            queue: SendQueue::default(),
            begun: None,
            acknowledgements,
        }
    }

    pub(super) fn has_sent(&self, position: u64) -> bool {
        let end = self.begun.map(|(_, _, end)| end);
        end.unwrap_or(self.consumer.position()) >= position
    }

    pub(super) fn acknowledge(&mut self, bytes: u64) -> Result<(), PumpError> {
        let position = self.acknowledgements.acknowledge(bytes)?;
        self.consumer.acknowledge(position);
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        stream: &mut impl ByteStream,
        traffic: &mut Traffic,
    ) -> Result<Sent, PumpError> {
        for _ in 0..CALLS_MAX {
            let runs = self.runs()?;
            let (outcome, offered) = self.write(stream, runs);
            if offered == 0 {
                return Ok(Sent::All);
            }
            match outcome {
                Ok(count) => {
                    assert!(count <= offered, "stream took more than it was offered");
                    traffic.sends += 1;
                    self.took(count, runs)?;
                    if count == 0 {
                        return Ok(Sent::StreamFull);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(Sent::StreamFull),
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => return Ok(Sent::HangUp),
                    _ => {
                        return Err(PumpError::Io {
                            step: "send",
                            source: error,
                        });
                    }
                },
            }
        }
        Ok(Sent::More)
    }

    /// What comes behind the record that was begun: a run, and if it is short another one behind the padding.
    fn runs(&mut self) -> Result<[Run; 2], PumpError> {
        let from = self
            .begun
            .map_or(self.consumer.position(), |(_, _, end)| end);
        let first = self.consumer.run(from, CALL_MAX)?;
        let left = CALL_MAX.saturating_sub(first.len());
        let second = if first.len() == 0 || left == 0 {
            Run {
                start: first.end,
                end: first.end,
            }
        } else {
            self.consumer.run(first.end, left)?
        };
        if first.len() == 0 && self.begun.is_none() {
            // Padding without a record behind it.
            self.consumer.pass(first.start);
        }
        Ok([first, second])
    }

    /// One call on the stream. Returns its outcome and how much it was offered.
    fn write(
        &self,
        stream: &mut impl ByteStream,
        [first, second]: [Run; 2],
    ) -> (std::io::Result<usize>, usize) {
        let begun = match self.begun {
            Some((start, sent, end)) => self.consumer.slice(start + sent, end),
            None => RingSlice::new(&[]),
        };
        let mut slices = [RingSlice::new(&[]); 4];
        let mut len = 0;
        for slice in [
            begun,
            RingSlice::new(self.queue.unsent()),
            self.consumer.slice(first.start, first.end),
            self.consumer.slice(second.start, second.end),
        ] {
            if !slice.is_empty() {
                slices[len] = slice;
                len += 1;
            }
        }
        let slices = &slices[..len];
        let offered = slices.iter().map(RingSlice::len).sum();
        if offered == 0 {
            return (Ok(0), 0);
        }
        (stream.write_vectored(slices), offered)
    }

    /// Notes that the stream has taken `count` bytes of what it was offered.
    fn took(&mut self, mut count: usize, runs: [Run; 2]) -> Result<(), PumpError> {
        if let Some((start, sent, end)) = self.begun {
            let taken = count.min((end - start - sent) as usize);
            count -= taken;
            let sent = sent + taken as u64;
            if start + sent < end {
                self.begun = Some((start, sent, end));
                return Ok(());
            }
            self.begun = None;
            self.pass(Run { start, end });
        }
        let taken = count.min(self.queue.unsent().len());
        self.queue.advance(taken);
        count -= taken;
        for run in runs {
            if count < run.len() {
                return self.took_part(run, count as u64);
            }
            if run.len() > 0 {
                count -= run.len();
                self.pass(run);
            }
        }
        Ok(())
    }

    /// Notes that the first `count` bytes of a run are sent.
    fn took_part(&mut self, run: Run, count: u64) -> Result<(), PumpError> {
        let mut position = run.start;
        while position < run.start + count {
            // A limit of nothing finds one record.
            let record = self.consumer.run(position, 0)?;
            if record.end > run.start + count {
                self.consumer.pass(record.start);
                let sent = run.start + count - record.start;
                self.begun = Some((record.start, sent, record.end));
                return Ok(());
            }
            self.pass(record);
            position = record.end;
        }
        Ok(())
    }

    fn pass(&mut self, run: Run) {
        self.acknowledgements.sent(run.start, run.end);
        self.consumer.pass(run.end);
    }
}
