//! What one subscriber got of one publisher: which frames, how often, and in which order.

use std::collections::HashMap;

/// A set of numbers from 1 on, as bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    bits: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// Adds a number; false if it was there.
    pub fn add(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u64::from(new);
        new
    }

    /// Whether a number is there.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let word = self.bits.get((number / 64) as usize);
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Which order is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Without gaps; a successor begins at or before the next one due.
    Gapless,
    /// Without gaps, from wherever it begins.
    GaplessFromAnywhere,
    /// Later ones after earlier ones, in each process.
    Rising,
    /// The same in each lane.
    RisingByLane,
}

/// The frames of one publisher and topic at one subscriber.
#[derive(Debug, Default)]
pub struct Track {
    /// Frames that came.
    pub numbers: Numbers,
    /// Frames that came again.
    pub repeated: u64,
    /// Sum of the checksums of all frames that came, each once.
    pub sum: u64,
    /// The highest number.
    pub highest: u64,
    /// By lane: process and number of the last frame.
    last: HashMap<u32, (u64, u64)>,
    /// By lane the highest number.
    pub latest: HashMap<u32, u64>,
}

impl Track {
    /// Takes a frame in that `process` got.
    ///
    /// # Errors
    ///
    /// What is wrong with the order.
    pub fn take(
        &mut self,
        order: Order,
        process: u64,
        lane: u32,
        sequence: u64,
        checksum: u32,
    ) -> Result<(), String> {
        let key = if order == Order::RisingByLane {
            lane
        } else {
            0
        };
        let before = self.last.insert(key, (process, sequence));
        let same = before.filter(|(last, _)| *last == process);
        let sound = match (order, same) {
            (Order::Gapless | Order::GaplessFromAnywhere, Some((_, last))) => sequence == last + 1,
            (Order::Gapless, None) => sequence <= self.highest + 1,
            (Order::Rising | Order::RisingByLane, Some((_, last))) => sequence > last,
            (_, None) => true,
        };
        if !sound || sequence == 0 {
            return Err(format!(
                "sequence={sequence} process={process}, before (process, sequence)={before:?}, highest={}",
                self.highest
            ));
        }
        if self.numbers.add(sequence) {
            self.sum += u64::from(checksum);
        } else {
            self.repeated += 1;
        }
        self.highest = self.highest.max(sequence);
        let latest = self.latest.entry(lane).or_default();
        *latest = (*latest).max(sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(order: Order, frames: &[(u64, u32, u64)]) -> Result<Track, String> {
        let mut track = Track::default();
        for &(process, lane, sequence) in frames {
            track.take(order, process, lane, sequence, 1)?;
        }
        Ok(track)
    }

    #[test]
    fn a_successor_may_repeat_and_may_not_leave_out() {
        let track = outcome(
            Order::Gapless,
            &[
                (1, 0, 1),
                (1, 0, 2),
                (1, 0, 3),
                (2, 0, 2),
                (2, 0, 3),
                (2, 0, 4),
            ],
        )
        .expect("sound");
        assert_eq!(
            (track.numbers.count(), track.repeated, track.sum),
            (4, 2, 4)
        );
        assert!(outcome(Order::Gapless, &[(1, 0, 1), (2, 0, 3)]).is_err());
        assert!(outcome(Order::Gapless, &[(1, 0, 1), (1, 0, 3)]).is_err());
        assert!(outcome(Order::Gapless, &[(1, 0, 1), (1, 0, 1)]).is_err());
        assert!(outcome(Order::Gapless, &[(1, 0, 2)]).is_err());
    }

    #[test]
    fn where_frames_may_be_missing_the_order_still_counts() {
        assert!(outcome(Order::Rising, &[(1, 0, 5), (1, 0, 9), (2, 0, 7)]).is_ok());
        assert!(outcome(Order::Rising, &[(1, 0, 5), (1, 0, 4)]).is_err());
        assert!(outcome(Order::RisingByLane, &[(1, 1, 5), (1, 2, 4), (1, 1, 6)]).is_ok());
        assert!(outcome(Order::RisingByLane, &[(1, 1, 5), (1, 1, 4)]).is_err());
        assert!(outcome(Order::GaplessFromAnywhere, &[(1, 0, 5), (1, 0, 6)]).is_ok());
        assert!(outcome(Order::GaplessFromAnywhere, &[(1, 0, 5), (1, 0, 7)]).is_err());
    }
}
