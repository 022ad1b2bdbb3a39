//! Test vectors: per message, field values and the bytes that they have to become.
//!
//! The bytes come from the model alone, so that the generated code of every language is held against
//! something that is not generated code.

use std::fmt::Write as _;

use super::{bounds, int_bounds, min_length, source_name};
use crate::check::snake;
use crate::digest::hex;
use crate::model::{
    Contracts, Element, Encoding, Field, FieldType, Int, Message, PREFIX_LEN, Rule, Scalar,
};

/// A value of a field, or of an element of one.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Int(i128, usize),
    /// Bits of a 128-bit integer, and whether it is signed.
    Wide(u128, bool),
    F32(f32),
    F64(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
}

/// What a case is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// Every byte zero, whether that is valid or not.
    Zeros,
    /// Every field at its smallest legal value.
    Smallest,
    /// Every field at its largest legal value and full length.
    Largest,
    /// Everyday values.
    Typical,
    /// Texts beyond ASCII, vecs that are half full, floats that are not finite.
    Special,
}

const CASES: [(Case, &str); 5] = [
    (Case::Zeros, "zeros"),
    (Case::Smallest, "smallest"),
    (Case::Largest, "largest"),
    (Case::Typical, "typical"),
    (Case::Special, "special"),
];

/// The whole file (JSON).
pub(crate) fn file(contracts: &Contracts, command: &str) -> String {
    let mut text = String::from("{\n");
    let command = serde_json::Value::from(command);
    let _ = writeln!(text, "  \"generated_by\": {command},");
    let _ = writeln!(text, "  \"source\": \"{}\",", source_name(contracts));
    let _ = writeln!(
        text,
        "  \"schema_digest\": \"{}\",",
        hex(&contracts.schema_digest())
    );
    text.push_str("  \"messages\": [");
    let fixed = contracts
        .messages()
        .filter(|message| message.encoding == Encoding::Contract);
    for (number, message) in fixed.enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&section(contracts, message));
    }
    text.push_str("\n  ]\n}\n");
    text
}

fn section(contracts: &Contracts, message: &Message) -> String {
    let mut text = String::from("    {\n");
    let _ = writeln!(text, "      \"name\": \"{}\",", message.name);
    let _ = writeln!(text, "      \"topic_id\": {},", message.topic_id);
    let _ = writeln!(text, "      \"size\": {},", message.max_size);
    let _ = writeln!(
        text,
        "      \"layout_digest\": \"{}\",",
        hex(&message.layout_digest)
    );
    text.push_str("      \"cases\": [");
    for (number, (case, name)) in CASES.into_iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&one(contracts, message, case, name));
    }
    text.push_str("\n      ]\n    }");
    text
}

fn one(contracts: &Contracts, message: &Message, case: Case, name: &str) -> String {
    let mut bytes = vec![0; message.max_size];
    let mut values = Vec::new();
    let mut valid = true;
    for (number, field) in message.fields.iter().enumerate() {
        let value = pick(contracts, field, number, case);
        write(&mut bytes[field.offset..][..field.size], field.kind, &value);
        valid &= case != Case::Zeros || zero_is_legal(contracts, field);
        values.push(format!("\"{}\": {}", snake(&field.name), json(&value)));
    }
    format!(
        "        {{\n          \"name\": \"{name}\",\n          \"valid\": {valid},\n          \
         \"values\": {{{}}},\n          \"bytes\": \"{}\"\n        }}",
        values.join(", "),
        hex(&bytes)
    )
}

fn zero_is_legal(contracts: &Contracts, field: &Field) -> bool {
    let (min, max) = bounds(field);
    let named = match field.kind {
        FieldType::Enum { index, .. } => contracts.enums()[index]
            .variants
            .iter()
            .any(|(_, value)| *value == 0),
        _ => true,
    };
    named
        && min_length(field) == 0
        && !field.rules.contains(&Rule::NotZero)
        && min.is_none_or(|min| min.as_f64() <= 0.0)
        && max.is_none_or(|max| max.as_f64() >= 0.0)
}

