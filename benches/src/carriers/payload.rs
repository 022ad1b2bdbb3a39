//! Messages of any fixed size, as a generated contract has them.

use mycelium_messages::{Message, ValidationError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The topic of all measured messages.
pub const TOPIC: u16 = 1001;

/// A message of `WORDS` times eight bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Block<const WORDS: usize>(pub [u64; WORDS]);

impl<const WORDS: usize> Message for Block<WORDS> {
    const NAME: &'static str = "Block";
    const TOPIC: &'static str = "bench.block";
    const TOPIC_ID: u16 = TOPIC;
    const LAYOUT_DIGEST: [u8; 32] = [0; 32];
    const SCHEMA_DIGEST: [u8; 32] = [0; 32];

    fn validate(&self) -> Result<(), ValidationError> {
        Ok(())
    }
}

impl<const WORDS: usize> Default for Block<WORDS> {
    fn default() -> Self {
        Self([0; WORDS])
    }
}
