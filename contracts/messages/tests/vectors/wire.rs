//! Values as they stand in JSON between two languages.
//!
//! Integers and finite floats are numbers; 128-bit integers and floats that are not finite are strings, and
//! a NaN with other bits than the usual ones is followed by them: `NaN:7ff8000000000001`. Bytes are
//! hexadecimal digits. A float is written so that reading it gives the same bits.

use mycelium_messages::{Message, ValidationError};
use serde_json::{Map, Value};

/// A message or its values, or what is wrong with them.
pub(crate) type Checked<T> = Result<T, ValidationError>;
/// Builds a message from its values.
pub(crate) type Build<M> = fn(&Value) -> Checked<M>;
/// Reads the values of a message.
pub(crate) type Values<M> = fn(&M) -> Checked<Value>;

/// Sees every message type of a contracts file.
pub(crate) trait Visitor {
    fn visit<M: Message>(&mut self, build: Build<M>, values: Values<M>);
}

/// A value of a field.
pub(crate) trait Wire: Sized {
    fn read(value: &Value) -> Self;
    fn write(&self) -> Value;

    fn read_all(values: &Value) -> Vec<Self> {
        let values = values.as_array().expect("a list");
        values.iter().map(Self::read).collect()
    }

    fn write_all(items: &[Self]) -> Value {
        items.iter().map(Self::write).collect()
    }
}

pub(crate) fn read<T: Wire>(value: &Value) -> T {
    T::read(value)
}

pub(crate) fn put<T: Write + ?Sized>(values: &mut Map<String, Value>, name: &str, value: &T) {
    values.insert(name.to_owned(), value.written());
}

/// A value that may be borrowed.
pub(crate) trait Write {
    fn written(&self) -> Value;
}

impl Write for &str {
    fn written(&self) -> Value {
        Value::from(*self)
    }
}

impl<T: Wire> Write for &[T] {
    fn written(&self) -> Value {
        T::write_all(self)
    }
}

impl<T: Wire> Write for T {
    fn written(&self) -> Value {
        self.write()
    }
}

impl Wire for u8 {
    fn read(value: &Value) -> Self {
        Self::try_from(value.as_u64().expect("an integer")).expect("in range")
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }

    fn read_all(values: &Value) -> Vec<Self> {
        bytes(values)
    }

    fn write_all(items: &[Self]) -> Value {
        Value::from(hex(items))
    }
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
integers!(u16, u32, u64, i8, i16, i32, i64);

macro_rules! wide {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn read(value: &Value) -> Self {
                value.as_str().expect("a string").parse().expect("an integer")
            }
            fn write(&self) -> Value {
                Value::from(self.to_string())
            }
        }
    )*};
}
wide!(u128, i128);

macro_rules! floats {
    ($($type:ty: $bits:ty),*) => {$(
        impl Wire for $type {
            #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast, reason = "the value was widened")]
            fn read(value: &Value) -> Self {
                match value {
                    Value::String(text) => match text.split_once(':') {
                        Some((_, bits)) => Self::from_bits(<$bits>::from_str_radix(bits, 16).expect("bits")),
                        None => text.parse().expect("inf, -inf or NaN"),
                    },
                    other => other.as_f64().expect("a number") as Self,
                }
            }
            fn write(&self) -> Value {
                if self.is_finite() {
                    Value::from(f64::from(*self))
                } else if self.is_nan() && self.to_bits() != Self::NAN.to_bits() {
                    Value::from(format!("NaN:{:01$x}", self.to_bits(), 2 * size_of::<Self>()))
                } else {
                    Value::from(self.to_string())
                }
            }
        }
    )*};
}
floats!(f32: u32, f64: u64);

impl Wire for bool {
    fn read(value: &Value) -> Self {
        value.as_bool().expect("true or false")
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

impl Wire for String {
    fn read(value: &Value) -> Self {
        value.as_str().expect("a string").to_owned()
    }

    fn write(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(value: &Value) -> Self {
        T::read_all(value)
    }

    fn write(&self) -> Value {
        T::write_all(self)
    }
}

/// `[u8; N]` is a string of digits, `[[u8; N]; M]` a list of them.
impl<T: Wire, const N: usize> Wire for [T; N] {
    fn read(value: &Value) -> Self {
        let items = T::read_all(value);
        let Ok(items) = items.try_into() else {
            panic!("not {N} elements: {value}")
        };
        items
    }

    fn write(&self) -> Value {
        T::write_all(self)
    }
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal digits");
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(pair).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
