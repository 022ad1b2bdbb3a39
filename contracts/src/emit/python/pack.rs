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
const TAKEN: [&str; 9] = [
    "bool",
    "data",
    "len",
    "make_room",
    "raw",
    "single",
    "start",
    "struct",
    "type",
];

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

/// Names of what stands before the class: its `struct`, and the places that its new messages take.
fn names(message: &Message) -> (String, String) {
    let name = snake(&message.name).to_uppercase();
    (format!("_LAYOUT_{name}"), format!("_ROOM_{name}"))
}

/// What becomes of the values.
#[derive(Clone, Copy)]
pub(super) enum Into {
    /// They are the payload of a new message, which gets memory of its own.
    NewMessage,
    /// They replace the payload.
    Payload,
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
    let (prepared, room) = names(message);
    let head = format!("\n\n{prepared}: Final = struct.Struct");
    let pieces = pieces(&codes, COLUMNS - 4).join("\n    ");
    let prepared = if pieces.contains('\n') {
        format!("{head}(\n    {pieces}\n)\n")
    } else {
        layout("", &head, &[&pieces], "")
    };
    format!("{prepared}{room}: Final = empty_room()\n")
}

/// The statements that try it and return; nothing for a message that it is not for.
pub(super) fn attempt(
    contracts: &Contracts,
    message: &Message,
    indent: &str,
    into: Into,
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
    let (prepared, room) = names(message);
    if let Into::NewMessage = into {
        values.splice(0..0, ["raw".to_owned(), "start".to_owned()]);
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let mut inner = format!("{indent}    ");
    if !tests.is_empty() {
        text.push_str(&all_of(&inner, &tests));
        inner.push_str("    ");
    }
    match into {
        Into::NewMessage => {
            let size = message.max_size.next_multiple_of(8);
            let place = format!("({room} or make_room({room}, {size})).pop()");
            let _ = writeln!(text, "{inner}self._views, self._word, raw, start = {place}");
            text.push_str(&layout(
                &inner,
                &format!("{prepared}.pack_into"),
                &values,
                "",
            ));
        }
        Into::Payload => {
            text.push_str(&layout(
                &inner,
                &format!("data = {prepared}.pack"),
                &values,
                "",
            ));
            let _ = writeln!(text, "{inner}self._put(data)");
        }
    }
    let _ = write!(
        text,
        "{inner}return\n{indent}except CANNOT_PACK:\n{indent}    pass\n"
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
    all_of("        ", &tests) + &attempt(contracts, message, "            ", Into::Payload)
}
