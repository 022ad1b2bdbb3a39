//! The real quotes that the demo replays, again and again with the time moved on.

use std::fs;
use std::path::{Path, PathBuf};

use mycelium_messages::InlineString;
use mycelium_messages::bandit::Quote;

/// Pause between the last quote of a lap and the first of the next.
const LAP_PAUSE_NS: u64 = 1_000_000_000;

/// Why there are no quotes.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuotesError {
    #[error("cannot read quotes: file={}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("not a quote: {}:{line}: {text:?}; expected 'YYYYMMDD HHMMSSmmm,bid,ask,volume'", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        text: String,
    },
    #[error("no quotes in {}", path.display())]
    Empty { path: PathBuf },
}

/// A file of quotes as an endless stream.
pub(super) struct Quotes {
    lap: Vec<Quote>,
    lap_ns: u64,
}

impl Quotes {
    pub(super) fn load(path: &Path) -> Result<Self, QuotesError> {
        let text = fs::read_to_string(path).map_err(|source| QuotesError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut lap = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let quote = parse(line).ok_or_else(|| QuotesError::Line {
                path: path.to_owned(),
                line: index + 1,
                text: line.to_owned(),
            })?;
            lap.push(quote);
        }
        let (Some(first), Some(last)) = (lap.first(), lap.last()) else {
            return Err(QuotesError::Empty {
                path: path.to_owned(),
            });
        };
        let lap_ns = last.timestamp_ns - first.timestamp_ns + LAP_PAUSE_NS;
        Ok(Self { lap, lap_ns })
    }

    pub(super) fn lap_len(&self) -> usize {
        self.lap.len()
    }

    /// The quote with this number, counted from 1.
    pub(super) fn at(&self, sequence: u64) -> Quote {
        let index = sequence - 1;
        let lap_len = self.lap.len() as u64;
        let mut quote = self.lap[(index % lap_len) as usize];
        quote.sequence = sequence;
        quote.timestamp_ns += index / lap_len * self.lap_ns;
        quote
    }
}

fn parse(line: &str) -> Option<Quote> {
    let mut columns = line.trim_end().split(',');
    let timestamp_ns = timestamp_ns(columns.next()?)?;
    let mut number = || {
        columns
            .next()?
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
    };
    let (bid, ask, volume) = (number()?, number()?, number()?);
    let symbol = InlineString::new("EUR/USD").ok()?;
    Some(Quote {
        symbol,
        timestamp_ns,
        bid,
        ask,
        volume,
        ..Quote::default()
    })
}

/// Nanoseconds since the UNIX epoch of `YYYYMMDD HHMMSSmmm`, taken as UTC.
fn timestamp_ns(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    if date.len() != 8 || time.len() != 9 || !text.is_ascii() {
        return None;
    }
    let part = |text: &str, from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (part(date, 0, 4)?, part(date, 4, 6)?, part(date, 6, 8)?);
    let (hour, minute) = (part(time, 0, 2)?, part(time, 2, 4)?);
    let (second, milli) = (part(time, 4, 6)?, part(time, 6, 9)?);
    if !(1970..=2200).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds * 1000 + milli) * 1_000_000)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar from that day on. Years are taken to begin in March, so
/// that the leap day comes last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_feed_becomes_a_quote() {
        let quote = parse("20200101 170012579,1.121200,1.121610,0").expect("a quote");
        // date -u -d '2020-01-01 17:00:12.579' +%s%N
        assert_eq!(quote.timestamp_ns, 1_577_898_012_579_000_000);
        assert_eq!((quote.bid, quote.ask, quote.volume), (1.1212, 1.12161, 0.0));
        assert_eq!(quote.symbol.as_str().expect("text"), "EUR/USD");
    }

    #[test]
    fn leap_days_are_counted() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2024, 12, 31), 20_088),
        ] {
            assert_eq!(days_since_epoch(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn what_is_no_quote_is_refused() {
        for line in [
            "",
            "20200101 170012579",
            "20201301 170012579,1,2,0",
            "20200101 250012579,1,2,0",
            "20200101 170012579,a,2,0",
            "20200101 170012579,NaN,2,0",
        ] {
            assert!(parse(line).is_none(), "{line:?}");
        }
    }

    #[test]
    fn time_goes_on_from_lap_to_lap() {
        let quote = |text| parse(text).expect("a quote");
        let lap = vec![
            quote("20200101 170000000,1.1,1.2,0"),
            quote("20200101 170001000,1.3,1.4,0"),
        ];
        let quotes = Quotes {
            lap,
            lap_ns: 2_000_000_000,
        };
        let stream: Vec<_> = (1..=5).map(|sequence| quotes.at(sequence)).collect();
        assert!(
            stream
                .windows(2)
                .all(|pair| pair[0].timestamp_ns + 1_000_000_000 == pair[1].timestamp_ns)
        );
        assert_eq!((stream[4].sequence, stream[4].bid), (5, 1.1));
    }
}
