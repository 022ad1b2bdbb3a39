//! Numbers whose memory form differs from Rust's own types.

use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! wide {
    ($name:ident, $native:ty, $doc:literal) => {
        #[doc = $doc]
        ///
        /// Aligned to 8 bytes on every platform, which Rust's own type is not.
        #[repr(C)]
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $name {
            low: u64,
            high: u64,
        }

        impl $name {
            /// Wraps a value.
            #[must_use]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "split in halves"
            )]
            pub const fn new(value: $native) -> Self {
                Self {
                    low: value as u64,
                    high: (value >> 64) as u64,
                }
            }

            /// The value.
            #[must_use]
            #[allow(
                clippy::cast_possible_wrap,
                clippy::cast_lossless,
                reason = "joins two halves"
            )]
            pub const fn get(self) -> $native {
                ((self.high as $native) << 64) | self.low as $native
            }
        }

        impl From<$native> for $name {
            fn from(value: $native) -> Self {
                Self::new(value)
            }
        }

        impl From<$name> for $native {
            fn from(value: $name) -> Self {
                value.get()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.get().fmt(f)
            }
        }
    };
}

wide!(U128, u128, "An unsigned 128-bit integer.");
wide!(I128, i128, "A signed 128-bit integer.");

/// A truth value as one byte: 0 or 1. Other bytes can arrive from a peer and count as invalid.
#[repr(transparent)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    zerocopy::Unaligned,
)]
pub struct WireBool(u8);

impl WireBool {
    /// Wraps a value.
    #[must_use]
    pub const fn new(value: bool) -> Self {
        Self(value as u8)
    }

    /// The value; `None` if the byte is neither 0 nor 1.
    #[must_use]
    pub const fn get(self) -> Option<bool> {
        match self.0 {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.0
    }
}

impl From<bool> for WireBool {
    fn from(value: bool) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for WireBool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => value.fmt(f),
            None => write!(f, "invalid({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_numbers_keep_their_value_and_are_little_endian() {
        for value in [0, 1, u128::MAX, u128::from(u64::MAX) + 1, 0x0102_0304 << 96] {
            assert_eq!(U128::new(value).get(), value);
            assert_eq!(U128::new(value).as_bytes(), value.to_le_bytes());
        }
        for value in [0, -1, i128::MIN, i128::MAX, -(1 << 64)] {
            assert_eq!(I128::new(value).get(), value);
            assert_eq!(I128::new(value).as_bytes(), value.to_le_bytes());
        }
    }

    #[test]
    fn a_byte_that_is_no_truth_value_is_none() {
        assert_eq!(WireBool::new(true).get(), Some(true));
        assert_eq!(WireBool(2).get(), None);
        assert_eq!(format!("{:?}", WireBool(2)), "invalid(2)");
    }
}
