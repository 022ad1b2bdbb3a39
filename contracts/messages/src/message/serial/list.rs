//! Vecs, and arrays of arrays.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

use super::{Incoming, Outgoing, Stored, bytes};
use crate::message::check::Problem;
use crate::message::{Element, InlineVec, le};

/// An element of a vec; bytes are written as one value, everything else one after the other.
pub trait Item: Element + Stored {
    /// Writes all elements.
    ///
    /// # Errors
    ///
    /// If the format does.
    fn write_all<S: Serializer>(items: &[Self], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(Outgoing))
    }

    /// Reads at most `N` elements.
    ///
    /// # Errors
    ///
    /// If there are more, or if one is of another type.
    fn read_all<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<InlineVec<Self, N>, D::Error> {
        let items = deserializer.deserialize_seq(List::<Self>::up_to(N))?;
        InlineVec::new(&items).map_err(D::Error::custom)
    }
}

impl Item for u8 {
    fn write_all<S: Serializer>(items: &[Self], serializer: S) -> Result<S::Ok, S::Error> {
        bytes::write(items, serializer)
    }

    fn read_all<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<InlineVec<Self, N>, D::Error> {
        let read = bytes::read::<D, N>(deserializer)?;
        InlineVec::new(&read.bytes[..read.length]).map_err(D::Error::custom)
    }
}

impl Item for i8 {}

impl<const N: usize> Item for [u8; N] {}

macro_rules! numbers {
    ($($stored:ident: $native:ident),*) => {$(
        impl Stored for le::$stored {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.get().write(serializer)
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $native::read(deserializer).map(Self::new)
            }
        }

        impl Item for le::$stored {}
    )*};
}
numbers!(U16: u16, U32: u32, U64: u64, I16: i16, I32: i32, I64: i64, F32: f32, F64: f64);

struct List<T> {
    kind: PhantomData<T>,
    min: usize,
    max: usize,
}

impl<T> List<T> {
    fn up_to(max: usize) -> Self {
        Self {
            kind: PhantomData,
            min: 0,
            max,
        }
    }
}

impl<'de, T: Stored> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} to {} values", self.min, self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::with_capacity(values.size_hint().unwrap_or(0).min(self.max));
        while items.len() < self.max {
            match values.next_element_seed(Incoming(PhantomData))? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        let mut length = items.len();
        while length >= self.max && values.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        let (min, max) = (self.min, self.max);
        if length > max {
            return Err(A::Error::custom(Problem::Length { length, max }));
        }
        if length < min {
            return Err(A::Error::custom(Problem::TooShort { length, min }));
        }
        Ok(items)
    }
}

impl<T: Item, const N: usize> Stored for InlineVec<T, N> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = self.as_slice().map_err(serde::ser::Error::custom)?;
        T::write_all(items, serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read_all(deserializer)
    }
}

/// Rows of bytes. A list rather than a tuple of the format, which would have no length in front.
impl<const N: usize, const ROWS: usize> Stored for [[u8; N]; ROWS] {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Outgoing))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = List::<[u8; N]> {
            kind: PhantomData,
            min: ROWS,
            max: ROWS,
        };
        let rows = deserializer.deserialize_seq(list)?;
        let length = rows.len();
        let other = |_| D::Error::custom(Problem::Length { length, max: ROWS });
        rows.try_into().map_err(other)
    }
}
