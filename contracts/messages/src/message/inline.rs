//! Text and vecs that lie inside the message, with a length in front and zeros behind.

use std::fmt;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::check::{Problem, ValidationError};
use super::element::Element;
use super::show;

/// UTF-8 text of at most `CAPACITY` bytes: u16 length, six zero bytes, the text, zeros.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct InlineString<const CAPACITY: usize> {
    length: U16,
    zeros: [u8; 6],
    bytes: [u8; CAPACITY],
}

impl<const CAPACITY: usize> InlineString<CAPACITY> {
    /// Copies a text.
    ///
    /// # Errors
    ///
    /// If the text has more than `CAPACITY` bytes.
    pub fn new(text: &str) -> Result<Self, ValidationError> {
        match u16::try_from(text.len()) {
            Ok(_) if text.len() <= CAPACITY => Ok(Self::truncated(text)),
            _ => Err(ValidationError::unnamed(Problem::Length {
                length: text.len(),
                max: CAPACITY,
            })),
        }
    }

    /// Copies as much of a text as fits, cut at a character boundary.
    #[must_use]
    #[allow(
        clippy::missing_panics_doc,
        reason = "the capacity is at most u16::MAX"
    )]
    pub fn truncated(text: &str) -> Self {
        let mut length = text.len().min(CAPACITY).min(usize::from(u16::MAX));
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; CAPACITY];
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        let length = U16::new(u16::try_from(length).expect("bounded above"));
        Self {
            length,
            zeros: [0; 6],
            bytes,
        }
    }

    /// Largest length in bytes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        CAPACITY
    }

    /// Length in bytes as stored, which may be out of range in a message from a peer.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.length.get())
    }

    /// Whether the stored length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text.
    ///
    /// # Errors
    ///
    /// If the stored length exceeds `CAPACITY`, or the bytes are not UTF-8.
    pub fn as_str(&self) -> Result<&str, ValidationError> {
        let length = self.len();
        let Some(bytes) = self.bytes.get(..length) else {
            return Err(ValidationError::unnamed(Problem::Length {
                length,
                max: CAPACITY,
            }));
        };
        std::str::from_utf8(bytes).map_err(|failed| {
            ValidationError::unnamed(Problem::Utf8 {
                valid_up_to: failed.valid_up_to(),
            })
        })
    }
}

impl<const CAPACITY: usize> Default for InlineString<CAPACITY> {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl<const CAPACITY: usize> TryFrom<&str> for InlineString<CAPACITY> {
    type Error = ValidationError;

    fn try_from(text: &str) -> Result<Self, ValidationError> {
        Self::new(text)
    }
}

impl<const CAPACITY: usize> PartialEq<str> for InlineString<CAPACITY> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Ok(other)
    }
}

impl<const CAPACITY: usize> PartialEq<&str> for InlineString<CAPACITY> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == Ok(*other)
    }
}

impl<const CAPACITY: usize> fmt::Debug for InlineString<CAPACITY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Ok(text) => show::text(text, f),
            Err(failed) => write!(f, "invalid({failed})"),
        }
    }
}

/// At most `CAPACITY` elements: u16 count, six zero bytes, the elements, zeros.
///
/// Elements are types without alignment, so that the vec has none; the message that holds it aligns it.
/// Numbers are zerocopy's little-endian ones, for example `zerocopy::little_endian::F64`.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct InlineVec<T: Unaligned, const CAPACITY: usize> {
    count: U16,
    zeros: [u8; 6],
    items: [T; CAPACITY],
}

impl<T: Element, const CAPACITY: usize> InlineVec<T, CAPACITY> {
    /// Copies elements.
    ///
    /// # Errors
    ///
    /// If there are more than `CAPACITY`.
    pub fn new(items: &[T]) -> Result<Self, ValidationError> {
        let length = items.len();
        let mut vec = Self::default();
        match (u16::try_from(length), vec.items.get_mut(..length)) {
            (Ok(count), Some(target)) => {
                target.copy_from_slice(items);
                vec.count = U16::new(count);
                Ok(vec)
            }
            _ => Err(ValidationError::unnamed(Problem::Length {
                length,
                max: CAPACITY,
            })),
        }
    }

