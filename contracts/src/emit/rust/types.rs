//! How fields are stored in Rust.

use crate::model::{Contracts, Element, FieldType, Message, PREFIX_LEN};

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

/// Whether the Rust struct has padding members.
pub(super) fn has_padding(message: &Message) -> bool {
    let used: usize = message
        .fields
        .iter()
        .map(|field| stored_size(field.kind))
        .sum();
    message.wire_len != Some(used)
}
