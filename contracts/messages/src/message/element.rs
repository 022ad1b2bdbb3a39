//! What a vec can hold: types without alignment, each with a type of Rust that has the same bytes.

use std::fmt;
use zerocopy::little_endian::{F32, F64, I16, I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use super::show::Hex;

/// An element of a vec: an integer of one byte, a little-endian number, or an array of bytes.
pub trait Element: FromBytes + IntoBytes + Immutable + Unaligned + Copy + 'static {
    /// The type that a program computes with; its bytes are the same.
    type Native: FromBytes + IntoBytes + Immutable + Copy + PartialEq + 'static;

    /// Writes the element as it looks in a log.
    ///
    /// # Errors
    ///
    /// If the formatter does.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes a list of elements; bytes are one string of hexadecimal digits.
    ///
    /// # Errors
    ///
    /// If the formatter does.
    fn show_all(items: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show::list(items, Self::show, f)
    }
}

impl Element for u8 {
    type Native = Self;

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }

    fn show_all(items: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Hex(items), f)
    }
}

impl Element for i8 {
    type Native = Self;

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Element for [u8; N] {
    type Native = Self;

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Hex(self), f)
    }
}

macro_rules! numbers {
    ($($stored:ty: $native:ty),*) => {$(
        impl Element for $stored {
            type Native = $native;

            fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.get(), f)
            }
        }
    )*};
}
numbers!(U16: u16, U32: u32, U64: u64, I16: i16, I32: i32, I64: i64, F32: f32, F64: f64);
