//! The messages of the contracts as Rust types, and the constants of the frame, ring and segment.
//!
//! Everything but [`message`] is generated from the YAML files in `contracts/`:
//!
//! - [`bandit`]: what strategy workers and Rust actors exchange,
//! - [`control`]: handshake, subscriptions and shutdown of a link,
//! - [`layout`]: every number of the frame, the ring and the segment.
//!
//! A message is a `#[repr(C)]` value without hidden padding, so its bytes are its wire format:
//!
//! ```
//! use mycelium_messages::bandit::Quote;
//! use mycelium_messages::zerocopy::{FromBytes, IntoBytes};
//! use mycelium_messages::{InlineString, Message};
//!
//! let quote = Quote { symbol: InlineString::new("EUR/USD")?, bid: 1.1, ask: 1.2, ..Quote::default() };
//! let bytes = quote.as_bytes();
//! assert_eq!(bytes.len(), 64);
//! let read = Quote::ref_from_bytes(bytes).expect("right size and alignment");
//! read.validate()?;
//! assert_eq!(read.symbol.as_str(), Ok("EUR/USD"));
//! # Ok::<(), mycelium_messages::ValidationError>(())
//! ```

pub mod bandit;
pub mod control;
pub mod layout;
pub mod message;

pub use message::{DynamicMessage, InlineString, InlineVec, Message, ValidationError};
pub use zerocopy;
