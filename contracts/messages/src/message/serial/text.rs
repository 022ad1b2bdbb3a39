//! Texts.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use super::Stored;
use crate::message::InlineString;

struct Text<const N: usize>;

impl<const N: usize> Visitor<'_> for Text<N> {
    type Value = InlineString<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text of at most {N} bytes in UTF-8")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<InlineString<N>, E> {
        InlineString::new(text).map_err(E::custom)
    }
}

impl<const N: usize> Stored for InlineString<N> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.as_str().map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}
