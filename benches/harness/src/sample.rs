//! What comes out of one run of a case.

use std::io::Write as _;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What one run of a case measured. A latency case fills the latencies, a throughput case the rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Messages that were measured; a round trip is two.
    pub messages: u64,
    /// All messages that went through, checks and warm-up included.
    pub messages_total: u64,
    /// Time for the measured messages, in nanoseconds.
    pub elapsed_ns: u64,
    /// Half a round trip, in nanoseconds: the median over blocks of round trips, with one look at the clock per block.
    pub one_way_ns: Option<f64>,
    /// Single round trips, in nanoseconds, each with its own look at the clock.
    pub round_trip_ns: Option<Percentiles>,
    /// Messages in a second.
    pub rate: Option<f64>,
}

/// Percentiles of a distribution, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// 90 of 100 are not above this.
    pub p90: u64,
    /// 99 of 100 are not above this.
    pub p99: u64,
    /// 999 of 1000 are not above this.
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

impl Sample {
    /// A throughput sample.
    #[must_use]
    pub fn of_rate(messages: u64, messages_total: u64, elapsed: std::time::Duration) -> Self {
        Self {
            messages,
            messages_total,
            elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            rate: Some(messages as f64 / elapsed.as_secs_f64()),
            ..Self::default()
        }
    }

    /// Prints the sample as a line of JSON, for the program that started this one.
    ///
    /// # Errors
    ///
    /// If nobody reads standard output any more.
    pub fn print(&self) -> Result<(), Failure> {
        let line = serde_json::to_string(self).map_err(Failure::carrier("encode"))?;
        writeln!(std::io::stdout(), "{line}").map_err(Failure::carrier("print"))
    }
}

/// The middle value, or the mean of the two in the middle; not a number if there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_sample_survives_its_line_of_json() {
        let sample = Sample {
            one_way_ns: Some(1.5),
            round_trip_ns: Some(Percentiles {
                p99_9: 7,
                ..Percentiles::default()
            }),
            ..Sample::of_rate(10, 20, std::time::Duration::from_secs(2))
        };
        assert_eq!(sample.rate, Some(5.0));
        let line = serde_json::to_string(&sample).expect("encode");
        assert!(line.contains("\"p99.9\":7"), "{line}");
        assert_eq!(
            serde_json::from_str::<Sample>(&line).expect("decode"),
            sample
        );
    }
}
