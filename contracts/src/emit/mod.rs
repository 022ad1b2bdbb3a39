//! From the model to files. Each emitter is a set of short functions that return text.

pub(crate) mod docs;
pub(crate) mod python;
pub(crate) mod rust;
pub(crate) mod vectors;

use crate::model::{Contracts, Field, FieldType, Number, Rule};

/// Name of the contracts file without its folders.
pub(crate) fn source_name(contracts: &Contracts) -> String {
    let name = contracts.file().file_name();
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Breaks text into lines of at most `width` characters, where words allow.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if used + 1 + length <= width => {
                line.push(' ');
                line.push_str(word);
                used += 1 + length;
            }
            _ => {
                lines.push(word.to_owned());
                used = length;
            }
        }
    }
    lines
}

/// Smallest and largest number of a field's rules; an integer field gets integers.
pub(crate) fn bounds(field: &Field) -> (Option<Number>, Option<Number>) {
    let mut min = None;
    let mut max = None;
    for rule in &field.rules {
        match rule {
            Rule::Min(bound) => min = Some(*bound),
            Rule::Max(bound) => max = Some(*bound),
            _ => {}
        }
    }
    (min, max)
}

/// Smallest length of a text or vec.
pub(crate) fn min_length(field: &Field) -> usize {
    let lengths = field.rules.iter().map(|rule| match rule {
        Rule::MinLength(length) => *length,
        _ => 0,
    });
    lengths.max().unwrap_or(0)
}

/// Whether a field may be left at zero: it then need not be given where a message is built from names.
pub(crate) fn zero_is_legal(contracts: &Contracts, field: &Field) -> bool {
    let (min, max) = bounds(field);
    let in_bounds =
        min.is_none_or(|min| min.as_f64() <= 0.0) && max.is_none_or(|max| max.as_f64() >= 0.0);
    let is_named = match field.kind {
        FieldType::Enum { index, .. } => {
            let mut variants = contracts.enums()[index].variants.iter();
            variants.any(|(_, value)| *value == 0)
        }
        _ => true,
    };
    in_bounds && is_named && min_length(field) == 0 && !has(field, &Rule::NotZero)
}

/// Bounds of an integer field: its rules inside of its type.
#[allow(
    clippy::cast_possible_truncation,
    reason = "saturates, and the type's range cuts it"
)]
pub(crate) fn int_bounds(field: &Field, range: (i128, i128)) -> (i128, i128) {
    let (min, max) = bounds(field);
    let min = min.map_or(range.0, |bound| match bound {
        Number::Int(value) => value,
        Number::Float(value) => value.ceil() as i128,
    });
    let max = max.map_or(range.1, |bound| match bound {
        Number::Int(value) => value,
        Number::Float(value) => value.floor() as i128,
    });
    (min.max(range.0), max.min(range.1))
}

/// A float so that Rust, Python and JSON read the same value back.
pub(crate) fn float(value: f64) -> String {
    format!("{value:?}")
}

pub(crate) fn has(field: &Field, rule: &Rule) -> bool {
    field.rules.contains(rule)
}

/// What a value of a field may be, as half a sentence: `text of 1 to 16 bytes`.
pub(crate) fn legal(contracts: &Contracts, field: &Field) -> String {
    let least = min_length(field);
    let mut text = match field.kind {
        FieldType::Scalar(crate::model::Scalar::Int(int)) => {
            let (min, max) = int_bounds(field, int.range());
            format!("an integer from {min} to {max}")
        }
        FieldType::Scalar(_) => match bounds(field) {
            (None, None) => "a number".to_owned(),
            (Some(min), None) => format!("a number of at least {}", bound(min)),
            (None, Some(max)) => format!("a number of at most {}", bound(max)),
            (Some(min), Some(max)) => format!("a number from {} to {}", bound(min), bound(max)),
        },
        FieldType::Bool => "true or false".to_owned(),
        FieldType::U128 => {
            let (min, max) = int_bounds(field, (0, i128::MAX));
            let max = if max == i128::MAX {
                u128::MAX.to_string()
            } else {
                max.to_string()
            };
            format!("an integer from {min} to {max}")
        }
        FieldType::I128 => {
            let (min, max) = int_bounds(field, (i128::MIN, i128::MAX));
            format!("an integer from {min} to {max}")
        }
        FieldType::U256 => "32 bytes".to_owned(),
        FieldType::Bytes(len) => format!("{len} bytes"),
        FieldType::Table { len, rows } => format!("{rows} times {len} bytes"),
        FieldType::Text { max_length } if least > 0 => {
            format!("text of {least} to {max_length} bytes in UTF-8")
        }
        FieldType::Text { max_length } => format!("text of at most {max_length} bytes in UTF-8"),
        FieldType::Vec {
            element,
            max_length,
        } => {
            let what = match element {
                crate::model::Element::Scalar(scalar) => format!("{} values", scalar.name()),
                crate::model::Element::Bytes(len) => format!("values of {len} bytes"),
            };
            if least > 0 {
                format!("{least} to {max_length} {what}")
            } else {
                format!("at most {max_length} {what}")
            }
        }
        FieldType::Enum { index, .. } => {
            let variants = &contracts.enums()[index].variants;
            let names: Vec<_> = variants
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("one of {}", names.join(", "))
        }
    };
    if has(field, &Rule::NotZero) {
        text.push_str(", not zero");
    }
    if has(field, &Rule::No0xPrefix) {
        text.push_str(", without the prefix 0x");
    }
    text
}

pub(crate) fn bound(number: Number) -> String {
    match number {
        Number::Int(value) => value.to_string(),
        Number::Float(value) => float(value),
    }
}
