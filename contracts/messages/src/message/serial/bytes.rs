//! Bytes: hexadecimal digits for people, bytes in binary formats.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use super::Stored;
use crate::message::check::Problem;

/// Up to `N` bytes.
pub(super) struct Bytes<const N: usize> {
    pub(super) bytes: [u8; N],
    pub(super) length: usize,
}

struct Hexadecimal<'a>(&'a [u8]);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub(super) fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&Hexadecimal(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

struct BytesVisitor<const N: usize> {
    /// Whether the bytes come as digits.
    text: bool,
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

impl<const N: usize> Visitor<'_> for BytesVisitor<N> {
    type Value = Bytes<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.text {
            ", two hexadecimal digits each"
        } else {
            ""
        };
        write!(f, "at most {N} bytes{digits}")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes<N>, E> {
        let length = bytes.len();
        let mut read = Bytes {
            bytes: [0; N],
            length,
        };
        let Some(target) = read.bytes.get_mut(..length) else {
            return Err(E::custom(Problem::Length { length, max: N }));
        };
        target.copy_from_slice(bytes);
        Ok(read)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes<N>, E> {
        let prefix = text.strip_prefix("0x").or(text.strip_prefix("0X"));
        let digits = prefix.unwrap_or(text).as_bytes();
        if !self.text
            || !digits.len().is_multiple_of(2)
            || !digits.iter().all(u8::is_ascii_hexdigit)
        {
            return Err(E::invalid_value(serde::de::Unexpected::Str(text), &self));
        }
        let length = digits.len() / 2;
        let mut read = Bytes {
            bytes: [0; N],
            length,
        };
        let Some(target) = read.bytes.get_mut(..length) else {
            return Err(E::custom(Problem::Length { length, max: N }));
        };
        for (byte, pair) in target.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0);
        }
        Ok(read)
    }
}

pub(super) fn read<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<Bytes<N>, D::Error> {
    let text = deserializer.is_human_readable();
    let visitor = BytesVisitor { text };
    if text {
        deserializer.deserialize_str(visitor)
    } else {
        deserializer.deserialize_bytes(visitor)
    }
}

impl<const N: usize> Stored for [u8; N] {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes { bytes, length } = read::<D, N>(deserializer)?;
        if length < N {
            return Err(D::Error::custom(Problem::TooShort { length, min: N }));
        }
        Ok(bytes)
    }
}
