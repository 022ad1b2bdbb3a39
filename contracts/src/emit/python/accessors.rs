//! Properties: a getter that is one index into a cast view where the type allows, a setter that checks.

use std::fmt::Write as _;

use super::imports::Builtins;
use super::table;
use super::text::{docstring, layout};
use super::types::{read_type, written_type};
use crate::check::python_name;
use crate::emit::{bounds, float, int_bounds, legal, min_length};
use crate::model::{Contracts, Element, Field, FieldType, Int, Number, Rule, Scalar};

/// Index expression of a number in the cast view of its size.
fn index(offset: usize, size: usize) -> String {
    let (shift, step) = match size {
        1 => ("(self._word << 3)", offset),
        2 => ("(self._word << 2)", offset / 2),
        4 => ("(self._word << 1)", offset / 4),
        _ => ("self._word", offset / 8),
    };
    match step {
        0 => shift
            .trim_start_matches('(')
            .trim_end_matches(')')
            .to_owned(),
        _ => format!("{shift} + {step}"),
    }
}

/// The element of a cast view that holds a number.
fn cell(field: &Field, view: &str) -> String {
    format!("self._views.{view}[{}]", index(field.offset, field.size))
}

pub(super) fn property(contracts: &Contracts, field: &Field, builtins: &Builtins) -> String {
    let name = python_name(&field.name);
    let read = read_type(contracts, field.kind, builtins);
    let written = written_type(contracts, field.kind, builtins);
    let legal = legal(contracts, field);
    let mut description = field.description.clone();
    if !description.is_empty() && !description.ends_with(['.', '!', '?']) {
        description.push('.');
    }
    let mut first = legal.chars();
    let legal_sentence: String = first
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(first)
        .collect();
    let description = format!("{description} {legal_sentence}.");
    let (getter, setter) = accessors(contracts, field, &name, &legal);
    format!(
        "\n    @property\n    def {name}(self) -> {read}:\n{}{getter}\n    \
         @{name}.setter\n    def {name}(self, value: {written}) -> None:\n{setter}",
        docstring("        ", &description)
    )
}

fn accessors(contracts: &Contracts, field: &Field, name: &str, legal: &str) -> (String, String) {
    let at = field.offset;
    let not_zero = field.rules.contains(&Rule::NotZero);
    let no_hex = field.rules.contains(&Rule::No0xPrefix);
    let least = min_length(field);
    let extra = |list: &[(&str, String)]| -> String {
        let mut text = String::new();
        for (key, value) in list {
            if value != "0" && value != "False" {
                let _ = write!(text, ", {key}={value}");
            }
        }
        text
    };
    let truth = |value: bool| if value { "True" } else { "False" }.to_owned();
    match field.kind {
        FieldType::Scalar(scalar) => number(field, name, legal, scalar),
        FieldType::Bool => member(
            "TRUTH",
            field,
            name,
            "bool",
            "u8",
            "value is True or value is False",
        ),
        FieldType::Enum { index, repr } => {
            let table = table(&contracts.enums()[index].name);
            let test = membership(contracts, field, "value");
            let kind = &contracts.enums()[index].name;
            member(&table, field, name, kind, repr.name(), &test)
        }
        FieldType::U128 | FieldType::I128 => {
            let signed = field.kind == FieldType::I128;
            let range = if signed {
                (i128::MIN, i128::MAX)
            } else {
                (0, i128::MAX)
            };
            let (min, max) = int_bounds(field, range);
            let max = if max == i128::MAX && !signed {
                u128::MAX.to_string()
            } else {
                max.to_string()
            };
            let word = at / 8;
            let extra = extra(&[("not_zero", truth(not_zero))]);
            (
                format!(
                    "        return read_wide(self, {word}, signed={})\n",
                    truth(signed)
                ),
                statement(
                    "write_wide",
                    &format!("self, {word}, \"{name}\", value, {min}, {max}{extra}"),
                ),
            )
        }
        FieldType::U256 | FieldType::Bytes(_) => {
            let size = field.size;
            let extra = extra(&[("not_zero", truth(not_zero))]);
            (
                format!("        return read_bytes(self, {at}, {size})\n"),
                statement(
                    "write_bytes",
                    &format!("self, {at}, {size}, \"{name}\", value{extra}"),
                ),
            )
        }
        FieldType::Table { len, rows } => {
            let extra = extra(&[("not_zero", truth(not_zero))]);
            (
                format!("        return read_rows(self, {at}, {len}, {rows})\n"),
                statement(
                    "write_rows",
                    &format!("self, {at}, {len}, {rows}, \"{name}\", value{extra}"),
                ),
            )
        }
        FieldType::Text { max_length } => {
            let extra = extra(&[("minimum", least.to_string()), ("no_prefix", truth(no_hex))]);
            (
                format!("        return read_text(self, {at}, {max_length}, \"{name}\")\n"),
                statement(
                    "write_text",
                    &format!("self, {at}, {max_length}, \"{name}\", value{extra}"),
                ),
            )
        }
        FieldType::Vec {
            element,
            max_length,
        } => {
            let extra = extra(&[("minimum", least.to_string())]);
            vec(field, name, element, max_length, &extra)
        }
    }
}

