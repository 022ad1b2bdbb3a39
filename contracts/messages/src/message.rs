//! What generated messages are made of: the trait, texts and vecs of bounded length, and checks.

mod check;
mod element;
mod info;
mod inline;
mod named;
mod number;
#[cfg(feature = "serde")]
pub mod serial;
mod show;
mod view;

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use check::{Check, Problem, ValidationError};
pub use element::Element;
pub use info::{Contracts, Delivery, Encoding, FieldInfo, MessageInfo};
pub use inline::{InlineString, InlineVec};
pub use named::NamedInt;
pub use number::{I128, U128, WireBool};
pub use show::{Hex, HexRows, not_logged};
pub use view::ViewError;

/// What generated code implements `Serialize` and `Deserialize` of.
#[cfg(feature = "serde")]
pub use serde;

/// The little-endian numbers without alignment that vecs are made of.
pub use zerocopy::little_endian as le;

#[cfg(target_endian = "big")]
compile_error!(
    "messages are little-endian in memory; a big-endian machine cannot use them in place"
);

/// A message with a fixed binary layout.
///
/// The payload of its frame is exactly `size_of::<Self>()` bytes, and any such bytes can be viewed as
/// `Self`; [`validate`](Self::validate) tells whether they mean something.
pub trait Message:
    FromBytes
    + IntoBytes
    + Immutable
    + KnownLayout
    + Copy
    + fmt::Debug
    + fmt::Display
    + Send
    + Sync
    + 'static
{
    /// Name of the message in the contracts file.
    const NAME: &'static str;
    /// Name of the topic.
    const TOPIC: &'static str;
    /// Number of the topic, the contract's `tlv_type`.
    const TOPIC_ID: u16;
    /// Digest of this message's layout.
    const LAYOUT_DIGEST: [u8; 32];
    /// Digest of the contracts file's model.
    const SCHEMA_DIGEST: [u8; 32];
    /// Names of the fields whose values together name what a newer message replaces (policy conflate).
    const KEY: &'static [&'static str];
    /// Default delivery policy of a subscription.
    const DELIVERY: Delivery;
    /// Fields in the order of their offsets.
    const FIELDS: &'static [FieldInfo];
    /// Whether values of this message may stand in logs and error texts.
    const LOG_PAYLOAD: bool;

    /// Checks lengths, UTF-8, enum values and the contract's validation rules. Does not allocate.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule, with its value and the legal range.
    fn validate(&self) -> Result<(), ValidationError>;

    /// Views a payload as a message and validates it; nothing is copied.
    ///
    /// # Errors
    ///
    /// If the payload has another size or is not aligned, or if a value breaks a rule.
    fn view(payload: &[u8]) -> Result<&Self, ViewError> {
        view::view(payload)
    }

    /// Copies a message out of a payload, which may have any alignment, and validates it.
    ///
    /// # Errors
    ///
    /// If the payload has another size, or if a value breaks a rule.
    fn read(payload: &[u8]) -> Result<Self, ViewError> {
        view::read(payload)
    }
}

/// A message whose payload is not laid out by the contract but encoded as a whole.
///
/// The type stands for the topic; the payload is any value that the encoding can hold.
pub trait DynamicMessage: Send + Sync + 'static {
    /// Name of the message in the contracts file.
    const NAME: &'static str;
    /// Name of the topic.
    const TOPIC: &'static str;
    /// Number of the topic, the contract's `tlv_type`.
    const TOPIC_ID: u16;
    /// How the payload is written; never [`Encoding::Contract`].
    const ENCODING: Encoding;
    /// Largest payload in bytes.
    const MAX_SIZE: usize;
    /// Digest of name, topic id, encoding and largest payload.
    const LAYOUT_DIGEST: [u8; 32];
    /// Digest of the contracts file's model.
    const SCHEMA_DIGEST: [u8; 32];
    /// Default delivery policy of a subscription.
    const DELIVERY: Delivery;
    /// Whether values of this message may stand in logs and error texts.
    const LOG_PAYLOAD: bool;
}

/// Decodes 64 hexadecimal digits at compile time.
///
/// # Panics
///
/// If the text is anything else; in a constant that is a compile error.
#[must_use]
pub const fn digest(text: &str) -> [u8; 32] {
    let text = text.as_bytes();
    assert!(text.len() == 64, "a digest has 64 digits");
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 32 {
        bytes[index] = digit(text[2 * index]) << 4 | digit(text[2 * index + 1]);
        index += 1;
    }
    bytes
}

const fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("not a lower-case hexadecimal digit"),
    }
}
