//! Payloads of dynamic messages: values of any serde type as JSON or MessagePack, or plain bytes.
//!
//! The bytes are copied out of the ring before they are decoded, because a peer that breaks the rules may change them
//! meanwhile. The copy goes into a buffer of the thread, so that no message costs an allocation of its own.

use std::cell::RefCell;
use std::io;

use mycelium_messages::DynamicMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, PayloadError};
use crate::frame::Encoding;
use crate::ring::Frame;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Frame<'_> {
    /// The value of a message that is written as JSON or MessagePack. Costs a copy of the payload and what the decoder
    /// takes.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the frame is of another topic or encoding, longer than the contract allows, or not a `T`.
    pub fn decode<M: DynamicMessage, T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        self.check_dynamic::<M>()?;
        // A `Deserialize` that decodes another frame finds the place empty and gets a buffer of its own.
        let mut buffer = SCRATCH.take();
        buffer.clear();
        self.append_to(&mut buffer);
        let decoded = decode(M::ENCODING, &buffer);
        SCRATCH.set(buffer);
        decoded.map_err(|failed| match failed {
            Failed::NoCodec(remedy) => no_codec::<M>(remedy),
            Failed::Reason(reason) => PayloadError::Undecodable {
                message: M::NAME,
                topic_id: M::TOPIC_ID,
                encoding: M::ENCODING.name(),
                payload_len: self.payload_len(),
                max_size: M::MAX_SIZE,
                reason,
            },
        })
    }

    /// Appends the payload of a dynamic message to `buffer`, whatever its encoding. Costs a copy of the payload.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the frame is of another topic or encoding, or longer than the contract allows.
    pub fn read_raw<M: DynamicMessage>(&self, buffer: &mut Vec<u8>) -> Result<(), PayloadError> {
        self.check_dynamic::<M>()?;
        self.append_to(buffer);
        Ok(())
    }

    fn check_dynamic<M: DynamicMessage>(&self) -> Result<(), PayloadError> {
        let header = self.header();
        if header.topic_id != M::TOPIC_ID {
            return Err(PayloadError::Frame(DecodeError::Topic {
                message: M::NAME,
                expected: M::TOPIC_ID,
                actual: header.topic_id,
            }));
        }
        if header.encoding() != M::ENCODING {
            return Err(PayloadError::Frame(DecodeError::Encoding {
                message: M::NAME,
                expected: M::ENCODING.name(),
                actual: header.encoding().name(),
            }));
        }
        check_size::<M>(self.payload_len())
    }
}

/// Writes a value into `buffer`, which is emptied first.
///
/// # Errors
///
/// [`PayloadError`] if the value cannot be written in the encoding of the message, or is longer than its contract allows.
pub fn encode<M: DynamicMessage, T: Serialize + ?Sized>(
    value: &T,
    buffer: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    buffer.clear();
    let mut writer = Bounded {
        buffer,
        max_size: M::MAX_SIZE,
        over: None,
    };
    let outcome = write(M::ENCODING, value, &mut writer);
    match (writer.over, outcome) {
        (Some(payload_len), _) => check_size::<M>(payload_len),
        (None, Ok(())) => Ok(()),
        (None, Err(Failed::NoCodec(remedy))) => Err(no_codec::<M>(remedy)),
        (None, Err(Failed::Reason(reason))) => Err(PayloadError::Unencodable {
            message: M::NAME,
            topic_id: M::TOPIC_ID,
            encoding: M::ENCODING.name(),
            reason,
        }),
    }
}

/// Whether a payload of this length is one of the message.
///
/// # Errors
///
/// [`PayloadError::TooLarge`].
pub fn check_size<M: DynamicMessage>(payload_len: usize) -> Result<(), PayloadError> {
    if payload_len <= M::MAX_SIZE {
        return Ok(());
    }
    Err(PayloadError::TooLarge {
        message: M::NAME,
        topic_id: M::TOPIC_ID,
        payload_len,
        max_size: M::MAX_SIZE,
    })
}

fn no_codec<M: DynamicMessage>(remedy: &'static str) -> PayloadError {
    PayloadError::NoCodec {
        message: M::NAME,
        topic_id: M::TOPIC_ID,
        encoding: M::ENCODING.name(),
        remedy,
    }
}

enum Failed {
    NoCodec(&'static str),
    Reason(String),
}

const BYTES: Failed = Failed::NoCodec("publish_raw and read_raw take bytes");
#[cfg(not(feature = "msgpack"))]
const NO_MSGPACK: Failed = Failed::NoCodec("build shm-transport with the feature msgpack");

fn decode<T: DeserializeOwned>(encoding: Encoding, payload: &[u8]) -> Result<T, Failed> {
    match encoding {
        Encoding::Json => {
            serde_json::from_slice(payload).map_err(|error| Failed::Reason(error.to_string()))
        }
        #[cfg(feature = "msgpack")]
        Encoding::MsgPack => {
            let mut rest = payload;
            let value = rmp_serde::from_read(&mut rest)
                .map_err(|error| Failed::Reason(error.to_string()))?;
            if rest.is_empty() {
                return Ok(value);
            }
            let reason = format!("{} bytes behind the value", rest.len());
            Err(Failed::Reason(reason))
        }
        #[cfg(not(feature = "msgpack"))]
        Encoding::MsgPack => Err(NO_MSGPACK),
        Encoding::Raw | Encoding::Contract => Err(BYTES),
    }
}

fn write<T: Serialize + ?Sized>(
    encoding: Encoding,
    value: &T,
    writer: &mut Bounded<'_>,
) -> Result<(), Failed> {
    match encoding {
        Encoding::Json => {
            serde_json::to_writer(writer, value).map_err(|error| Failed::Reason(error.to_string()))
        }
        // Structs as maps, so that the other side sees names and the order of fields does not matter.
        #[cfg(feature = "msgpack")]
        Encoding::MsgPack => rmp_serde::encode::write_named(writer, value)
            .map_err(|error| Failed::Reason(error.to_string())),
        #[cfg(not(feature = "msgpack"))]
        Encoding::MsgPack => Err(NO_MSGPACK),
        Encoding::Raw | Encoding::Contract => Err(BYTES),
    }
}

/// Takes no more than the contract allows, so that a value without end does not fill the memory.
struct Bounded<'a> {
    buffer: &'a mut Vec<u8>,
    max_size: usize,
    /// The length that was refused.
    over: Option<usize>,
}

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.buffer.len() + bytes.len();
        if len > self.max_size {
            self.over = Some(len);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
