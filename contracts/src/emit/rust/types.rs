//! How fields are stored in Rust.

use crate::check::snake;
use crate::model::{Contracts, Element, Field, FieldType, Message, PREFIX_LEN};

/// Bytes of a field's Rust type, which does not round texts and vecs up to their alignment.
pub(super) fn stored_size(kind: FieldType) -> usize {
    match kind {
        FieldType::Text { max_length } => PREFIX_LEN + max_length,
        FieldType::Vec {
            element,
            max_length,
        } => PREFIX_LEN + max_length * element.size(),
        other => other.size(),
    }
}

/// Alignment of a field's Rust type: texts and vecs have none of their own.
pub(super) fn stored_align(kind: FieldType) -> usize {
    match kind {
        FieldType::Text { .. } | FieldType::Vec { .. } => 1,
        other => other.align(),
    }
}

pub(super) fn stored_type(contracts: &Contracts, kind: FieldType) -> String {
    match kind {
        FieldType::Scalar(scalar) => scalar.name().to_owned(),
        FieldType::Bool => "message::WireBool".to_owned(),
        FieldType::U128 => "message::U128".to_owned(),
        FieldType::I128 => "message::I128".to_owned(),
        FieldType::U256 => "[u8; 32]".to_owned(),
        FieldType::Bytes(len) => format!("[u8; {len}]"),
        FieldType::Table { len, rows } => format!("[[u8; {len}]; {rows}]"),
        FieldType::Text { max_length } => format!("message::InlineString<{max_length}>"),
        FieldType::Vec {
            element,
            max_length,
        } => {
            let element = match element {
                Element::Bytes(len) => format!("[u8; {len}]"),
                Element::Scalar(scalar) if scalar.size() == 1 => scalar.name().to_owned(),
                Element::Scalar(scalar) => {
                    format!("message::le::{}", scalar.name().to_uppercase())
                }
            };
            format!("message::InlineVec<{element}, {max_length}>")
        }
        FieldType::Enum { index, .. } => contracts.enums()[index].name.clone(),
    }
}

/// The members of the Rust struct in memory order: a field, or a number of padding bytes.
pub(super) fn padded_members(message: &Message) -> Vec<(String, Result<&Field, usize>)> {
    let mut members = Vec::new();
    let mut end = 0;
    let mut pads = 0;
    let mut pad = |members: &mut Vec<_>, from: usize, to: usize| {
        if from < to {
            members.push((format!("_pad{pads}"), Err(to - from)));
            pads += 1;
        }
    };
    for field in &message.fields {
        pad(&mut members, end, field.offset);
        members.push((snake(&field.name), Ok(field)));
        end = field.offset + stored_size(field.kind);
    }
    pad(&mut members, end, message.wire_len.unwrap_or(end));
    members
}

/// The type that a program computes with. A lifetime is written with the blank behind it: `'a `.
pub(super) fn natural_type(contracts: &Contracts, kind: FieldType, lifetime: &str) -> String {
    match kind {
        FieldType::Bool => "bool".to_owned(),
        FieldType::U128 => "u128".to_owned(),
        FieldType::I128 => "i128".to_owned(),
        FieldType::Text { .. } => format!("&{lifetime}str"),
        FieldType::Vec { element, .. } => match element {
            Element::Bytes(len) => format!("&{lifetime}[[u8; {len}]]"),
            Element::Scalar(scalar) => format!("&{lifetime}[{}]", scalar.name()),
        },
        other => stored_type(contracts, other),
    }
}

/// Whether the natural value is borrowed from the message.
pub(super) fn is_borrowed(kind: FieldType) -> bool {
    matches!(kind, FieldType::Text { .. } | FieldType::Vec { .. })
}

/// Whether the natural type differs from the stored one.
pub(super) fn is_stored_otherwise(kind: FieldType) -> bool {
    is_borrowed(kind) || matches!(kind, FieldType::Bool | FieldType::U128 | FieldType::I128)
}
