//! From bytes of the stream to positions of the ring.

use std::collections::VecDeque;

use super::PumpError;

/// Translates bytes of the stream into positions of the ring, which also counts padding.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    sent: u64,
    acknowledged: u64,
    /// Where runs of records without padding between them start: bytes sent before, position in the ring. What is not
    /// acknowledged is in the ring, so there are three at most.
    runs: VecDeque<(u64, u64)>,
}

impl Acknowledgements {
    pub(super) fn new(position: u64) -> Self {
        Self {
            sent: 0,
            acknowledged: 0,
            runs: VecDeque::from([(0, position)]),
        }
    }

    /// Notes that the records from `start` to `end` in the ring were sent, which have no padding between them.
    pub(super) fn sent(&mut self, start: u64, end: u64) {
        let (run_sent, run_start) = self.runs[self.runs.len() - 1];
        if run_start + (self.sent - run_sent) != start {
            self.runs.push_back((self.sent, start));
        }
        self.sent += end - start;
    }

    /// The position up to which the peer has released when it says `bytes`.
    pub(super) fn acknowledge(&mut self, bytes: u64) -> Result<u64, PumpError> {
        if bytes < self.acknowledged || bytes > self.sent || !bytes.is_multiple_of(8) {
            return Err(PumpError::Acknowledgement {
                bytes,
                low: self.acknowledged,
                high: self.sent,
            });
        }
        self.acknowledged = bytes;
        while self.runs.len() > 1 && self.runs[1].0 <= bytes {
            self.runs.pop_front();
        }
        let (run_sent, run_start) = self.runs[0];
        Ok(run_start + (bytes - run_sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_bytes_become_positions_across_padding() {
        let mut acknowledgements = Acknowledgements::new(1000);
        acknowledgements.sent(1000, 1072);
        acknowledgements.sent(1072, 1144);
        // 56 bytes of padding in the ring.
        acknowledgements.sent(1200, 1344);
        assert_eq!(acknowledgements.acknowledge(72).expect("legal"), 1072);
        assert_eq!(acknowledgements.acknowledge(144).expect("legal"), 1200);
        assert_eq!(acknowledgements.acknowledge(216).expect("legal"), 1272);
        assert_eq!(acknowledgements.acknowledge(288).expect("legal"), 1344);
        assert_eq!(acknowledgements.runs.len(), 1);
    }

    #[test]
    fn an_impossible_acknowledgement_names_the_legal_range() {
        let mut acknowledgements = Acknowledgements::new(0);
        acknowledgements.sent(0, 72);
        assert_eq!(acknowledgements.acknowledge(72).expect("legal"), 72);
        for bytes in [80, 71, 64, 0, u64::MAX] {
            let error = acknowledgements.acknowledge(bytes).expect_err("illegal");
            assert!(
                error
                    .to_string()
                    .contains(&format!("bytes={bytes} legal=72..=72")),
                "{error}"
            );
        }
    }
}
