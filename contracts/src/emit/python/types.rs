//! How types of the grammar appear in Python: annotations, defaults and `struct` codes.

use std::fmt::Write as _;

use super::imports::Builtins;
use crate::emit::zero_is_legal;
use crate::model::{Contracts, Element, Field, FieldType, Int, Message, Scalar};

/// What a property gives.
pub(super) fn read_type(contracts: &Contracts, kind: FieldType, builtins: &Builtins) -> String {
    match kind {
        FieldType::Scalar(Scalar::Int(_)) | FieldType::U128 | FieldType::I128 => {
            builtins.name("int")
        }
        FieldType::Scalar(_) => builtins.name("float"),
        FieldType::Bool => builtins.name("bool"),
        FieldType::Text { .. } => builtins.name("str"),
        FieldType::Enum { index, .. } => contracts.enums()[index].name.clone(),
        _ => match elements(kind, builtins) {
            Some(element) => format!("{}[{element}, ...]", builtins.name("tuple")),
            None => builtins.name("bytes"),
        },
    }
}

/// What a property and a constructor take.
pub(super) fn written_type(contracts: &Contracts, kind: FieldType, builtins: &Builtins) -> String {
    match elements(kind, builtins) {
        Some(element) => format!("Iterable[{element}]"),
        None => read_type(contracts, kind, builtins),
    }
}

/// Type of the elements where a value has several; an array or vec of u8 is one value of bytes.
fn elements(kind: FieldType, builtins: &Builtins) -> Option<String> {
    match kind {
        FieldType::Table { .. } => Some(builtins.name("bytes")),
        FieldType::Vec { element, .. } => match element {
            Element::Scalar(Scalar::Int(Int::U8)) => None,
            Element::Scalar(Scalar::Int(_)) => Some(builtins.name("int")),
            Element::Scalar(_) => Some(builtins.name("float")),
            Element::Bytes(_) => Some(builtins.name("bytes")),
        },
        _ => None,
    }
}

/// The value that a constructor takes where none is given; `None` if the caller has to give one.
pub(super) fn default(contracts: &Contracts, field: &Field, builtins: &Builtins) -> Option<String> {
    if !zero_is_legal(contracts, field) {
        return None;
    }
    Some(match field.kind {
        FieldType::Scalar(Scalar::Int(_)) | FieldType::U128 | FieldType::I128 => "0".to_owned(),
        FieldType::Scalar(_) => "0.0".to_owned(),
        FieldType::Bool => "False".to_owned(),
        FieldType::U256 | FieldType::Bytes(_) => zeros(field.size, builtins),
        FieldType::Table { len, rows } => format!("({},) * {rows}", zeros(len, builtins)),
        FieldType::Text { .. } => "\"\"".to_owned(),
        FieldType::Vec {
            element: Element::Scalar(Scalar::Int(Int::U8)),
            ..
        } => "b\"\"".to_owned(),
        FieldType::Vec { .. } => "()".to_owned(),
        FieldType::Enum { index, .. } => {
            let found = &contracts.enums()[index];
            let (zero, _) = found.variants.iter().find(|(_, value)| *value == 0)?;
            format!("{}.{zero}", found.name)
        }
    })
}

fn zeros(count: usize, builtins: &Builtins) -> String {
    match builtins.name("bytes").as_str() {
        "bytes" => format!("bytes({count})"),
        _ => format!("b\"\\0\" * {count}"),
    }
}

/// `struct` code of a field; texts, vecs and arrays come as their bytes.
pub(super) fn format_code(kind: FieldType) -> String {
    let int = |int: Int| match int {
        Int::U8 => "B",
        Int::U16 => "H",
        Int::U32 => "I",
        Int::U64 => "Q",
        Int::I8 => "b",
        Int::I16 => "h",
        Int::I32 => "i",
        Int::I64 => "q",
    };
    match kind {
        FieldType::Scalar(Scalar::Int(repr)) | FieldType::Enum { repr, .. } => int(repr).to_owned(),
        FieldType::Scalar(Scalar::F32) => "f".to_owned(),
        FieldType::Scalar(Scalar::F64) => "d".to_owned(),
        FieldType::Bool => "?".to_owned(),
        other => format!("{}s", other.size()),
    }
}

/// `struct` format of a whole message, padding included.
pub(super) fn row_format(message: &Message) -> String {
    let mut text = String::from("<");
    let mut end = 0;
    let pad = |text: &mut String, from: usize, to: usize| {
        if from < to {
            let _ = write!(text, "{}x", to - from);
        }
    };
    for field in &message.fields {
        pad(&mut text, end, field.offset);
        text.push_str(&format_code(field.kind));
        end = field.offset + field.size;
    }
    pad(&mut text, end, message.wire_len.unwrap_or(end));
    text
}
