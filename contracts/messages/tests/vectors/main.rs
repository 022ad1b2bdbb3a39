//! The generated types against the test vectors: the same files that the Python suite reads.
//!
//! Every case is taken both ways, values to bytes and bytes to values, and both languages have to
//! agree on whether its values are valid.

mod bandit;
mod control;
#[allow(dead_code, unreachable_pub, reason = "generated for a library")]
#[path = "../../../tests/golden/grammar.rs"]
mod golden;
mod grammar;

use mycelium_messages::message::{I128, U128, WireBool};
use mycelium_messages::zerocopy::little_endian::{F32, F64, I16, I32, I64, U16, U32, U64};
use mycelium_messages::zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};
use mycelium_messages::{InlineString, InlineVec, Message};
use serde_json::{Map, Value};

/// A field as it stands in a vector.
pub(crate) trait Wire: Sized {
    fn read(value: &Value) -> Self;
    fn write(&self) -> Value;
}

pub(crate) fn read<T: Wire>(value: &Value) -> T {
    T::read(value)
}

pub(crate) fn put<T: Wire>(values: &mut Map<String, Value>, name: &str, value: &T) {
    values.insert(name.to_owned(), value.write());
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn read(value: &Value) -> Self {
                let wide = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
                Self::try_from(wide.expect("an integer")).expect("in range")
            }
            fn write(&self) -> Value {
                Value::from(*self)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! texts {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn read(value: &Value) -> Self {
                Self::new(value.as_str().expect("a string").parse().expect("an integer"))
            }
            fn write(&self) -> Value {
                Value::from(self.get().to_string())
            }
        }
    )*};
}
texts!(U128, I128);

macro_rules! elements {
    ($($type:ty: $native:ty),*) => {$(
        impl Wire for $type {
            fn read(value: &Value) -> Self {
                Self::new(<$native>::read(value))
            }
            fn write(&self) -> Value {
                self.get().write()
            }
        }
    )*};
}
elements!(U16: u16, U32: u32, U64: u64, I16: i16, I32: i32, I64: i64, F32: f32, F64: f64);

impl Wire for f64 {
    fn read(value: &Value) -> Self {
        match value {
            Value::String(text) => text.parse().expect("inf, -inf or NaN"),
            other => other.as_f64().expect("a number"),
        }
    }

    fn write(&self) -> Value {
        if self.is_finite() {
            Value::from(*self)
        } else {
            Value::from(self.to_string())
        }
    }
}

impl Wire for f32 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the vector holds a 32-bit number"
    )]
    fn read(value: &Value) -> Self {
        f64::read(value) as f32
    }

    fn write(&self) -> Value {
        f64::from(*self).write()
    }
}

impl Wire for WireBool {
    fn read(value: &Value) -> Self {
        Self::new(value.as_bool().expect("true or false"))
    }

    fn write(&self) -> Value {
        Value::from(self.get().expect("0 or 1"))
    }
}

impl<const N: usize> Wire for InlineString<N> {
    fn read(value: &Value) -> Self {
        Self::new(value.as_str().expect("a string")).expect("short enough")
    }

    fn write(&self) -> Value {
        Value::from(self.as_str().expect("UTF-8"))
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn read(value: &Value) -> Self {
        bytes(value).try_into().expect("the right length")
    }

    fn write(&self) -> Value {
        Value::from(hex(self))
    }
}

impl<const N: usize, const M: usize> Wire for [[u8; N]; M] {
    fn read(value: &Value) -> Self {
        let rows: Vec<_> = value
            .as_array()
            .expect("a list")
            .iter()
            .map(Wire::read)
            .collect();
        rows.try_into().expect("the right number of rows")
    }

    fn write(&self) -> Value {
        self.iter().map(Wire::write).collect()
    }
}

impl<T, const N: usize> Wire for InlineVec<T, N>
where
    T: Wire + FromBytes + IntoBytes + Immutable + Unaligned + Copy + 'static,
{
    fn read(value: &Value) -> Self {
        // A vec of bytes is one string of digits, any other vec a list.
        let items: Vec<T> = match value {
            Value::Array(items) => items.iter().map(Wire::read).collect(),
            text => bytes(text)
                .into_iter()
                .map(|byte| T::read(&Value::from(byte)))
                .collect(),
        };
        Self::new(&items).expect("short enough")
    }

    fn write(&self) -> Value {
        let items = self.as_slice().expect("a length in range");
        if std::any::TypeId::of::<T>() == std::any::TypeId::of::<u8>() {
            return Value::from(hex(items.as_bytes()));
        }
        items.iter().map(Wire::write).collect()
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal digits");
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes one case both ways.
pub(crate) fn check<M: Message>(case: &Value, build: fn(&Value) -> M, values: fn(&M) -> Value) {
    let name = format!("{} {}", M::NAME, case["name"]);
    let expected = bytes(&case["bytes"]);
    let message = build(&case["values"]);
    assert_eq!(
        hex(message.as_bytes()),
        hex(&expected),
        "{name}: values to bytes"
    );
    let read = M::read_from_bytes(&expected).expect("the right size");
    assert_eq!(values(&read), case["values"], "{name}: bytes to values");
    let valid = read.validate();
    assert_eq!(valid.is_ok(), case["valid"] == true, "{name}: {valid:?}");
}

/// Runs a file of vectors; every message of the generated list must be in it.
fn run_file(text: &str, names: &[&str], run: fn(&str, &Value), schema_digest: [u8; 32]) {
    let file: Value = serde_json::from_str(text).expect("vectors are JSON");
    assert_eq!(file["schema_digest"], hex(&schema_digest));
    let messages = file["messages"].as_array().expect("a list");
    let found: Vec<_> = messages
        .iter()
        .filter_map(|message| message["name"].as_str())
        .collect();
    assert_eq!(found, names);
    for message in messages {
        let cases = message["cases"].as_array().expect("a list");
        assert_eq!(cases.len(), 5, "{}", message["name"]);
        for case in cases {
            run(message["name"].as_str().expect("a name"), case);
        }
    }
}

#[test]
fn application_messages_agree_with_their_vectors() {
    let text = include_str!("../../../vectors/bandit.json");
    run_file(
        text,
        bandit::NAMES,
        bandit::run,
        mycelium_messages::bandit::SCHEMA_DIGEST,
    );
}

#[test]
fn control_frames_agree_with_their_vectors() {
    let text = include_str!("../../../vectors/control.json");
    run_file(
        text,
        control::NAMES,
        control::run,
        mycelium_messages::control::SCHEMA_DIGEST,
    );
}

#[test]
fn every_type_of_the_grammar_agrees_with_its_vectors() {
    let text = include_str!("../../../tests/golden/grammar.json");
    run_file(text, grammar::NAMES, grammar::run, golden::SCHEMA_DIGEST);
}

#[test]
fn names_of_enum_values_and_unknown_values_can_be_told_apart() {
    assert_eq!(golden::RulesState::DOWN.name(), Some("DOWN"));
    assert_eq!(golden::RulesState(7).name(), None);
    assert_eq!(format!("{:?}", golden::RulesState(7)), "RulesState(7)");
    let mut rules = golden::OtherRules {
        colour: golden::Colour::RED,
        ..Default::default()
    };
    assert!(rules.validate().is_ok());
    rules.state = golden::OtherRulesState(9);
    let failed = rules.validate().expect_err("no such value");
    let expected = "message 'OtherRules', field 'state': value has no name in the enum: value=9; use one of its constants";
    assert_eq!(failed.to_string(), expected);
}
