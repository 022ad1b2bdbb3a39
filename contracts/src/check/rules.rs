//! Validation rules of a field.

use super::{Scope, types};
use crate::diagnostics::closest;
use crate::model::{Element, FieldType, Number, Rule, Scalar};
use crate::schema::Text;

/// All rules that are known.
const RULES: [&str; 10] = [
    "max_length",
    "min_length",
    "not_empty",
    "not_zero",
    "min",
    "max",
    "no_0x_prefix",
    "monotonic",
    "known_chain",
    "known_venue",
];

/// The field's `max_length`, which decides the layout of texts and vecs.
pub(super) fn max_length(scope: &mut Scope<'_>, rules: &[(Text, Text)]) -> Option<usize> {
    let (_, value) = rules.iter().find(|(name, _)| name.value == "max_length")?;
    length(scope, "max_length", value)
}

fn length(scope: &mut Scope<'_>, name: &str, value: &Text) -> Option<usize> {
    let found = types::integer(&value.value).and_then(|number| usize::try_from(number).ok());
    if found.is_none() {
        let text = format!("{name} is not a length: {name}={}", value.value);
        scope.error(value.at, &text, "use a whole number from 0 up");
    }
    found
}

fn number(text: &str) -> Option<Number> {
    if let Some(value) = types::integer(text) {
        return Some(Number::Int(value));
    }
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
        .map(Number::Float)
}

/// Turns the rules into the model's, dropping those that cannot hold for the type with a warning.
pub(super) fn check(scope: &mut Scope<'_>, written: &[(Text, Text)], kind: FieldType) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, value) in written {
        if !applies(&name.value, kind) {
            let text = format!("rule {} has no effect on type {}", name.value, kind.name());
            scope.warning(name.at, &text, "remove it, or change the type");
            continue;
        }
        let off = value.value.eq_ignore_ascii_case("false");
        match name.value.as_str() {
            "max_length" => {}
            "not_empty" | "not_zero" | "no_0x_prefix" if off => {}
            "not_empty" => rules.push(Rule::MinLength(1)),
            "not_zero" => rules.push(Rule::NotZero),
            "no_0x_prefix" => rules.push(Rule::No0xPrefix),
            "min_length" => {
                if let Some(min) = length(scope, "min_length", value) {
                    check_min_length(scope, min, kind, value);
                    rules.push(Rule::MinLength(min));
                }
            }
            "min" | "max" => match number(&value.value) {
                Some(bound) => {
                    let lower = name.value == "min";
                    check_reach(scope, lower, bound, kind, value);
                    rules.push(if lower {
                        Rule::Min(bound)
                    } else {
                        Rule::Max(bound)
                    });
                }
                None => {
                    let text = format!("{} is not a number: value={}", name.value, value.value);
                    scope.error(value.at, &text, "write a finite number");
                }
            },
            "monotonic" | "known_chain" | "known_venue" => {
                rules.push(Rule::Documented(format!("{}: {}", name.value, value.value)));
            }
            _ => {
                let text = format!("unknown validation rule '{}'", name.value);
                let hint = match closest(&name.value, RULES) {
                    Some(meant) => {
                        format!("did you mean '{meant}'? it is documented, never checked")
                    }
                    None => "it is documented, never checked".to_owned(),
                };
                scope.warning(name.at, &text, &hint);
                rules.push(Rule::Documented(format!("{}: {}", name.value, value.value)));
            }
        }
    }
    check_order(scope, written, &rules);
    rules
}

fn applies(rule: &str, kind: FieldType) -> bool {
    let text = matches!(kind, FieldType::Text { .. });
    let vec = matches!(kind, FieldType::Vec { .. });
    let bytes = matches!(
        kind,
        FieldType::Bytes(_) | FieldType::U256 | FieldType::Table { .. }
    );
    let number = matches!(
        kind,
        FieldType::Scalar(_) | FieldType::U128 | FieldType::I128
    );
    match rule {
        "max_length" | "min_length" | "not_empty" => text || vec,
        "no_0x_prefix" => text,
        "not_zero" => number || bytes || matches!(kind, FieldType::Enum { .. }),
        "min" | "max" => number,
        _ => true,
    }
}

fn check_min_length(scope: &mut Scope<'_>, min: usize, kind: FieldType, value: &Text) {
    let max = match kind {
        FieldType::Text { max_length } => max_length,
        FieldType::Vec {
            max_length,
            element: Element::Scalar(_) | Element::Bytes(_),
        } => max_length,
        _ => return,
    };
    if min > max {
        let text = format!("no value can be valid: min_length={min}, max_length={max}");
        scope.error(value.at, &text, "lower min_length or raise max_length");
    }
}

/// Tells of a bound outside of what the type holds: nothing or everything satisfies it.
fn check_reach(scope: &mut Scope<'_>, lower: bool, bound: Number, kind: FieldType, value: &Text) {
    let (least, most) = match kind {
        FieldType::Scalar(Scalar::Int(int)) => {
            let (least, most) = int.range();
            (Number::Int(least), Number::Int(most))
        }
        FieldType::Scalar(Scalar::F32) => (
            Number::Float(f32::MIN.into()),
            Number::Float(f32::MAX.into()),
        ),
        _ => return,
    };
    let name = if lower { "min" } else { "max" };
    let (below, above) = (
        bound.as_f64() < least.as_f64(),
        bound.as_f64() > most.as_f64(),
    );
    let facts = format!(
        "{name}={}, {} holds {} to {}",
        value.value,
        kind.name(),
        crate::emit::bound(least),
        crate::emit::bound(most)
    );
    let impossible = if lower { above } else { below };
    if impossible {
        let text = format!("no value can be valid: {facts}");
        scope.error(value.at, &text, "change the bound or the type");
    } else if below || above {
        let text = format!("{name} has no effect: {facts}");
        scope.warning(value.at, &text, "change the bound or the type");
    }
}

fn check_order(scope: &mut Scope<'_>, written: &[(Text, Text)], rules: &[Rule]) {
    let min = rules.iter().find_map(|rule| match rule {
        Rule::Min(bound) => Some(bound.as_f64()),
        _ => None,
    });
    let max = rules.iter().find_map(|rule| match rule {
        Rule::Max(bound) => Some(bound.as_f64()),
        _ => None,
    });
    if let (Some(min), Some(max)) = (min, max)
        && min > max
        && let Some((name, _)) = written.iter().find(|(name, _)| name.value == "max")
    {
        let text = format!("no value can be valid: min={min}, max={max}");
        scope.error(name.at, &text, "swap them or change one");
    }
}
