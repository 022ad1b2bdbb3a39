//! What decides the bytes of messages, apart from any language, comparable across processes.
//!
//! A [`ContractsShape`] comes from a contracts file ([`Contracts::shape`]) or from a peer
//! ([`ContractsShape::from_json`]). [`crate::diff::compare`] tells where two of them differ.
//!
//! As JSON, which peers also write by hand:
//!
//! ```json
//! {"schema_digest":"<64 hex digits>","messages":[
//!   {"name":"Quote","id":1001,"encoding":"contract","max_size":64,"layout_digest":"<64 hex digits>",
//!    "fields":[["symbol","String(16)",0,24],["bid","f64",24,8]]}]}
//! ```
//!
//! `encoding` is one of `contract`, `msgpack`, `json` and `raw`. A field is its name, its
//! [type text](Contracts::type_text), its offset and its size, both in bytes. A dynamic message has no fields.
//! Unknown keys are ignored, so that a later version can add some.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Deserialize;
use thiserror::Error;

use crate::digest::hex;
use crate::model::{Contracts, Digest, Encoding, NAME_MAX, PAYLOAD_LIMIT};

/// Longest JSON form that is read, in bytes.
pub const JSON_MAX: usize = PAYLOAD_LIMIT;

/// What decides the bytes of all messages of one contracts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractsShape {
    /// Digest of the model.
    pub schema_digest: Digest,
    /// All messages; those of a contracts file are ordered by topic id.
    pub messages: Vec<MessageShape>,
}

/// What decides the bytes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageShape {
    /// Name as in the contracts file.
    pub name: String,
    /// Topic id.
    pub topic_id: u16,
    /// How the payload is written.
    pub encoding: Encoding,
    /// Largest payload in bytes; with encoding contract the only one.
    pub max_size: usize,
    /// Digest of the layout.
    pub layout_digest: Digest,
    /// Fields in memory order; empty for a dynamic message.
    pub fields: Vec<FieldShape>,
}

/// What decides the bytes of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldShape {
    /// Name as in the contracts file.
    pub name: String,
    /// Type with all lengths and enum members, see [`Contracts::type_text`].
    pub type_text: String,
    /// Bytes from the start of the payload.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// Why a JSON form is not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// More bytes than any contracts need: split the contracts file.
    #[error("contracts description too long: len={len}, max={max}; split the contracts file")]
    TooLong {
        /// Bytes that were given.
        len: usize,
        /// Bytes that are read.
        max: usize,
    },
    /// Not JSON, or not of the documented form: the text names key and place.
    #[error("contracts description not readable: {reason}; use the form of mycelium-contracts")]
    Form {
        /// What is wrong where; values of the peer are cut to a bounded length.
        reason: String,
    },
    /// A value that no contracts file can lead to.
    #[error(
        "contracts description not valid: {what}={value} (legal: {legal}); compare the versions of both sides"
    )]
    Value {
        /// The key, with the message's number or name.
        what: String,
        /// The value; one of the peer's texts is cut to a bounded length.
        value: String,
        /// What would be accepted.
        legal: &'static str,
    },
}

impl Contracts {
    /// What decides the bytes of all messages. Cost: a copy of all names.
    #[must_use]
    pub fn shape(&self) -> ContractsShape {
        let messages = self.messages().map(|message| MessageShape {
            name: message.name.clone(),
            topic_id: message.topic_id,
            encoding: message.encoding,
            max_size: message.max_size,
            layout_digest: message.layout_digest,
            fields: message
                .fields
                .iter()
                .map(|field| FieldShape {
                    name: field.name.clone(),
                    type_text: self.type_text(field),
                    offset: field.offset,
                    size: field.size,
                })
                .collect(),
        });
        ContractsShape {
            schema_digest: self.schema_digest(),
            messages: messages.collect(),
        }
    }
}

