//! Runs of committed records, for whoever moves many at once to a stream.

use super::consumer::Consumer;
use super::record::{self, Record};
use super::slice::RingSlice;
use crate::error::Corrupt;
use crate::sync::Ordering;

/// Committed records without padding between them, which therefore lie in one piece: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Run {
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Consumer {
    /// The run of records at `position`, or behind padding there. It ends in front of the record that would make it longer
    /// than `limit` bytes, but has at least one; it is empty where nothing is committed.
    ///
    /// `position` is [`Consumer::position`] or the end of a run from there on.
    pub(crate) fn run(&self, position: u64, limit: usize) -> Result<Run, Corrupt> {
        let (start, first) = self.look(position)?;
        let Some(first) = first else {
            return Ok(Run { start, end: start });
        };
        let mut end = start + first.record_len() as u64;
        let mut index = self.index(start) + first.record_len();
        while index < self.capacity() {
            // SYNC: commit (release, Producer::publish) ↔ read (acquire, here).
            let word = self.memory.word(index).load(Ordering::Acquire);
            let Record::Frame(header) = record::check(word, index, self.capacity(), end)? else {
                break;
            };
            let longer = end + header.record_len() as u64;
            if longer - start > limit as u64 {
                break;
            }
            end = longer;
            index += header.record_len();
        }
        Ok(Run { start, end })
    }

    /// The bytes `start..end` of a run.
    ///
    /// # Panics
    ///
    /// If they are not in one piece, or not between this end's position and what the ring can hold.
    pub(crate) fn slice(&self, start: u64, end: u64) -> RingSlice<'_> {
        let (index, len) = (self.index(start), (end - start) as usize);
        assert!(
            self.position <= start
                && end - self.position <= self.capacity() as u64
                && index + len <= self.capacity(),
            "not in one piece: start={start} end={end} position={}",
            self.position
        );
        let bytes = self.memory.bytes(index, len);
        // SAFETY: `index + len <= capacity`, so the bytes lie inside the data area, which lives as long as `self.memory`,
        // which outlives the borrow of `self`.
        unsafe { RingSlice::from_raw(bytes.as_ptr().as_ptr(), len) }
    }

    /// Passes everything below `position`, which is the end of a record that [`Consumer::run`] found.
    pub(crate) fn pass(&mut self, position: u64) {
        self.advance_to(position);
    }
}
