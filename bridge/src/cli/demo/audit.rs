//! What the publisher itself counts and sums up, to be held against what the workers report.

use crc32fast::Hasher;
use mycelium_messages::Message;
use mycelium_messages::bandit::{Quote, ReplayReport, Signal};
use shm_transport::frame::FrameHeader;

/// Counts and sums over the quotes of one phase, in the order published.
#[derive(Clone, Default)]
pub(super) struct Published {
    pub(super) quotes: u64,
    bid_sum: f64,
    ask_sum: f64,
    checksum: Hasher,
}

impl Published {
    pub(super) fn add(&mut self, quote: &Quote) {
        self.quotes += 1;
        self.bid_sum += quote.bid;
        self.ask_sum += quote.ask;
        add_frame(&mut self.checksum, quote);
    }
}

/// Counts and sums over the signals of one worker in one phase, in the order received.
#[derive(Clone, Default)]
pub(super) struct Answers {
    pub(super) signals: u64,
    pub(super) out_of_order: u64,
    last_sequence: u64,
    checksum: Hasher,
}

impl Answers {
    pub(super) fn add(&mut self, signal: &Signal) {
        self.signals += 1;
        self.out_of_order += u64::from(signal.quote_sequence <= self.last_sequence);
        self.last_sequence = signal.quote_sequence;
        add_frame(&mut self.checksum, signal);
    }
}

fn add_frame<M: Message>(checksum: &mut Hasher, message: &M) {
    checksum.update(&FrameHeader::new(M::TOPIC_ID, size_of::<M>() as u32).to_bytes());
    checksum.update(message.as_bytes());
}

/// How one worker's report differs from what the publisher counted; nothing if all is well.
pub(super) fn differences(
    report: &ReplayReport,
    published: &Published,
    answers: &Answers,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, publisher: String, worker: String| {
        if publisher != worker {
            found.push(format!("{what}: publisher={publisher} worker={worker}"));
        }
    };
    compare(
        "quotes",
        published.quotes.to_string(),
        report.quotes.to_string(),
    );
    compare("missing", 0.to_string(), report.missing.to_string());
    compare(
        "out of order",
        0.to_string(),
        report.out_of_order.to_string(),
    );
    let bits = |value: f64| format!("{value} ({:016x})", value.to_bits());
    compare("sum of bids", bits(published.bid_sum), bits(report.bid_sum));
    compare("sum of asks", bits(published.ask_sum), bits(report.ask_sum));
    let checksum = |hasher: &Hasher| format!("{:08x}", hasher.clone().finalize());
    compare(
        "checksum of quotes",
        checksum(&published.checksum),
        format!("{:08x}", report.quote_checksum),
    );
    compare(
        "signals",
        answers.signals.to_string(),
        report.signals.to_string(),
    );
    compare(
        "signals out of order",
        0.to_string(),
        answers.out_of_order.to_string(),
    );
    compare(
        "checksum of signals",
        checksum(&answers.checksum),
        format!("{:08x}", report.signal_checksum),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(sequence: u64) -> Quote {
        Quote {
            sequence,
            bid: 1.0 + sequence as f64,
            ask: 2.0,
            ..Quote::default()
        }
    }

    fn published(sequences: &[u64]) -> Published {
        let mut published = Published::default();
        sequences
            .iter()
            .for_each(|&sequence| published.add(&quote(sequence)));
        published
    }

    fn report(sequences: &[u64]) -> ReplayReport {
        let seen = published(sequences);
        ReplayReport {
            quotes: seen.quotes,
            bid_sum: seen.bid_sum,
            ask_sum: seen.ask_sum,
            quote_checksum: seen.checksum.finalize(),
            ..ReplayReport::default()
        }
    }

    #[test]
    fn equal_streams_do_not_differ_and_every_change_shows() {
        let sent = published(&[1, 2, 3]);
        let none = Answers::default();
        assert_eq!(
            differences(&report(&[1, 2, 3]), &sent, &none),
            Vec::<String>::new()
        );
        for other in [&[1, 2][..], &[1, 2, 2, 3], &[1, 3, 2], &[1, 2, 4]] {
            assert!(
                !differences(&report(other), &sent, &none).is_empty(),
                "{other:?}"
            );
        }
    }

    #[test]
    fn lost_and_repeated_signals_show() {
        let mut answers = Answers::default();
        for sequence in [1, 2, 2] {
            answers.add(&Signal {
                quote_sequence: sequence,
                ..Signal::default()
            });
        }
        assert_eq!(answers.out_of_order, 1);
        let found = differences(&report(&[]), &Published::default(), &answers);
        assert!(
            found
                .iter()
                .any(|line| line == "signals: publisher=3 worker=0"),
            "{found:?}"
        );
    }
}
