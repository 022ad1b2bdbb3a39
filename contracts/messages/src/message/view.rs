//! From the bytes of a payload to a message.

use std::fmt;

use super::{Message, ValidationError};

/// Bytes that are not a message.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ViewError {
    /// Payload of another size: check that both sides use the same contracts.
    Size {
        /// Name of the message.
        message: &'static str,
        /// Bytes found.
        size: usize,
        /// Bytes of the message.
        expected: usize,
    },
    /// Payload at an address where the message cannot be viewed: copy it with [`Message::read`].
    Alignment {
        /// Name of the message.
        message: &'static str,
        /// Address modulo `align`.
        offset: usize,
        /// Alignment of the message in bytes.
        align: usize,
    },
    /// A value breaks a rule of the contract.
    Invalid(ValidationError),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size {
                message,
                size,
                expected,
            } => write!(
                f,
                "payload has the wrong size for message '{message}': size={size}, \
                 expected={expected}; check that both sides use the same contracts"
            ),
            Self::Alignment {
                message,
                offset,
                align,
            } => write!(
                f,
                "payload is not aligned for message '{message}': offset={offset}, align={align}; \
                 copy it with {message}::read"
            ),
            Self::Invalid(failed) => failed.fmt(f),
        }
    }
}

impl std::error::Error for ViewError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(failed) => Some(failed),
            _ => None,
        }
    }
}

impl From<ValidationError> for ViewError {
    fn from(failed: ValidationError) -> Self {
        Self::Invalid(failed)
    }
}

fn sized<M: Message>(bytes: &[u8]) -> Result<(), ViewError> {
    let (size, expected) = (bytes.len(), size_of::<M>());
    if size == expected {
        return Ok(());
    }
    Err(ViewError::Size {
        message: M::NAME,
        size,
        expected,
    })
}

pub(super) fn view<M: Message>(bytes: &[u8]) -> Result<&M, ViewError> {
    sized::<M>(bytes)?;
    let Ok(message) = M::ref_from_bytes(bytes) else {
        return Err(ViewError::Alignment {
            message: M::NAME,
            offset: bytes.as_ptr().addr() % align_of::<M>(),
            align: align_of::<M>(),
        });
    };
    message.validate()?;
    Ok(message)
}

pub(super) fn read<M: Message>(bytes: &[u8]) -> Result<M, ViewError> {
    sized::<M>(bytes)?;
    let mut message = M::new_zeroed();
    message.as_mut_bytes().copy_from_slice(bytes);
    message.validate()?;
    Ok(message)
}
