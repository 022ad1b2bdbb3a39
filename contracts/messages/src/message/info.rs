//! What a program knows at run time about the contracts that it was generated from.

use std::fmt::Write as _;

use super::{DynamicMessage, Message};

/// Default delivery policy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Delivery {
    /// Back-pressure reaches the publisher.
    #[default]
    Block,
    /// A full link loses the new message.
    DropNewest,
    /// A full link loses its oldest message.
    DropOldest,
    /// A newer message replaces the one with the same key.
    Conflate,
}

impl Delivery {
    /// Name as in the contracts file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Conflate => "conflate",
        }
    }
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// The contract's binary layout.
    #[default]
    Contract,
    /// MessagePack.
    MsgPack,
    /// JSON.
    Json,
    /// Plain bytes.
    Raw,
}

impl Encoding {
    /// Name as in the contracts file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::MsgPack => "msgpack",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }
}

/// One field of a message's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// Name as in the contracts file.
    pub name: &'static str,
    /// The type with everything that decides how bytes are read: lengths, and the values of an enum.
    pub type_text: &'static str,
    /// Bytes from the start of the payload.
    pub offset: usize,
    /// Bytes, rounded up to the alignment of the type.
    pub size: usize,
}

impl FieldInfo {
    /// Describes a field.
    #[must_use]
    pub const fn new(
        name: &'static str,
        type_text: &'static str,
        offset: usize,
        size: usize,
    ) -> Self {
        Self {
            name,
            type_text,
            offset,
            size,
        }
    }
}

/// One message, as far as it decides whether two peers understand each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageInfo {
    /// Name of the message in the contracts file.
    pub name: &'static str,
    /// Name of the topic.
    pub topic: &'static str,
    /// Number of the topic, the contract's `tlv_type`.
    pub topic_id: u16,
    /// How the payload is written.
    pub encoding: Encoding,
    /// Largest payload in bytes; the only one where the encoding is the contract's.
    pub max_size: usize,
    /// Digest of this message's layout.
    pub layout_digest: [u8; 32],
    /// Fields in the order of their offsets; none where the encoding is not the contract's.
    pub fields: &'static [FieldInfo],
}

impl MessageInfo {
    /// Describes a message of fixed layout.
    #[must_use]
    pub const fn of<M: Message>() -> Self {
        Self {
            name: M::NAME,
            topic: M::TOPIC,
            topic_id: M::TOPIC_ID,
            encoding: Encoding::Contract,
            max_size: size_of::<M>(),
            layout_digest: M::LAYOUT_DIGEST,
            fields: M::FIELDS,
        }
    }

    /// Describes a dynamic message.
    #[must_use]
    pub const fn dynamic<M: DynamicMessage>() -> Self {
        Self {
            name: M::NAME,
            topic: M::TOPIC,
            topic_id: M::TOPIC_ID,
            encoding: M::ENCODING,
            max_size: M::MAX_SIZE,
            layout_digest: M::LAYOUT_DIGEST,
            fields: &[],
        }
    }
}

/// All messages of one contracts file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contracts {
    /// Digest of the file's model; comments and descriptions do not change it.
    pub schema_digest: [u8; 32],
    /// SHA-256 of the file's bytes.
    pub source_digest: [u8; 32],
    /// Fixed and dynamic messages, ordered by topic id.
    pub messages: &'static [MessageInfo],
}

impl Contracts {
    /// What decides compatibility, as JSON on one line: what one peer shows the other.
    ///
    /// ```
    /// let text = mycelium_messages::bandit::CONTRACTS.to_json();
    /// assert!(text.starts_with(r#"{"schema_digest":""#));
    /// assert!(text.contains(r#"{"name":"Quote","id":1001,"encoding":"contract","max_size":64,"#));
    /// assert!(text.contains(r#""fields":[["symbol","String(16)",0,24],["sequence","u64",24,8],"#));
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"schema_digest\":\"");
        hex(&mut out, &self.schema_digest);
        out.push_str("\",\"messages\":[");
        for (number, message) in self.messages.iter().enumerate() {
            comma(&mut out, number);
            out.push_str("{\"name\":");
            quoted(&mut out, message.name);
            let encoding = message.encoding.name();
            let _ = write!(
                out,
                ",\"id\":{},\"encoding\":\"{encoding}\",\"max_size\":{},\"layout_digest\":\"",
                message.topic_id, message.max_size
            );
            hex(&mut out, &message.layout_digest);
            out.push_str("\",\"fields\":[");
            for (number, field) in message.fields.iter().enumerate() {
                comma(&mut out, number);
                out.push('[');
                quoted(&mut out, field.name);
                out.push(',');
                quoted(&mut out, field.type_text);
                let _ = write!(out, ",{},{}]", field.offset, field.size);
            }
            out.push_str("]}");
        }
        out.push_str("]}");
        out
    }
}

fn comma(out: &mut String, number: usize) {
    if number > 0 {
        out.push(',');
    }
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_exactly_this() {
        const FIELDS: &[FieldInfo] = &[
            FieldInfo::new("symbol", "String(16)", 0, 24),
            FieldInfo::new("o\"d\\d\n", "u8 BUY=1 SELL=2", 24, 1),
        ];
        let message = MessageInfo {
            name: "Quote",
            topic: "market-data",
            topic_id: 1001,
            encoding: Encoding::Contract,
            max_size: 26,
            layout_digest: [0xAB; 32],
            fields: FIELDS,
        };
        let dynamic = MessageInfo {
            name: "Note",
            topic_id: 1002,
            encoding: Encoding::MsgPack,
            max_size: 4096,
            fields: &[],
            ..message
        };
        let contracts = Contracts {
            schema_digest: [1; 32],
            source_digest: [2; 32],
            messages: Box::leak(Box::new([message, dynamic])),
        };
        let expected = format!(
            r#"{{"schema_digest":"{}","messages":[{{"name":"Quote","id":1001,"encoding":"contract","max_size":26,"layout_digest":"{}","fields":[["symbol","String(16)",0,24],["o\"d\\d\u000a","u8 BUY=1 SELL=2",24,1]]}},{{"name":"Note","id":1002,"encoding":"msgpack","max_size":4096,"layout_digest":"{}","fields":[]}}]}}"#,
            "01".repeat(32),
            "ab".repeat(32),
            "ab".repeat(32),
        );
        assert_eq!(contracts.to_json(), expected);
    }
}
