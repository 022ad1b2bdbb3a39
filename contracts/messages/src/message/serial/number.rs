//! Integers, floats, truth values and enums.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use super::Stored;
use crate::message::check::Problem;
use crate::message::{I128, NamedInt, U128, WireBool};

/// An integer of any width, as all formats can give one.
trait Integer: TryFrom<i128> + TryFrom<u128> + fmt::Display {
    const MIN: Self;
    const MAX: Self;
}

struct Int<T> {
    kind: PhantomData<T>,
    /// Whether the integer may be a string.
    text: bool,
}

impl<T: Integer> Int<T> {
    const NUMBER: Self = Self {
        kind: PhantomData,
        text: false,
    };
    const NUMBER_OR_TEXT: Self = Self {
        kind: PhantomData,
        text: true,
    };
}

fn out_of_range<T: Integer, E: Error>(value: impl fmt::Display) -> E {
    E::custom(format_args!(
        "value out of range: value={value}, min={}, max={}; stay inside",
        T::MIN,
        T::MAX
    ))
}

impl<T: Integer> Visitor<'_> for Int<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.text {
            ", as a string if it has more than 64 bits"
        } else {
            ""
        };
        write!(f, "an integer from {} to {}{text}", T::MIN, T::MAX)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_u128(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.visit_i128(value.into())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<T, E> {
        T::try_from(value).map_err(|_| out_of_range::<T, E>(value))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<T, E> {
        T::try_from(value).map_err(|_| out_of_range::<T, E>(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let refused = || E::invalid_type(serde::de::Unexpected::Str(text), &self);
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !self.text || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let value = match text.parse::<i128>() {
            Ok(value) => T::try_from(value).ok(),
            Err(_) => text
                .parse()
                .ok()
                .and_then(|value: u128| value.try_into().ok()),
        };
        value.ok_or_else(|| out_of_range::<T, E>(format_args!("{text:.50}")))
    }
}

macro_rules! integers {
    ($($native:ident: $write:ident, $read:ident);*) => {$(
        impl Integer for $native {
            const MIN: Self = $native::MIN;
            const MAX: Self = $native::MAX;
        }

        impl Stored for $native {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.$write(*self)
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.$read(Int::<Self>::NUMBER)
            }
        }
    )*};
}
integers!(
    u8: serialize_u8, deserialize_u8; i8: serialize_i8, deserialize_i8;
    u16: serialize_u16, deserialize_u16; i16: serialize_i16, deserialize_i16;
    u32: serialize_u32, deserialize_u32; i32: serialize_i32, deserialize_i32;
    u64: serialize_u64, deserialize_u64; i64: serialize_i64, deserialize_i64
);

/// A string for people, because most readers of JSON lose what a float does not hold.
macro_rules! wide {
    ($($stored:ident, $native:ident: $write:ident, $read:ident);*) => {$(
        impl Integer for $native {
            const MIN: Self = $native::MIN;
            const MAX: Self = $native::MAX;
        }

        impl Stored for $stored {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(&self.get())
                } else {
                    serializer.$write(self.get())
                }
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_any(Int::<$native>::NUMBER_OR_TEXT).map(Self::new)
                } else {
                    deserializer.$read(Int::<$native>::NUMBER).map(Self::new)
                }
            }
        }
    )*};
}
wide!(
    U128, u128: serialize_u128, deserialize_u128;
    I128, i128: serialize_i128, deserialize_i128
);

struct Float<T> {
    kind: PhantomData<T>,
    /// Whether values that are not finite come as strings.
    text: bool,
}

