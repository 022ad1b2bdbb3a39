//! Until when a certificate is valid.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};

/// The last second of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotAfter(DateTime);

impl NotAfter {
    /// That of a certificate in DER form; `None` if it is none that can be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate.validity;
        Some(Self(validity.not_after.to_date_time()))
    }

    /// How long it is until then; zero once it is over.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        let at = UNIX_EPOCH + self.0.unix_duration();
        at.duration_since(now).unwrap_or_default()
    }
}

impl fmt::Display for NotAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_ends_at_zero() {
        let end = NotAfter(DateTime::new(2024, 2, 29, 23, 59, 59).expect("a date"));
        assert_eq!(end.to_string(), "2024-02-29T23:59:59Z");
        // As `date -u -d … +%s` tells it.
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(end.left(at(1_709_251_189)), Duration::from_secs(10));
        assert_eq!(end.left(at(1_709_251_200)), Duration::ZERO);
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        assert_eq!(NotAfter::of(&[]), None);
        assert_eq!(NotAfter::of(&[0xFF; 64]), None);
    }
}
