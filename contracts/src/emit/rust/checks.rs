//! The statements that hold a field against its type and the rules of the contract.

use super::layout::call;
use crate::check::snake;
use crate::emit::{bounds, float, int_bounds, min_length};
use crate::model::{Field, FieldType, Int, Number, Rule, Scalar};

/// One statement on a field.
fn statement(field: &Field, check: &str, arguments: Vec<String>) -> String {
    let name = format!("\"{}\"", snake(&field.name));
    let arguments: Vec<_> = [name].into_iter().chain(arguments).collect();
    call("        ", &format!("check.{check}"), &arguments, "?;")
}

/// The statement that holds a value against its type.
pub(super) fn type_check(field: &Field, value: &str) -> String {
    match field.kind {
        FieldType::Text { .. } => statement(field, "text", vec![format!("&{value}")]),
        FieldType::Vec { .. } => statement(field, "vec", vec![format!("&{value}")]),
        FieldType::Bool => statement(field, "truth", vec![value.to_owned()]),
        FieldType::Enum { .. } => statement(field, "member", vec![value.to_owned()]),
        _ => String::new(),
    }
}

/// The statements that hold a value against the rules of its field.
pub(super) fn rule_checks(field: &Field, value: &str) -> String {
    let mut text = String::new();
    let mut add = |check: &str, arguments: &[String]| {
        text.push_str(&statement(field, check, arguments.to_vec()));
    };
    if min_length(field) > 0 {
        add(
            "min_length",
            &[format!("{value}.len()"), min_length(field).to_string()],
        );
    }
    if bounds(field) != (None, None) {
        let (check, arguments) = range(field, value);
        add(check, &arguments);
    }
    for rule in &field.rules {
        match rule {
            Rule::NotZero if matches!(field.kind, FieldType::Scalar(Scalar::F32 | Scalar::F64)) => {
                add("not_zero_float", &[value.to_owned()]);
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