fn pick(contracts: &Contracts, field: &Field, number: usize, case: Case) -> Value {
    let not_zero = field.rules.contains(&Rule::NotZero) && case != Case::Zeros;
    match field.kind {
        FieldType::Scalar(scalar) => scalar_value(field, scalar, number, case, not_zero),
        FieldType::Bool => Value::Bool(matches!(case, Case::Largest | Case::Typical)),
        FieldType::U128 | FieldType::I128 => wide(field, case, not_zero),
        FieldType::U256 => Value::Bytes(bytes(32, number, case, not_zero)),
        FieldType::Bytes(len) => Value::Bytes(bytes(len, number, case, not_zero)),
        FieldType::Table { len, rows } => {
            let row = |row| Value::Bytes(bytes(len, number + row, case, not_zero));
            Value::List((0..rows).map(row).collect())
        }
        FieldType::Text { max_length } => Value::Text(text(max_length, min_length(field), case)),
        FieldType::Vec {
            element,
            max_length,
        } => {
            let least = min_length(field);
            let count = match case {
                Case::Zeros => 0,
                Case::Smallest => least,
                Case::Largest => max_length,
                Case::Typical => max_length.min(3).max(least),
                Case::Special => (max_length / 2).max(least),
            };
            if element == Element::Scalar(Scalar::Int(Int::U8)) {
                return Value::Bytes(bytes(count, number, case, false));
            }
            let plain = Field {
                rules: Vec::new(),
                ..field.clone()
            };
            let item = |index| match element {
                Element::Bytes(len) => Value::Bytes(bytes(len, index, case, false)),
                Element::Scalar(scalar) => scalar_value(&plain, scalar, index, case, false),
            };
            Value::List((0..count).map(item).collect())
        }
        FieldType::Enum { index, repr } => {
            let variants = &contracts.enums()[index].variants;
            let value = match case {
                Case::Zeros => 0,
                Case::Smallest => variants[0].1,
                Case::Largest => variants[variants.len() - 1].1,
                Case::Typical | Case::Special => variants[variants.len() / 2].1,
            };
            let value = match variants.iter().find(|(_, value)| *value != 0) {
                Some((_, other)) if value == 0 && not_zero => *other,
                _ => value,
            };
            Value::Int(value, repr.size())
        }
    }
}

fn scalar_value(field: &Field, scalar: Scalar, number: usize, case: Case, not_zero: bool) -> Value {
    match scalar {
        Scalar::Int(int) => {
            let (min, max) = int_bounds(field, int.range());
            let value = integer(min, max, number, case, not_zero);
            Value::Int(value, int.size())
        }
        Scalar::F32 => {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the value is picked for 32 bits"
            )]
            let value = float(field, f64::from(f32::MAX), number, case, not_zero) as f32;
            Value::F32(value)
        }
        Scalar::F64 => Value::F64(float(field, f64::MAX, number, case, not_zero)),
    }
}

fn integer(min: i128, max: i128, number: usize, case: Case, not_zero: bool) -> i128 {
    let small = i128::try_from(number).unwrap_or(0) + 1;
    let value = match case {
        Case::Zeros => return 0,
        Case::Smallest => min,
        Case::Largest => max,
        Case::Typical => (small * 1001).clamp(min, max),
        Case::Special => (-small * 7).clamp(min, max),
    };
    match value {
        0 if not_zero && max > 0 => 1,
        0 if not_zero => -1,
        value => value,
    }
}

fn float(field: &Field, largest: f64, number: usize, case: Case, not_zero: bool) -> f64 {
    const SPECIAL: [f64; 4] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    let (min, max) = bounds(field);
    let bounded = min.is_some() || max.is_some();
    let min = min.map_or(-largest, |bound| bound.as_f64());
    let max = max.map_or(largest, |bound| bound.as_f64());
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let small = (number + 1) as f64;
    let value = match case {
        Case::Zeros => return 0.0,
        Case::Smallest => min,
        Case::Largest => max,
        Case::Special if !bounded => SPECIAL[number % SPECIAL.len()],
        Case::Typical | Case::Special => (small * 1.125).clamp(min, max),
    };
    if value == 0.0 && not_zero { max } else { value }
}

