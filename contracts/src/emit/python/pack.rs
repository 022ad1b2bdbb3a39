//! The quick way of a constructor: all values at once through one prepared `struct`.
//!
//! It is taken if every value fits. If one does not, the setters run and say which.

use std::fmt::Write as _;

use super::accessors::{condition, layout};
use super::table;
use super::types::format_code;
use crate::check::snake;
use crate::emit::min_length;
use crate::model::{Contracts, Field, FieldType, Message, Rule};

/// Names that the constructor itself uses.
const TAKEN: [&str; 5] = ["data", "len", "struct", "type", "bool"];

/// Whether all fields of a message can be packed by `struct` without losing a check.
fn is_packable(message: &Message) -> bool {
    let packable = |field: &Field| {
        let name = snake(&field.name);
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
    format!(
        "\n\n{}: Final = struct.Struct(\"{codes}\").pack\n",
        packer_name(message)
    )
}

/// The statements that try it; nothing for a message that it is not for.
pub(super) fn attempt(contracts: &Contracts, message: &Message) -> String {
    if !is_packable(message) {
        return String::new();
    }
    let mut text = String::from("        try:\n");
    let mut tests = Vec::new();
    let mut values = Vec::new();
    for field in &message.fields {
        let name = snake(&field.name);
        let test = match field.kind {
            FieldType::Text { max_length } => {
                let _ = writeln!(text, "            {name}_utf8 = {name}.encode()");
                values.push(format!("len({name}_utf8)"));
                values.push(format!("{name}_utf8"));
                match min_length(field) {
                    0 => format!("len({name}_utf8) <= {max_length}"),
                    least => format!("{least} <= len({name}_utf8) <= {max_length}"),
                }
            }
            FieldType::Scalar(scalar) => condition(field, scalar, &name),
            FieldType::Bool => format!("type({name}) is bool"),
            FieldType::Enum { index, .. } => {
                let table = table(&contracts.enums()[index].name);
                let not_zero = field.rules.contains(&Rule::NotZero);
                format!(
                    "{name} in {table}{}",
                    if not_zero {
                        format!(" and {name} != 0")
                    } else {
                        String::new()
                    }
                )
            }
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
    let indent = if tests.is_empty() {
        "            "
    } else {
        "                "
    };
    text.push_str(&head(&tests));
    text.push_str(&layout(indent, &call, &values, ""));
    let _ = write!(
        text,
        "{indent}self._take(data)\n{indent}return\n        except CANNOT_PACK:\n            pass\n"
    );
    text
}

/// The `if` line, broken as ruff does it.
fn head(tests: &[String]) -> String {
    if tests.is_empty() {
        return String::new();
    }
    let line = format!("            if {}:\n", tests.join(" and "));
    if line.len() <= 121 {
        return line;
    }
    let lines = tests.join("\n                and ");
    format!("            if (\n                {lines}\n            ):\n")
}