/// What an enum field asks of a value, as an expression.
pub(super) fn membership(contracts: &Contracts, field: &Field, value: &str) -> String {
    let FieldType::Enum { index, .. } = field.kind else {
        return String::new();
    };
    let found = &contracts.enums()[index];
    let is_member = format!("{value} in {}", table(&found.name));
    let has_zero = found.variants.iter().any(|(_, number)| *number == 0);
    if has_zero && field.rules.contains(&Rule::NotZero) {
        format!("{is_member} and {value} != 0")
    } else {
        is_member
    }
}

/// A call as a statement, as ruff lays it out.
fn statement(function: &str, arguments: &str) -> String {
    let arguments: Vec<_> = arguments.split(", ").collect();
    layout("        ", function, &arguments, "")
}

fn number(field: &Field, name: &str, legal: &str, scalar: Scalar) -> (String, String) {
    let cell = cell(field, scalar.name());
    let test = condition(field, scalar, "value");
    let errors = if scalar == Scalar::F64 {
        "OverflowError, TypeError, ValueError"
    } else {
        "TypeError, ValueError"
    };
    let setter = if test.is_empty() {
        let value = if scalar == Scalar::F32 {
            "single(value)"
        } else {
            "value"
        };
        let arguments = [
            "self",
            &format!("\"{name}\""),
            "value",
            &format!("\"{legal}\""),
        ];
        format!(
            "        try:\n            {cell} = {value}\n        \
             except ({errors}):\n{}",
            raise("            ", "rejected", &arguments, " from None")
        )
    } else {
        tested(&test, &cell, errors, name, &format!("\"{legal}\""))
    };
    (format!("        return {cell}\n"), setter)
}

/// What the rules ask of a number, as an expression; empty if nothing. An f32 is looked at as it will be stored.
pub(super) fn condition(field: &Field, scalar: Scalar, value: &str) -> String {
    let value = if scalar == Scalar::F32 {
        format!("single({value})")
    } else {
        value.to_owned()
    };
    let (min, max) = bounds(field);
    let bound = |bound: Number| match (scalar, bound) {
        (Scalar::Int(_), Number::Int(value)) => value.to_string(),
        (_, bound) => float(bound.as_f64()),
    };
    let range = match (min.map(bound), max.map(bound)) {
        (None, None) => None,
        (Some(min), None) => Some(format!("{value} >= {min}")),
        (None, Some(max)) => Some(format!("{value} <= {max}")),
        (Some(min), Some(max)) => Some(format!("{min} <= {value} <= {max}")),
    };
    let not_zero = field
        .rules
        .contains(&Rule::NotZero)
        .then(|| format!("{value} != 0"));
    range
        .into_iter()
        .chain(not_zero)
        .collect::<Vec<_>>()
        .join(" and ")
}

fn tested(test: &str, cell: &str, errors: &str, name: &str, legal: &str) -> String {
    format!(
        "        try:\n            if {test}:\n                {cell} = value\n                \
         return\n        except ({errors}):\n            pass\n{}",
        raise(
            "        ",
            "rejected",
            &["self", &format!("\"{name}\""), "value", legal],
            ""
        )
    )
}

fn raise(indent: &str, function: &str, arguments: &[&str], tail: &str) -> String {
    layout(indent, &format!("raise {function}"), arguments, tail)
}

fn member(
    table: &str,
    field: &Field,
    name: &str,
    legal: &str,
    view: &str,
    test: &str,
) -> (String, String) {
    let cell = cell(field, view);
    let getter = format!(
        "        try:\n            return {table}[{cell}]\n        \
         except KeyError as unknown:\n{}",
        raise(
            "            ",
            "unnamed",
            &["self", &format!("\"{name}\""), "unknown", legal],
            " from None"
        )
    );
    (
        getter,
        tested(test, &cell, "TypeError, ValueError", name, legal),
    )
}

fn vec(field: &Field, name: &str, element: Element, limit: usize, extra: &str) -> (String, String) {
    let at = field.offset;
    match element {
        Element::Scalar(Scalar::Int(Int::U8)) => (
            format!("        return read_byte_rows(self, {at}, {limit}, \"{name}\")\n"),
            statement(
                "write_byte_rows",
                &format!("self, {at}, {limit}, \"{name}\", value{extra}"),
            ),
        ),
        Element::Scalar(scalar) => {
            let (view, size) = (scalar.name(), scalar.size());
            let arguments = format!("self, {at}, {limit}, \"{name}\"");
            (
                format!("        return read_number_rows({arguments}, \"{view}\", {size})\n"),
                statement(
                    "write_number_rows",
                    &format!("{arguments}, value, \"{view}\", {size}{extra}"),
                ),
            )
        }
        Element::Bytes(len) => (
            format!("        return read_rows(self, {at}, {len}, {limit}, \"{name}\")\n"),
            statement(
                "write_rows",
                &format!("self, {at}, {len}, {limit}, \"{name}\", value, counted=True{extra}"),
            ),
        ),
    }
}