/// A float is written with 64 bits for people, as Python does: the digits then are the same in both.
macro_rules! floats {
    ($($native:ident, $bits:ident: $write:ident, $read:ident, $narrow:expr);*) => {$(
        impl Stored for $native {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if !serializer.is_human_readable() {
                    serializer.$write(*self)
                } else if self.is_finite() {
                    serializer.serialize_f64(f64::from(*self))
                } else if self.is_nan() && self.to_bits() != Self::NAN.to_bits() {
                    let digits = 2 * size_of::<Self>();
                    serializer.collect_str(&format_args!("NaN:{:0digits$x}", self.to_bits()))
                } else {
                    serializer.collect_str(self)
                }
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = deserializer.is_human_readable();
                let visitor = Float { kind: PhantomData::<Self>, text };
                if text {
                    deserializer.deserialize_any(visitor)
                } else {
                    deserializer.$read(visitor)
                }
            }
        }

        #[allow(clippy::cast_precision_loss, reason = "as Python reads integers")]
        impl Visitor<'_> for Float<$native> {
            type Value = $native;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = if self.text { ", 'inf', '-inf' or 'NaN'" } else { "" };
                write!(f, "a number{text}")
            }

            fn visit_f32<E: Error>(self, value: f32) -> Result<$native, E> {
                Ok(value.into())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<$native, E> {
                let narrow: fn(f64) -> $native = $narrow;
                let narrowed = narrow(value);
                if value.is_finite() && !narrowed.is_finite() {
                    let (min, max) = ($native::MIN, $native::MAX);
                    return Err(E::custom(format_args!(
                        "value out of range: value={value:e}, min={min:e}, max={max:e}; stay inside"
                    )));
                }
                Ok(narrowed)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<$native, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<$native, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<$native, E> {
                let value = match text {
                    "inf" => Some($native::INFINITY),
                    "-inf" => Some($native::NEG_INFINITY),
                    "NaN" => Some($native::NAN),
                    _ => text
                        .strip_prefix("NaN:")
                        .and_then(|bits| $bits::from_str_radix(bits, 16).ok())
                        .map($native::from_bits)
                        .filter(|value| value.is_nan()),
                };
                value
                    .filter(|_| self.text)
                    .ok_or_else(|| E::invalid_type(serde::de::Unexpected::Str(text), &self))
            }
        }
    )*};
}
#[allow(
    clippy::cast_possible_truncation,
    reason = "what is too large is refused"
)]
const NARROW: fn(f64) -> f32 = |value| value as f32;
floats!(
    f32, u32: serialize_f32, deserialize_f32, NARROW;
    f64, u64: serialize_f64, deserialize_f64, |value| value
);

struct Truth;

impl Visitor<'_> for Truth {
    type Value = WireBool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<WireBool, E> {
        Ok(WireBool::new(value))
    }
}

impl Stored for WireBool {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.get() {
            Some(value) => serializer.serialize_bool(value),
            None => Err(serde::ser::Error::custom(Problem::Bool {
                value: Some(self.byte()),
            })),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bool(Truth)
    }
}

struct Named<E>(PhantomData<E>);

impl<N: NamedInt> Visitor<'_> for Named<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of ")?;
        for (number, (name, value)) in N::MEMBERS.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={}", value.value())?;
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<N, E> {
        let unexpected = serde::de::Unexpected::Str(name);
        N::from_name(name).ok_or_else(|| E::invalid_value(unexpected, &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<N, E> {
        let unexpected = serde::de::Unexpected::Unsigned(value);
        N::from_value(value.into()).ok_or_else(|| E::invalid_value(unexpected, &self))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<N, E> {
        let unexpected = serde::de::Unexpected::Signed(value);
        N::from_value(value.into()).ok_or_else(|| E::invalid_value(unexpected, &self))
    }
}

impl<N: NamedInt<Int: Stored>> Stored for N {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.member_name() {
            Some(name) if serializer.is_human_readable() => serializer.serialize_str(name),
            _ => self.value().write(serializer),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Named(PhantomData));
        }
        let value: i128 = N::Int::read(deserializer)?.into();
        let no_name = || D::Error::custom(Problem::Enum { value: Some(value) });
        N::from_value(value).ok_or_else(no_name)
    }
}
