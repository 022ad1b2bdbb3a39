//! What a peer that is gone has left in a ring, looked at by the end that stays.
//!
//! Everything that a successor goes on with lies in memory that the peer could write. What it made of its own messages is its own
//! affair, but it must not be that of a successor, or of an end that has to come to an end with it.

use super::consumer::Consumer;
use super::producer::{Producer, walk};
use crate::error::Corrupt;
use crate::sync::Ordering;

impl Consumer {
    /// Position behind the last record that is committed at this instant, found by looking at each one that was not passed.
    /// Ends after one lap at the latest, whatever the producer does meanwhile.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if a header word breaks the rules of the ring, or none says within one lap that nothing more is committed:
    /// the producer keeps eight bytes free for it.
    pub fn committed_end(&self) -> Result<u64, Corrupt> {
        self.look_through(self.position(), |_| ())
    }

    /// Whether a producer that is gone has left the ring as its successor needs it. Returns the position behind the last
    /// committed record. Costs one look at each record that was not acknowledged.
    ///
    /// # Errors
    ///
    /// As [`Consumer::committed_end`], and if the head in the memory is not the one that this end has stored, or the tail is
    /// not where a record ends: a successor would begin somewhere else than where this end looks for its first record.
    pub fn check_left(&self) -> Result<u64, Corrupt> {
        let acknowledged = self.acknowledged_position();
        let head = self.memory.head().load(Ordering::Acquire);
        let tail = self.memory.tail().load(Ordering::Acquire);
        let corrupt = |field, value, legal| Corrupt {
            field,
            value,
            legal,
            position: acknowledged,
            word: 0,
        };
        if head != acknowledged {
            return Err(corrupt("head", head, (acknowledged, acknowledged)));
        }
        // The tail may lag, and one that lags behind the head is of no account.
        let mut is_boundary = tail <= head;
        let end = self.look_through(head, |position| is_boundary |= position == tail)?;
        if is_boundary {
            Ok(end)
        } else {
            Err(corrupt("tail", tail, (head, end)))
        }
    }

    /// Shows where every record from `start` on begins and where the last one ends, which is the result.
    fn look_through(&self, start: u64, mut show: impl FnMut(u64)) -> Result<u64, Corrupt> {
        let limit = start + self.capacity() as u64;
        let mut position = start;
        loop {
            show(position);
            let (at, header) = self.look(position)?;
            // Padding may have been committed alone.
            show(at);
            let Some(header) = header else {
                return Ok(at);
            };
            position = at + header.record_len() as u64;
            if position >= limit {
                return Err(Corrupt {
                    field: "header word",
                    value: header.to_word(),
                    legal: (0, 0),
                    position: at,
                    word: header.to_word(),
                });
            }
        }
    }
}

impl Producer {
    /// Whether a consumer that is gone has left the ring as its successor needs it. Costs one look at each record that was not
    /// released.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if it published an impossible head, one inside of a record, or wrote over the records.
    pub fn check_left(&mut self) -> Result<(), Corrupt> {
        let (head, end) = (self.released_position()?, self.position());
        let stopped = walk(&self.memory, head, end, |_| ())?;
        if stopped == end {
            return Ok(());
        }
        Err(Corrupt {
            field: "head",
            value: head,
            legal: (end, end),
            position: stopped,
            word: 0,
        })
    }
}
