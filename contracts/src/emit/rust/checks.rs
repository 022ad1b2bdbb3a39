//! The statements that hold a field against its type and the rules of the contract.

use super::layout::call;
use crate::check::snake;
use crate::emit::{bounds, float, int_bounds, min_length};
use crate::model::{Field, FieldType, Int, Number, Rule, Scalar};

/// The statements that check one field.
pub(super) fn checks(field: &Field) -> String {
    let name = snake(&field.name);
    let quoted = format!("\"{name}\"");
    let value = format!("self.{name}");
    let mut text = String::new();
    let mut add = |check: &str, arguments: &[String]| {
        let arguments: Vec<_> = [quoted.clone()]
            .into_iter()
            .chain(arguments.to_vec())
            .collect();
        text.push_str(&call(
            "        ",
            &format!("check.{check}"),
            &arguments,
            "?;",
        ));
    };
    match field.kind {
        FieldType::Text { .. } => add("text", &[format!("&{value}")]),
        FieldType::Vec { .. } => add("vec", &[format!("&{value}")]),
        FieldType::Bool => add("truth", std::slice::from_ref(&value)),
        FieldType::Enum { .. } => add("member", &[format!("{value}.name()"), format!("{value}.0")]),
        _ => {}
    }
    if min_length(field) > 0 {
        add(
            "min_length",
            &[format!("{value}.len()"), min_length(field).to_string()],
        );
    }
    if bounds(field) != (None, None) {
        let (check, arguments) = range(field, &value);
        add(check, &arguments);
    }
    for rule in &field.rules {
        match rule {
            Rule::NotZero if matches!(field.kind, FieldType::Scalar(Scalar::F32 | Scalar::F64)) => {
                add("not_zero_float", std::slice::from_ref(&value));
            }
            Rule::NotZero => add("not_zero", &[format!("&{value}")]),
            Rule::No0xPrefix => add("no_hex_prefix", &[format!("&{value}")]),
            _ => {}
        }
    }
    text
}

fn range(field: &Field, value: &str) -> (&'static str, Vec<String>) {
    let integer = |value: String, range: (i128, i128)| {
        let (min, max) = int_bounds(field, range);
        let bound = |bound: i128| match bound {
            i128::MIN => "i128::MIN".to_owned(),
            i128::MAX => "i128::MAX".to_owned(),
            other => other.to_string(),
        };
        ("int", vec![value, bound(min), bound(max)])
    };
    match field.kind {
        FieldType::Scalar(Scalar::Int(int)) => {
            integer(format!("i128::from({value})"), Int::range(int))
        }
        FieldType::I128 => integer(format!("{value}.get()"), (i128::MIN, i128::MAX)),
        FieldType::U128 => {
            let value = format!("i128::try_from({value}.get()).unwrap_or(i128::MAX)");
            integer(value, (0, i128::MAX))
        }
        _ => {
            let (min, max) = bounds(field);
            let bound = |bound: Option<Number>, none: &str| match bound {
                Some(bound) => float(bound.as_f64()),
                None => none.to_owned(),
            };
            let min = bound(min, "f64::NEG_INFINITY");
            (
                "float",
                vec![value.to_owned(), min, bound(max, "f64::INFINITY")],
            )
        }
    }
}
