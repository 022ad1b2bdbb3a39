//! Messages as serde knows them: a struct of the values that a program computes with (feature `serde`).
//!
//! - In formats for people, such as JSON, an enum is its name, bytes are hexadecimal digits, and 128-bit
//!   integers and floats that are not finite are strings; `NaN:7ff8000000000001` is a NaN with those bits.
//!   The number of an enum's value and digits after `0x` are understood too.
//! - In binary formats every value is of the format's own type, and an enum is its number.
//!
//! Reading ends with the message's validation, and so does writing begin. A field may be missing if zero is
//! legal for it, as in the constructors of Python; other missing fields, unknown ones and repeated ones are
//! errors. `log_payload: false` is about logs: it keeps values out of the texts of errors here too, and
//! does not keep a message from being written.
//!
//! Cost: reading allocates a list of the fields that were seen, and each list of numbers once.

mod bytes;
mod list;
mod number;
mod text;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserializer, Serialize, Serializer};

use super::{Message, NamedInt};

pub use list::Item;

/// A value inside of a message, written and read in its natural type.
pub trait Stored: Sized {
    /// Writes the value.
    ///
    /// # Errors
    ///
    /// If the format does not take it, or if the value cannot be read.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// If it is of another type or does not fit.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// The fields of a message, by number.
pub trait Fields: Message {
    /// Names of the members, in the order of their offsets.
    const NAMES: &'static [&'static str];
    /// Those that have to be given, because zero is not legal.
    const REQUIRED: &'static [&'static str];

    /// Writes all fields.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    fn write<S: SerializeStruct>(&self, out: &mut S) -> Result<(), S::Error>;

    /// Reads the field of this number; does nothing if there is none.
    ///
    /// # Errors
    ///
    /// If the value is of another type or does not fit.
    fn read<'de, D: Deserializer<'de>>(&mut self, index: usize, value: D) -> Result<(), D::Error>;
}

/// Writes a field.
///
/// # Errors
///
/// If the value cannot be written.
pub fn put<S: SerializeStruct, T: Stored>(
    out: &mut S,
    name: &'static str,
    value: &T,
) -> Result<(), S::Error> {
    out.serialize_field(name, &Outgoing(value))
}

/// Reads a field.
///
/// # Errors
///
/// If the value is of another type or does not fit.
pub fn get<'de, D: Deserializer<'de>, T: Stored>(member: &mut T, value: D) -> Result<(), D::Error> {
    *member = T::read(value)?;
    Ok(())
}

/// Writes a message.
///
/// # Errors
///
/// If the message is not valid, or if the format fails.
pub fn serialize<M: Fields, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
    message.validate().map_err(S::Error::custom)?;
    let mut out = serializer.serialize_struct(M::NAME, M::NAMES.len())?;
    message.write(&mut out)?;
    out.end()
}

/// Reads a message and validates it.
///
/// # Errors
///
/// If a field is unknown, missing or repeated, or if a value does not fit; with message and field.
pub fn deserialize<'de, M: Fields, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    deserializer.deserialize_struct(M::NAME, M::NAMES, MessageVisitor(PhantomData))
}

/// Writes a value of an enum: its name, or its number in a binary format.
///
/// # Errors
///
/// If the format does.
pub fn serialize_named<E, S>(value: E, serializer: S) -> Result<S::Ok, S::Error>
where
    E: NamedInt<Int: Stored>,
    S: Serializer,
{
    value.write(serializer)
}

/// Reads a value of an enum; one without a name is refused.
///
/// # Errors
///
/// If it has no name, or is of another type.
pub fn deserialize_named<'de, E, D>(deserializer: D) -> Result<E, D::Error>
where
    E: NamedInt<Int: Stored>,
    D: Deserializer<'de>,
{
    E::read(deserializer)
}

struct Outgoing<'a, T>(&'a T);

impl<T: Stored> Serialize for Outgoing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

struct Incoming<T>(PhantomData<T>);

impl<'de, T: Stored> DeserializeSeed<'de> for Incoming<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(deserializer)
    }
}

