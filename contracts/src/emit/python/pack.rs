//! The quick way of a constructor: all values at once through one prepared `struct`.
//!
//! It is taken if every value fits. If one does not, the setters run and say which.

use std::fmt::Write as _;

use super::accessors::{condition, membership};
use super::text::{COLUMNS, all_of, layout, pieces};
use super::types::format_code;
use crate::check::{python_name, snake};
use crate::emit::min_length;
use crate::model::{Contracts, Field, FieldType, Message, Rule};

/// Names that the constructor itself uses.
const TAKEN: [&str; 6] = ["bool", "data", "len", "single", "struct", "type"];

/// Whether all fields of a message can be packed by `struct` without losing a check.
fn is_packable(message: &Message) -> bool {
    let packable = |field: &Field| {
        let name = python_name(&field.name);
        let free = !TAKEN.contains(&name.as_str()) && !name.ends_with("_utf8");
        let kind = match field.kind {
            FieldType::Scalar(_) | FieldType::Bool | FieldType::Enum { .. } => true,
            FieldType::Text { .. } => !field.rules.contains(&Rule::No0xPrefix),
            _ => false,
        };
        free && kind
    };
    !message.fields.is_empty() && message.fields.iter().all(packable)
}

fn packer_name(message: &Message) -> String {
    format!("_PACK_{}", snake(&message.name).to_uppercase())
}

/// The prepared `struct` of a message; it fills up the last word.
pub(super) fn packer(message: &Message) -> String {
    if !is_packable(message) {
        return String::new();
    }
    let mut codes = String::from("<");
    let mut end = 0;
    let pad = |codes: &mut String, from: usize, to: usize| {
        if from < to {
            let _ = write!(codes, "{}x", to - from);
        }
    };
    for field in &message.fields {
        pad(&mut codes, end, field.offset);
        match field.kind {
            FieldType::Text { .. } => {
                let _ = write!(codes, "H6x{}s", field.size - 8);
            }
            kind => codes.push_str(&format_code(kind)),
        }
        end = field.offset + field.size;
    }
    pad(&mut codes, end, message.max_size.next_multiple_of(8));
    let head = format!("\n\n{}: Final = struct.Struct", packer_name(message));
    let pieces = pieces(&codes, COLUMNS - 4).join("\n    ");
    if pieces.contains('\n') {
        format!("{head}(\n    {pieces}\n).pack\n")
    } else {
        layout("", &head, &[&pieces], ".pack")
    }
}

/// The statements that try it and leave the bytes to a method; nothing for a message that it is not for.
pub(super) fn attempt(
    contracts: &Contracts,
    message: &Message,
    indent: &str,
    take: &str,
) -> String {
    if !is_packable(message) {
        return String::new();
    }
    let mut text = format!("{indent}try:\n");
    let mut tests = Vec::new();
    let mut values = Vec::new();
    for field in &message.fields {
        let name = python_name(&field.name);
        let test = match field.kind {
            FieldType::Text { max_length } => {
                let _ = writeln!(text, "{indent}    {name}_utf8 = {name}.encode()");
                values.push(format!("len({name}_utf8)"));
                values.push(format!("{name}_utf8"));
                match min_length(field) {
                    0 => format!("len({name}_utf8) <= {max_length}"),
                    least => format!("{least} <= len({name}_utf8) <= {max_length}"),
                }
            }
            FieldType::Scalar(scalar) => condition(field, scalar, &name),
            FieldType::Bool => format!("type({name}) is bool"),
            FieldType::Enum { .. } => membership(contracts, field, &name),
            _ => String::new(),
        };
        if !matches!(field.kind, FieldType::Text { .. }) {
            values.push(name);
        }
        if !test.is_empty() {
            tests.extend(test.split(" and ").map(str::to_owned));
        }
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let call = format!("data = {}", packer_name(message));
    let mut inner = format!("{indent}    ");
    if !tests.is_empty() {
        text.push_str(&all_of(&inner, &tests));
        inner.push_str("    ");
    }
    text.push_str(&layout(&inner, &call, &values, ""));
    let _ = write!(
        text,
        "{inner}self.{take}(data)\n{inner}return\n{indent}except CANNOT_PACK:\n{indent}    pass\n"
    );
    text
}

/// The same where each value may be `None`.
pub(super) fn attempt_if_complete(contracts: &Contracts, message: &Message) -> String {
    if !is_packable(message) {
        return String::new();
    }
    let tests = message.fields.iter();
    let tests: Vec<_> = tests
        .map(|field| format!("{} is not None", python_name(&field.name)))
        .collect();
    all_of("        ", &tests) + &attempt(contracts, message, "            ", "_put")
}
