//! Checks that generated `validate` functions are written with.

use std::fmt;
use zerocopy::{Immutable, IntoBytes};

use super::{Element, InlineString, InlineVec, Message, NamedInt, WireBool};

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
        /// Value found; `None` where the contract says not to log it.
        value: Option<i128>,
    },
    /// Truth value that is neither 0 nor 1.
    Bool {
        /// Byte found; `None` where the contract says not to log it.
        value: Option<u8>,
    },
    /// Zero where the contract asks for anything else.
    Zero,
    /// Integer outside of the contract's bounds.
    IntRange {
        /// Value found; `None` where the contract says not to log it.
        value: Option<i128>,
        /// Smallest value.
        min: i128,
        /// Largest value.
        max: i128,
    },
    /// Float outside of the contract's bounds, or not a number.
    FloatRange {
        /// Value found; `None` where the contract says not to log it.
        value: Option<f64>,
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Text with the prefix `0x`, which the contract leaves out.
    HexPrefix,
}

impl Problem {
    /// The same without the value.
    fn without_value(mut self) -> Self {
        match &mut self {
            Self::Enum { value } | Self::IntRange { value, .. } => *value = None,
            Self::Bool { value } => *value = None,
            Self::FloatRange { value, .. } => *value = None,
            Self::Length { .. }
            | Self::TooShort { .. }
            | Self::Utf8 { .. }
            | Self::Zero
            | Self::HexPrefix => {}
        }
        self
    }
}

/// A value, or what stands for it.
struct Shown<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("(not logged)"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { length, max } => write!(
                f,
                "length out of range: length={length}, max={max}; shorten the value"
            ),
            Self::TooShort { length, min } => write!(
                f,
                "value too short: length={length}, min={min}; give a longer value"
            ),
            Self::Utf8 { valid_up_to } => write!(
                f,
                "text is not UTF-8: valid_up_to={valid_up_to}; encode it as UTF-8"
            ),
            Self::Enum { value } => write!(
                f,
                "value has no name in the enum: value={}; use one of its constants",
                Shown(value)
            ),
            Self::Bool { value } => write!(
                f,
                "not a truth value: value={}, legal 0 or 1; write a bool",
                Shown(value)
            ),
            Self::Zero => f.write_str("value is zero: value=0; the contract asks for another one"),
            Self::IntRange { value, min, max } => write!(
                f,
                "value out of range: value={}, min={min}, max={max}; stay inside",
                Shown(value)
            ),
            Self::FloatRange { value, min, max } => write!(
                f,
                "value out of range: value={}, min={min}, max={max}; stay inside",
                Shown(value)
            ),
            Self::HexPrefix => f.write_str("text starts with 0x: prefix=0x; leave the prefix out"),
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
    log_payload: bool,
}

type Checked = Result<(), ValidationError>;

impl Check {
    /// Starts the checks of a message.
    #[must_use]
    pub const fn of<M: Message>() -> Self {
        Self {
            message: M::NAME,
            log_payload: M::LOG_PAYLOAD,
        }
    }

    fn error(self, field: &'static str, problem: Problem) -> ValidationError {
        ValidationError {
            message: self.message,
            field,
            problem: if self.log_payload {
                problem
            } else {
                problem.without_value()
            },
        }
    }

    fn ensure(self, field: &'static str, holds: bool, problem: Problem) -> Checked {
        if holds {
            Ok(())
        } else {
            Err(self.error(field, problem))
        }
    }

    /// Names the message and the field in an error of a value.
    fn named<T>(
        self,
        field: &'static str,
        outcome: Result<T, ValidationError>,
    ) -> Result<T, ValidationError> {
        outcome.map_err(|failed| self.error(field, failed.problem))
    }

    /// The text, if its stored length fits and its bytes are UTF-8.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn text<'a, const N: usize>(
        self,
        field: &'static str,
        text: &'a InlineString<N>,
    ) -> Result<&'a str, ValidationError> {
        self.named(field, text.as_str())
    }

    /// The elements, if their stored number fits.
    ///
    /// # Errors
    ///
    /// If not.
    ///
    /// # Panics
    ///
    /// If the vec is not inside of a message, which is what aligns it.
    pub fn vec<'a, T: Element, const N: usize>(
        self,
        field: &'static str,
        vec: &'a InlineVec<T, N>,
    ) -> Result<&'a [T::Native], ValidationError> {
        let items = self.named(field, vec.as_native())?;
        Ok(items.expect("messages align their vecs, which is asserted at compile time"))
    }

    /// Stores a text, if it fits.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn store_text<const N: usize>(
        self,
        field: &'static str,
        text: &str,
    ) -> Result<InlineString<N>, ValidationError> {
        self.named(field, InlineString::new(text))
    }

    /// Stores elements, if they fit.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn store_vec<T: Element, const N: usize>(
        self,
        field: &'static str,
        items: &[T::Native],
    ) -> Result<InlineVec<T, N>, ValidationError> {
        self.named(field, InlineVec::from_native(items))
    }

    /// The truth value, if the byte is 0 or 1.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn truth(self, field: &'static str, value: WireBool) -> Result<bool, ValidationError> {
        let byte = Some(value.byte());
        let failed = || self.error(field, Problem::Bool { value: byte });
        value.get().ok_or_else(failed)
    }

    /// The value has a name.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn member<E: NamedInt>(self, field: &'static str, value: E) -> Checked {
        let named = value.member_name().is_some();
        let value = Some(value.value().into());
        self.ensure(field, named, Problem::Enum { value })
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
        let problem = Problem::IntRange {
            value: Some(value),
            min,
            max,
        };
        self.ensure(field, (min..=max).contains(&value), problem)
    }

    /// The float lies inside the bounds, which belong to the range; NaN never does.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn float(self, field: &'static str, value: impl Into<f64>, min: f64, max: f64) -> Checked {
        let value = value.into();
        let problem = Problem::FloatRange {
            value: Some(value),
            min,
            max,
        };
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
        let text = self.text(field, text)?;
        let prefixed = text.starts_with("0x") || text.starts_with("0X");
        self.ensure(field, !prefixed, Problem::HexPrefix)
    }
}