#[allow(clippy::cast_sign_loss, reason = "the bits are what is stored")]
fn wide(field: &Field, case: Case, not_zero: bool) -> Value {
    if field.kind == FieldType::I128 {
        let (min, max) = int_bounds(field, (i128::MIN, i128::MAX));
        let value = match case {
            Case::Typical => (-(1_i128 << 70) - 5).clamp(min, max),
            case => integer(min, max, 1, case, not_zero),
        };
        return Value::Wide(value as u128, true);
    }
    let (min, max) = int_bounds(field, (0, i128::MAX));
    let value = match case {
        Case::Largest if max == i128::MAX => u128::MAX,
        Case::Typical => ((1_i128 << 70) + 5).clamp(min, max) as u128,
        case => integer(min, max, 1, case, not_zero) as u128,
    };
    Value::Wide(value, false)
}

fn bytes(len: usize, number: usize, case: Case, not_zero: bool) -> Vec<u8> {
    let fill = |first: usize, step: usize| {
        (0..len)
            .map(|index| u8::try_from((first + index * step) % 256).unwrap_or(0))
            .collect()
    };
    match case {
        Case::Zeros => vec![0; len],
        Case::Smallest if not_zero => {
            let mut bytes = vec![0; len];
            bytes[len - 1] = 1;
            bytes
        }
        Case::Smallest => vec![0; len],
        Case::Largest => vec![0xFF; len],
        Case::Typical => fill(number + 1, 1),
        Case::Special => fill(255, 254 - number % 16),
    }
}

fn text(max: usize, least: usize, case: Case) -> String {
    let (pattern, wanted) = match case {
        Case::Zeros => return String::new(),
        Case::Smallest => ("a", least),
        Case::Largest => ("é", max),
        Case::Typical => ("EUR/USD", max.min(7).max(least)),
        Case::Special => ("Zürich 価格 €🙂", max.min(19).max(least)),
    };
    let mut text = String::new();
    for c in pattern.chars().cycle().take(max) {
        if text.len() >= wanted || text.len() + c.len_utf8() > wanted {
            break;
        }
        text.push(c);
    }
    while text.len() < wanted {
        text.push('z');
    }
    text
}

fn write(target: &mut [u8], kind: FieldType, value: &Value) {
    let counted = matches!(kind, FieldType::Text { .. } | FieldType::Vec { .. });
    let mut data = Vec::new();
    put(&mut data, value);
    if !counted {
        target.copy_from_slice(&data);
        return;
    }
    let count = match value {
        Value::List(items) => items.len(),
        _ => data.len(),
    };
    target[..2].copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    target[PREFIX_LEN..][..data.len()].copy_from_slice(&data);
}

fn put(data: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Int(value, size) => data.extend(&value.to_le_bytes()[..*size]),
        Value::Wide(bits, _) => data.extend(bits.to_le_bytes()),
        Value::F32(value) => data.extend(value.to_le_bytes()),
        Value::F64(value) => data.extend(value.to_le_bytes()),
        Value::Bool(value) => data.push(u8::from(*value)),
        Value::Bytes(bytes) => data.extend(bytes),
        Value::Text(text) => data.extend(text.as_bytes()),
        Value::List(items) => items.iter().for_each(|item| put(data, item)),
    }
}

/// 128-bit integers and floats that are not finite are strings, bytes are hexadecimal.
fn json(value: &Value) -> String {
    match value {
        Value::Int(value, _) => value.to_string(),
        #[allow(clippy::cast_possible_wrap, reason = "the bits are a signed number")]
        Value::Wide(bits, true) => format!("\"{}\"", *bits as i128),
        Value::Wide(bits, false) => format!("\"{bits}\""),
        Value::F32(value) => json_float(f64::from(*value)),
        Value::F64(value) => json_float(*value),
        Value::Bool(value) => value.to_string(),
        Value::Bytes(bytes) => format!("\"{}\"", hex(bytes)),
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::List(items) => {
            format!(
                "[{}]",
                items.iter().map(json).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

fn json_float(value: f64) -> String {
    if value.is_finite() {
        format!("{value:?}")
    } else {
        format!("\"{value}\"")
    }
}