impl ContractsShape {
    /// The JSON form, on one line without spaces between values.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = format!(
            "{{\"schema_digest\":\"{}\",\"messages\":[",
            hex(&self.schema_digest)
        );
        for (number, message) in self.messages.iter().enumerate() {
            let _ = write!(
                text,
                "{}{{\"name\":{},\"id\":{},\"encoding\":\"{}\",\"max_size\":{},\"layout_digest\":\"{}\",\"fields\":[",
                if number > 0 { "," } else { "" },
                quoted(&message.name),
                message.topic_id,
                message.encoding.name(),
                message.max_size,
                hex(&message.layout_digest),
            );
            for (number, field) in message.fields.iter().enumerate() {
                let _ = write!(
                    text,
                    "{}[{},{},{},{}]",
                    if number > 0 { "," } else { "" },
                    quoted(&field.name),
                    quoted(&field.type_text),
                    field.offset,
                    field.size,
                );
            }
            text.push_str("]}");
        }
        text.push_str("]}");
        text
    }

    /// Reads the JSON form. The bytes may come from a peer: whatever they are, the outcome is a
    /// shape or an error, and memory is bounded by [`JSON_MAX`] times a small factor.
    ///
    /// # Errors
    ///
    /// If the bytes are longer than [`JSON_MAX`], not of the documented form, or say something
    /// that no contracts file can say, such as a topic id twice.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ShapeError> {
        if bytes.len() > JSON_MAX {
            return Err(ShapeError::TooLong {
                len: bytes.len(),
                max: JSON_MAX,
            });
        }
        let written: WrittenContracts =
            serde_json::from_slice(bytes).map_err(|failed| ShapeError::Form {
                reason: cut(&failed.to_string(), 200),
            })?;
        let mut ids = HashSet::new();
        let mut names = HashSet::new();
        let mut messages = Vec::with_capacity(written.messages.len());
        for message in written.messages {
            let message = message.check()?;
            if !ids.insert(message.topic_id) {
                let what = format!("id of message '{}'", message.name);
                return Err(invalid(what, message.topic_id, "an id of its own"));
            }
            if !names.insert(message.name.clone()) {
                let what = format!("name of message {}", message.topic_id);
                return Err(invalid(what, &message.name, "a name of its own"));
            }
            messages.push(message);
        }
        Ok(Self {
            schema_digest: digest("schema_digest".to_owned(), &written.schema_digest)?,
            messages,
        })
    }
}

#[derive(Deserialize)]
struct WrittenContracts {
    schema_digest: String,
    messages: Vec<WrittenMessage>,
}

#[derive(Deserialize)]
struct WrittenMessage {
    name: String,
    id: u16,
    encoding: String,
    max_size: u64,
    layout_digest: String,
    fields: Vec<(String, String, u64, u64)>,
}

impl WrittenMessage {
    fn check(self) -> Result<MessageShape, ShapeError> {
        name(&format!("name of message {}", self.id), &self.name)?;
        let of = |what: &str| format!("{what} of message '{}'", self.name);
        if self.id == 0 {
            return Err(invalid(of("id"), self.id, "1 to 65535"));
        }
        let encoding = Encoding::ALL
            .into_iter()
            .find(|one| one.name() == self.encoding);
        let Some(encoding) = encoding else {
            let legal = "contract, msgpack, json or raw";
            return Err(invalid(of("encoding"), &self.encoding, legal));
        };
        let size = |what: &str, value: u64| match usize::try_from(value) {
            Ok(size) if size <= PAYLOAD_LIMIT => Ok(size),
            _ => Err(invalid(of(what), value, "0 to 4194304")),
        };
        let max_size = size("max_size", self.max_size)?;
        let mut fields = Vec::with_capacity(self.fields.len());
        for (field, type_text, offset, field_size) in &self.fields {
            name(&of("name of a field"), field)?;
            if !type_text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                let what = of(&format!("type of field '{field}'"));
                return Err(invalid(what, type_text, "printable ASCII"));
            }
            let offset = size(&format!("offset of field '{field}'"), *offset)?;
            let field_size = size(&format!("size of field '{field}'"), *field_size)?;
            if offset + field_size > max_size {
                let what = of(&format!("end of field '{field}'"));
                return Err(invalid(what, offset + field_size, "at most max_size"));
            }
            fields.push(FieldShape {
                name: field.clone(),
                type_text: type_text.clone(),
                offset,
                size: field_size,
            });
        }
        Ok(MessageShape {
            layout_digest: digest(of("layout_digest"), &self.layout_digest)?,
            topic_id: self.id,
            encoding,
            max_size,
            fields,
            name: self.name,
        })
    }
}

fn invalid(what: String, value: impl ToString, legal: &'static str) -> ShapeError {
    ShapeError::Value {
        what,
        value: cut(&value.to_string(), 80),
        legal,
    }
}

/// Names stand in logs and errors, so they must be what a contracts file allows.
fn name(what: &str, text: &str) -> Result<(), ShapeError> {
    let is_word = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_word && (1..=NAME_MAX).contains(&text.len()) {
        return Ok(());
    }
    let legal = "1 to 128 ASCII letters, digits and underscores";
    Err(invalid(what.to_owned(), text, legal))
}

fn digest(what: String, text: &str) -> Result<Digest, ShapeError> {
    let mut digest = Digest::default();
    let bytes = text.as_bytes();
    if bytes.len() == 2 * digest.len() {
        let value = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let pairs = digest.iter_mut().zip(bytes.chunks_exact(2));
        let read = pairs.map(|(byte, pair)| {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
            Some(())
        });
        if read.collect::<Option<()>>().is_some() {
            return Ok(digest);
        }
    }
    Err(invalid(what, text, "64 hexadecimal digits"))
}

/// At most `max` characters, without line breaks and other control characters.
fn cut(text: &str, max: usize) -> String {
    let mut short: String = text.chars().take(max).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().collect()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