/// Reads one field into a message.
struct FieldOf<'a, M> {
    message: &'a mut M,
    index: usize,
}

impl<'de, M: Fields> DeserializeSeed<'de> for FieldOf<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.message.read(self.index, deserializer)
    }
}

struct MessageVisitor<M>(PhantomData<M>);

impl<M: Fields> MessageVisitor<M> {
    /// Names message and field in an error of a value, and leaves the value out if it must not be logged.
    fn named<E: serde::de::Error>(index: usize, failed: &E) -> E {
        let (message, field) = (M::NAME, M::NAMES[index]);
        if M::LOG_PAYLOAD {
            return E::custom(format_args!(
                "message '{message}', field '{field}': {failed}"
            ));
        }
        E::custom(format_args!(
            "message '{message}', field '{field}': value cannot be read: value=(not logged); \
             give one of the field's type"
        ))
    }

    fn finish<E: serde::de::Error>(message: M, seen: &[bool]) -> Result<M, E> {
        let is_missing =
            |name: &&&str| !seen[M::NAMES.iter().position(|one| one == *name).unwrap_or(0)];
        let missing: Vec<_> = M::REQUIRED.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            return Err(E::custom(format_args!(
                "message '{}', field '{}': fields are missing: missing={}; give them a value",
                M::NAME,
                missing[0],
                missing.join(", ")
            )));
        }
        message.validate().map_err(E::custom)?;
        Ok(message)
    }
}

impl<'de, M: Fields> Visitor<'de> for MessageVisitor<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fields of message '{}'", M::NAME)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<M, A::Error> {
        let mut message = M::new_zeroed();
        let mut seen = vec![false; M::NAMES.len()];
        while let Some(index) = map.next_key_seed(Name::<M>(PhantomData))? {
            if std::mem::replace(&mut seen[index], true) {
                return Err(A::Error::custom(format_args!(
                    "message '{}', field '{}': field is given twice; leave one out",
                    M::NAME,
                    M::NAMES[index]
                )));
            }
            let field = FieldOf {
                message: &mut message,
                index,
            };
            map.next_value_seed(field)
                .map_err(|failed| Self::named(index, &failed))?;
        }
        Self::finish(message, &seen)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<M, A::Error> {
        let mut message = M::new_zeroed();
        let expected = M::NAMES.len();
        for index in 0..expected {
            let field = FieldOf {
                message: &mut message,
                index,
            };
            let read = values
                .next_element_seed(field)
                .map_err(|failed| Self::named(index, &failed))?;
            if read.is_none() {
                return Err(A::Error::custom(format_args!(
                    "message '{}', field '{}': too few values: len={index}, expected={expected}; \
                     write it with the same contracts",
                    M::NAME,
                    M::NAMES[index]
                )));
            }
        }
        if values.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(format_args!(
                "message '{}': too many values: expected={expected}; write it with the same contracts",
                M::NAME
            )));
        }
        Self::finish(message, &vec![true; expected])
    }
}

/// The name of a field, or its number in formats that write those.
struct Name<M>(PhantomData<M>);

/// Longest part of an unknown name that an error shows, in characters.
const NAME_SHOWN: usize = 64;

impl<'de, M: Fields> DeserializeSeed<'de> for Name<M> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<M: Fields> Visitor<'_> for Name<M> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a field of message '{}'", M::NAME)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<usize, E> {
        let found = M::NAMES.iter().position(|one| *one == name);
        found.ok_or_else(|| {
            let shown: String = name.chars().take(NAME_SHOWN).collect();
            let (message, legal) = (M::NAME, M::NAMES.join(", "));
            E::custom(format_args!(
                "message '{message}': unknown field: name={shown:?}, legal: {legal}; leave it out"
            ))
        })
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<usize, E> {
        self.visit_str(&String::from_utf8_lossy(name))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<usize, E> {
        let count = M::NAMES.len();
        let found = usize::try_from(number).ok().filter(|&index| index < count);
        found.ok_or_else(|| {
            E::custom(format_args!(
                "message '{}': unknown field: number={number}, count={count}; leave it out",
                M::NAME
            ))
        })
    }
}