    /// Copies numbers of Rust's own types: `InlineVec::from_native(&[1.0, 2.0])`.
    ///
    /// # Errors
    ///
    /// If there are more than `CAPACITY`.
    #[allow(clippy::missing_panics_doc, reason = "the types have the same bytes")]
    pub fn from_native(items: &[T::Native]) -> Result<Self, ValidationError> {
        let items = <[T]>::ref_from_bytes(items.as_bytes());
        Self::new(items.expect("elements have no alignment and the size of the native type"))
    }

    /// The elements as Rust's own type, without copying.
    ///
    /// Cost: a check of the length and of the address. `None` if the elements are not aligned for that
    /// type; in a message they always are.
    ///
    /// # Errors
    ///
    /// If the stored number of elements exceeds `CAPACITY`.
    pub fn as_native(&self) -> Result<Option<&[T::Native]>, ValidationError> {
        let items = self.as_slice()?;
        Ok(<[T::Native]>::ref_from_bytes(items.as_bytes()).ok())
    }

    /// Copies the elements of an iterator, each converted: `InlineVec::collect([1.0, 2.0])`.
    ///
    /// # Errors
    ///
    /// If there are more than `CAPACITY`.
    pub fn collect<I>(items: I) -> Result<Self, ValidationError>
    where
        I: IntoIterator,
        I::Item: Into<T>,
    {
        let items: Vec<T> = items.into_iter().map(Into::into).collect();
        Self::new(&items)
    }

    /// Largest number of elements.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        CAPACITY
    }

    /// Number of elements as stored, which may be out of range in a message from a peer.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count.get())
    }

    /// Whether the stored number of elements is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    ///
    /// # Errors
    ///
    /// If the stored number of elements exceeds `CAPACITY`.
    pub fn as_slice(&self) -> Result<&[T], ValidationError> {
        let length = self.len();
        let error = ValidationError::unnamed(Problem::Length {
            length,
            max: CAPACITY,
        });
        self.items.get(..length).ok_or(error)
    }
}

impl<T, const CAPACITY: usize> Default for InlineVec<T, CAPACITY>
where
    T: FromBytes + Unaligned,
{
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl<T, const CAPACITY: usize> fmt::Debug for InlineVec<T, CAPACITY>
where
    T: Element,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_slice() {
            Ok(items) => T::show_all(items, f),
            Err(failed) => write!(f, "invalid({failed})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::F64;

    #[test]
    fn text_is_length_zeros_bytes_zeros() {
        let text = InlineString::<4>::new("né").expect("three bytes");
        assert_eq!(text.as_bytes(), b"\x03\0\0\0\0\0\0\0n\xc3\xa9\0");
        assert_eq!(text, "né");
    }

    #[test]
    fn text_that_is_too_long_names_both_numbers() {
        let failed = InlineString::<4>::new("12345").expect_err("too long");
        assert_eq!(
            failed.to_string(),
            "length out of range: length=5, max=4; shorten the value"
        );
        assert_eq!(InlineString::<4>::truncated("abcé"), "abc");
    }

    #[test]
    fn a_stored_length_beyond_the_capacity_is_an_error() {
        let text = InlineString::<4>::read_from_bytes(b"\x05\0\0\0\0\0\0\0abcd").expect("size");
        assert!(text.as_str().is_err());
        let vec = InlineVec::<u8, 2>::read_from_bytes(b"\xff\xff\0\0\0\0\0\0ab").expect("size");
        assert!(vec.as_slice().is_err());
    }

    #[test]
    fn vec_keeps_its_elements() {
        let vec = InlineVec::<F64, 3>::collect([1.0, -2.5]).expect("two of three");
        let values: Vec<f64> = vec
            .as_slice()
            .expect("valid")
            .iter()
            .map(|it| it.get())
            .collect();
        assert_eq!(values, [1.0, -2.5]);
        assert_eq!(vec.as_bytes().len(), 32);
        assert!(InlineVec::<u8, 1>::new(b"ab").is_err());
    }
}
