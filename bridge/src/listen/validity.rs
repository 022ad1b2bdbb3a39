//! Until when a certificate is valid, read from its DER form: the few fields on the way there, and nothing of the others.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The tag of the version, which old certificates leave out.
const VERSION: u8 = 0xA0;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The last second of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotAfter {
    /// Year, month, day, hour, minute and second, in UTC.
    parts: [u64; 6],
}

impl NotAfter {
    /// Looks for it in a certificate; `None` if it is not where it has to be.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, certificate)?;
        let (mut rest, _) = expect(SEQUENCE, certificate)?;
        if let Some((VERSION, _, behind)) = element(rest) {
            rest = behind;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            // Serial number, algorithm, issuer.
            rest = expect(tag, rest)?.1;
        }
        let (validity, _) = expect(SEQUENCE, rest)?;
        let (_, _, not_after) = element(validity)?;
        let (tag, text, _) = element(not_after)?;
        let digits = text.strip_suffix(b"Z")?;
        let century = match (tag, digits.len()) {
            // Two digits of the year: 1950 to 2049.
            (UTC_TIME, 12) if digits[0] >= b'5' => "19",
            (UTC_TIME, 12) => "20",
            (GENERALIZED_TIME, 14) => "",
            _ => return None,
        };
        let text = format!("{century}{}", std::str::from_utf8(digits).ok()?);
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
        let parts = [
            number(0..4)?,
            number(4..6)?,
            number(6..8)?,
            number(8..10)?,
            number(10..12)?,
            number(12..14)?,
        ];
        let is_date = (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]);
        is_date.then_some(Self { parts })
    }

    /// How long it is until then; zero once it is over.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        let at = UNIX_EPOCH + Duration::from_secs(self.seconds());
        at.duration_since(now).unwrap_or_default()
    }

    /// Seconds since 1970.
    fn seconds(&self) -> u64 {
        let [year, month, day, hour, minute, second] = self.parts;
        // Years that begin in March have their leap day at the end, and months of the same lengths.
        let (year, month) = match month {
            1 | 2 => (year.saturating_sub(1), month + 9),
            _ => (year, month - 3),
        };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
        // The first of March of the year 0 lies 719468 days before 1970; its day counts from 1.
        let days = days.saturating_sub(719_469);
        days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second
    }
}

impl fmt::Display for NotAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second] = self.parts;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// The first element: its tag, what is in it, and what comes behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // The number of bytes that the length takes; more than four are no certificate.
        let count = usize::from(first & 0x7F);
        let (digits, rest) = rest.split_at_checked(count)?;
        if !(1..=4).contains(&count) {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        (length, rest)
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, behind) = element(bytes)?;
    (found == tag).then_some((content, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(short @ 0..0x80) => bytes.push(short),
            _ => {
                bytes.push(0x82);
                bytes.extend((content.len() as u16).to_be_bytes());
            }
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(tag: u8, not_after: &str) -> Vec<u8> {
        let validity = [
            der(UTC_TIME, b"200101000000Z"),
            der(tag, not_after.as_bytes()),
        ]
        .concat();
        let fields = [
            der(VERSION, &der(INTEGER, &[2])),
            der(INTEGER, &[1; 20]),
            der(SEQUENCE, &[0; 3]),
            der(SEQUENCE, &[0; 300]),
            der(SEQUENCE, &validity),
            der(SEQUENCE, &[0; 200]),
        ];
        der(SEQUENCE, &der(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn the_end_is_found_in_both_notations() {
        // Seconds as `date -u -d … +%s` tells them.
        for (tag, text, seconds, shown) in [
            (UTC_TIME, "700101000000Z", 0, "1970-01-01T00:00:00Z"),
            (
                UTC_TIME,
                "240229235959Z",
                1_709_251_199,
                "2024-02-29T23:59:59Z",
            ),
            (
                UTC_TIME,
                "491231235959Z",
                2_524_607_999,
                "2049-12-31T23:59:59Z",
            ),
            (
                GENERALIZED_TIME,
                "20500301000000Z",
                2_529_705_600,
                "2050-03-01T00:00:00Z",
            ),
            (
                GENERALIZED_TIME,
                "99991231235959Z",
                253_402_300_799,
                "9999-12-31T23:59:59Z",
            ),
        ] {
            let found = NotAfter::of(&certificate(tag, text)).expect(text);
            assert_eq!(
                (found.seconds(), found.to_string().as_str()),
                (seconds, shown)
            );
        }
    }

    #[test]
    fn what_is_left_ends_at_zero() {
        let end = NotAfter::of(&certificate(UTC_TIME, "240229235959Z")).expect("a date");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(end.left(at(1_709_251_189)), Duration::from_secs(10));
        assert_eq!(end.left(at(1_709_251_200)), Duration::ZERO);
    }

    #[test]
    fn what_is_cut_off_or_no_date_has_no_end() {
        let whole = certificate(UTC_TIME, "240229235959Z");
        for length in 0..whole.len() {
            assert_eq!(NotAfter::of(&whole[..length]), None, "length={length}");
        }
        for text in [
            "241329235959Z",
            "24022923595Z",
            "2402292359xxZ",
            "240229235959",
        ] {
            assert_eq!(NotAfter::of(&certificate(UTC_TIME, text)), None, "{text}");
        }
        assert_eq!(NotAfter::of(&[0xFF; 64]), None);
    }
}
