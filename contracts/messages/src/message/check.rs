//! Checks that generated `validate` functions are written with.

use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use super::{InlineString, InlineVec, WireBool};

/// Which rule a value breaks.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// Text or vec longer than its room, in bytes or elements: shorten the value.
    Length {
        /// Length found.
        length: usize,
        /// Largest length.
        max: usize,
    },
    /// Text or vec shorter than the contract asks for, in bytes or elements.
    TooShort {
        /// Length found.
        length: usize,
        /// Smallest length.
        min: usize,
    },
    /// Text that is not UTF-8.
    Utf8 {
        /// Bytes that are right.
        valid_up_to: usize,
    },
    /// Integer that no name of the enum has.
    Enum {
        /// Value found.
        value: i128,
    },
    /// Truth value that is neither 0 nor 1.
    Bool {
        /// Byte found.
        value: u8,
    },
    /// Zero where the contract asks for anything else.
    Zero,
    /// Integer outside of the contract's bounds.
    IntRange {
        /// Value found.
        value: i128,
        /// Smallest value.
        min: i128,
        /// Largest value.
        max: i128,
    },
    /// Float outside of the contract's bounds, or not a number.
    FloatRange {
        /// Value found.
        value: f64,
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Text with the prefix `0x`, which the contract leaves out.
    HexPrefix,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { length, max } => {
                write!(
                    f,
                    "length out of range: length={length}, max={max}; shorten the value"
                )
            }
            Self::TooShort { length, min } => {
                write!(
                    f,
                    "value too short: length={length}, min={min}; give a longer value"
                )
            }
            Self::Utf8 { valid_up_to } => {
                write!(
                    f,
                    "text is not UTF-8: valid_up_to={valid_up_to}; encode it as UTF-8"
                )
            }
            Self::Enum { value } => {
                write!(
                    f,
                    "value has no name in the enum: value={value}; use one of its constants"
                )
            }
            Self::Bool { value } => {
                write!(
                    f,
                    "not a truth value: value={value}, legal 0 or 1; write a bool"
                )
            }
            Self::Zero => write!(
                f,
                "value is zero: value=0; the contract asks for another one"
            ),
            Self::IntRange { value, min, max } => {
                write!(
                    f,
                    "value out of range: value={value}, min={min}, max={max}; stay inside"
                )
            }
            Self::FloatRange { value, min, max } => {
                write!(
                    f,
                    "value out of range: value={value}, min={min}, max={max}; stay inside"
                )
            }
            Self::HexPrefix => write!(f, "text starts with 0x: prefix=0x; leave the prefix out"),
        }
    }
}

/// A value that breaks a rule of its contract.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidationError {
    /// Message, or an empty string where the value is not in one yet.
    pub message: &'static str,
    /// Field, or an empty string where the value is not in one yet.
    pub field: &'static str,
    /// What is wrong.
    pub problem: Problem,
}

impl ValidationError {
    pub(super) fn unnamed(problem: Problem) -> Self {
        Self {
            message: "",
            field: "",
            problem,
        }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.is_empty() {
            write!(f, "message '{}', field '{}': ", self.message, self.field)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ValidationError {}

/// Checks fields of one message.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    message: &'static str,
}

type Checked = Result<(), ValidationError>;

impl Check {
    /// Starts the checks of a message.
    #[must_use]
    pub const fn new(message: &'static str) -> Self {
        Self { message }
    }

    fn ensure(self, field: &'static str, holds: bool, problem: Problem) -> Checked {
        if holds {
            return Ok(());
        }
        Err(ValidationError {
            message: self.message,
            field,
            problem,
        })
    }

    /// The stored length fits and the bytes are UTF-8.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn text<const N: usize>(self, field: &'static str, text: &InlineString<N>) -> Checked {
        let named = |failed| ValidationError {
            message: self.message,
            field,
            ..failed
        };
        text.as_str().map(|_| ()).map_err(named)
    }

    /// The stored number of elements fits.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn vec<T, const N: usize>(self, field: &'static str, vec: &InlineVec<T, N>) -> Checked
    where
        T: FromBytes + IntoBytes + Immutable + Unaligned + Copy,
    {
        let named = |failed| ValidationError {
            message: self.message,
            field,
            ..failed
        };
        vec.as_slice().map(|_| ()).map_err(named)
    }

    /// The byte is 0 or 1.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn truth(self, field: &'static str, value: WireBool) -> Checked {
        self.ensure(
            field,
            value.get().is_some(),
            Problem::Bool {
                value: value.byte(),
            },
        )
    }

    /// The value has a name.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn member(
        self,
        field: &'static str,
        name: Option<&'static str>,
        value: impl Into<i128>,
    ) -> Checked {
        self.ensure(
            field,
            name.is_some(),
            Problem::Enum {
                value: value.into(),
            },
        )
    }

    /// The length is at least `min`.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn min_length(self, field: &'static str, length: usize, min: usize) -> Checked {
        self.ensure(field, length >= min, Problem::TooShort { length, min })
    }

    /// At least one byte is not 0.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn not_zero<T: IntoBytes + Immutable>(self, field: &'static str, value: &T) -> Checked {
        self.ensure(
            field,
            value.as_bytes().iter().any(|&byte| byte != 0),
            Problem::Zero,
        )
    }

    /// The float is neither 0.0 nor -0.0.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn not_zero_float(self, field: &'static str, value: impl Into<f64>) -> Checked {
        self.ensure(field, value.into() != 0.0, Problem::Zero)
    }

    /// The integer lies inside the bounds, which belong to the range.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn int(self, field: &'static str, value: i128, min: i128, max: i128) -> Checked {
        let problem = Problem::IntRange { value, min, max };
        self.ensure(field, (min..=max).contains(&value), problem)
    }

    /// The float lies inside the bounds, which belong to the range; NaN never does.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn float(self, field: &'static str, value: impl Into<f64>, min: f64, max: f64) -> Checked {
        let value = value.into();
        let problem = Problem::FloatRange { value, min, max };
        self.ensure(field, value >= min && value <= max, problem)
    }

    /// The text does not start with `0x` or `0X`.
    ///
    /// # Errors
    ///
    /// If it does, or if it is no text.
    pub fn no_hex_prefix<const N: usize>(
        self,
        field: &'static str,
        text: &InlineString<N>,
    ) -> Checked {
        let named = |failed| ValidationError {
            message: self.message,
            field,
            ..failed
        };
        let text = text.as_str().map_err(named)?;
        let prefixed = text.starts_with("0x") || text.starts_with("0X");
        self.ensure(field, !prefixed, Problem::HexPrefix)
    }
}
