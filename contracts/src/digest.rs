//! Digests over the model.
//!
//! The text that is hashed is built from the model alone, one line per fact, so that comments,
//! descriptions and the order of map keys have no influence. The order of fields does: it is the layout.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::model::{Constant, Digest, EnumType, Field, Message, Number, Rule, type_text};

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// What decides whether two peers read the same bytes the same way.
fn layout_text(message: &Message, enums: &[EnumType]) -> String {
    let mut text = format!(
        "message {} {} {} {}\n",
        message.name,
        message.topic_id,
        message.encoding.name(),
        message.max_size,
    );
    for field in &message.fields {
        let kind = type_text(field, enums);
        let _ = writeln!(text, "field {} {} {kind}", field.name, field.offset);
    }
    text
}

/// Digest of one message's layout.
pub(crate) fn layout(message: &Message, enums: &[EnumType]) -> Digest {
    sha256(layout_text(message, enums).as_bytes())
}

/// Digest of the whole model. Messages must be ordered by id and have their layout digests.
pub(crate) fn schema(messages: &[Message], constants: &[Constant]) -> Digest {
    let mut text = String::from("contracts 1\n");
    for message in messages {
        let _ = writeln!(
            text,
            "message {} {} {} key={}",
            hex(&message.layout_digest),
            message.topic,
            message.delivery.name(),
            message.key.join(","),
        );
        for field in &message.fields {
            rules(&mut text, field);
        }
    }
    let mut sorted: Vec<_> = constants.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for constant in sorted {
        let _ = writeln!(
            text,
            "constant {} {} {}",
            constant.name, constant.kind, constant.value
        );
    }
    sha256(text.as_bytes())
}

fn rules(text: &mut String, field: &Field) {
    let mut facts: Vec<String> = field.rules.iter().map(rule).collect();
    if field.optional {
        facts.push("optional".to_owned());
    }
    facts.sort();
    for fact in facts {
        let _ = writeln!(text, "rule {} {fact}", field.name);
    }
}

fn rule(rule: &Rule) -> String {
    match rule {
        Rule::MinLength(length) => format!("min_length {length}"),
        Rule::NotZero => "not_zero".to_owned(),
        Rule::Min(bound) => format!("min {}", number(*bound)),
        Rule::Max(bound) => format!("max {}", number(*bound)),
        Rule::No0xPrefix => "no_0x_prefix".to_owned(),
        Rule::Documented(text) => format!("documented {text}"),
    }
}

/// `1` and `1.0` are the same bound.
fn number(number: Number) -> String {
    match number {
        Number::Int(value) => value.to_string(),
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the value is whole and in range"
        )]
        Number::Float(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
            (value as i128).to_string()
        }
        Number::Float(value) => format!("{value:?}"),
    }
}
