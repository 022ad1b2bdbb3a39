//! One quote in every encoding, written and read as a program would do it.

use mycelium_messages::DynamicMessage;
use serde::{Deserialize, Serialize};
use shm_transport::channel::{Channel, LinkEnds};
use shm_transport::ring::Frame;
use shm_transport::socket::FrameStream;

#[allow(dead_code, reason = "generated for a library")]
#[allow(unreachable_pub, reason = "generated for a library")]
#[path = "../../../../tests/src/dynamic.rs"]
mod messages;

use messages::{FixedQuote, FixedQuoteFields, JsonQuote, PackedQuote, RawQuote};

/// Messages that are sent before the first of them is read.
pub(crate) const BURST: usize = 64;

/// What a program has in hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quote {
    symbol: String,
    sequence: u64,
    timestamp_ns: u64,
    bid: f64,
    ask: f64,
    volume: f64,
}

pub(crate) fn quote(sequence: u64) -> Quote {
    Quote {
        symbol: "EUR/USD".into(),
        sequence,
        timestamp_ns: 1_700_000_000_000_000_000 + sequence,
        bid: 1.1212,
        ask: 1.1217,
        volume: sequence as f64 * 0.5,
    }
}

/// How one encoding is sent and read.
pub(crate) struct Exchange {
    send: fn(&mut Channel, &Quote) -> Result<(), String>,
    read: fn(&Frame<'_>, &mut Vec<u8>) -> Result<Quote, String>,
}

/// All encodings; the others are compared with the first one.
pub(crate) const ENCODINGS: &[(&str, Exchange)] = &[
    (
        "contract",
        Exchange {
            send: |channel, quote| {
                let fields = FixedQuoteFields {
                    symbol: &quote.symbol,
                    sequence: quote.sequence,
                    timestamp_ns: quote.timestamp_ns,
                    bid: quote.bid,
                    ask: quote.ask,
                    volume: quote.volume,
                };
                let message = FixedQuote::new(fields).map_err(text)?;
                channel.publish(&message, None).map_err(text)
            },
            read: |frame, _| {
                let message: FixedQuote = frame.read().map_err(text)?;
                Ok(Quote {
                    symbol: message.symbol().map_err(text)?.to_owned(),
                    sequence: message.sequence,
                    timestamp_ns: message.timestamp_ns,
                    bid: message.bid,
                    ask: message.ask,
                    volume: message.volume,
                })
            },
        },
    ),
    (
        "json",
        Exchange {
            send: send_value::<JsonQuote>,
            read: |frame, _| frame.decode::<JsonQuote, Quote>().map_err(text),
        },
    ),
    (
        "msgpack",
        Exchange {
            send: send_value::<PackedQuote>,
            read: |frame, _| frame.decode::<PackedQuote, Quote>().map_err(text),
        },
    ),
    (
        "raw",
        Exchange {
            send: |channel, quote| {
                let mut payload = [0; 56];
                payload[..quote.symbol.len()].copy_from_slice(quote.symbol.as_bytes());
                let numbers = [
                    quote.sequence,
                    quote.timestamp_ns,
                    quote.bid.to_bits(),
                    quote.ask.to_bits(),
                    quote.volume.to_bits(),
                ];
                for (place, number) in payload[16..].chunks_exact_mut(8).zip(numbers) {
                    place.copy_from_slice(&number.to_le_bytes());
                }
                channel
                    .publish_raw::<RawQuote>(&payload, None)
                    .map_err(text)
            },
            read: |frame, buffer| {
                buffer.clear();
                frame.read_raw::<RawQuote>(buffer).map_err(text)?;
                let (symbol, numbers) = buffer.split_at_checked(16).ok_or("too short")?;
                let end = symbol.iter().position(|&byte| byte == 0).unwrap_or(16);
                let mut numbers = numbers.chunks_exact(8).map(|bytes| {
                    u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"))
                });
                let mut next = || numbers.next().ok_or("too short");
                Ok(Quote {
                    symbol: std::str::from_utf8(&symbol[..end])
                        .map_err(text)?
                        .to_owned(),
                    sequence: next()?,
                    timestamp_ns: next()?,
                    bid: f64::from_bits(next()?),
                    ask: f64::from_bits(next()?),
                    volume: f64::from_bits(next()?),
                })
            },
        },
    ),
];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn send_value<M: DynamicMessage>(channel: &mut Channel, quote: &Quote) -> Result<(), String> {
    channel.publish_dynamic::<M, _>(quote, None).map_err(text)
}

/// Both ends of a link.
pub(crate) struct Ends {
    channel: Channel,
    other: LinkEnds,
    /// The link lives as long as its socket.
    _stream: FrameStream,
    buffer: Vec<u8>,
}

impl Ends {
    pub(crate) fn new(channel: Channel, other: LinkEnds, stream: FrameStream) -> Self {
        Self {
            channel,
            other,
            _stream: stream,
            buffer: Vec::new(),
        }
    }

    /// Sends a quote `count` times, then reads them all, and gives the last.
    pub(crate) fn round(
        &mut self,
        exchange: &Exchange,
        quote: &Quote,
        count: usize,
    ) -> Result<Quote, String> {
        for _ in 0..count {
            (exchange.send)(&mut self.channel, quote)?;
        }
        let mut last = None;
        for _ in 0..count {
            let frame = self
                .other
                .peek()
                .map_err(text)?
                .ok_or("a message is missing")?;
            last = Some((exchange.read)(&frame, &mut self.buffer)?);
            self.other.advance();
        }
        last.ok_or_else(|| "no message was asked for".to_owned())
    }
}
