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
//! use mycelium_messages::bandit::{Quote, QuoteFields};
//! use mycelium_messages::message::ViewError;
//! use mycelium_messages::zerocopy::IntoBytes;
//!
//! let values = QuoteFields { symbol: "EUR/USD", bid: 1.1, ask: 1.2, ..QuoteFields::default() };
//! let mut quote = Quote::new(values)?;
//! quote.set_symbol("EUR/CHF")?;
//! quote.bid = 0.9;
//!
//! let payload = quote.as_bytes();
//! assert_eq!(payload.len(), 64);
//! let view: &Quote = payload.try_into()?;
//! assert_eq!(view.symbol()?, "EUR/CHF");
//! assert!(view.to_string().starts_with("Quote { symbol: \"EUR/CHF\", sequence: 0, "));
//! assert!(matches!(<&Quote>::try_from(&payload[1..]), Err(ViewError::Size { size: 63, expected: 64, .. })));
//!
//! let refused = Quote::new(QuoteFields::default()).expect_err("no symbol");
//! assert_eq!(
//!     refused.to_string(),
//!     "message 'Quote', field 'symbol': value too short: length=0, min=1; give a longer value"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bandit;
pub mod control;
pub mod layout;
pub mod message;

pub use message::{DynamicMessage, InlineString, InlineVec, Message, ValidationError};
pub use zerocopy;
