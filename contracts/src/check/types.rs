//! The type names of the grammar.

use crate::diagnostics::closest;
use crate::model::{Element, FieldType, Int, PAYLOAD_LIMIT, Scalar};

/// Length of a `String` whose field has no `max_length`.
const TEXT_DEFAULT: usize = 32;
/// Length of a `Vec<u8>` or a `Vec` of numbers whose field has no `max_length`.
const VEC_DEFAULT: usize = 16;
/// Length of a `Vec<[u8; N]>` whose field has no `max_length`.
const VEC_BYTES_DEFAULT: usize = 4;

#[derive(Debug)]
pub(super) struct TypeError {
    pub(super) text: String,
    pub(super) hint: String,
}

fn error<T>(text: String, hint: &str) -> Result<T, TypeError> {
    Err(TypeError {
        text,
        hint: hint.to_owned(),
    })
}

/// A decimal, `0x`, `0o` or `0b` integer; underscores may separate digits.
pub(crate) fn integer(text: &str) -> Option<i128> {
    let text = text.replace('_', "");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// An integer type by its name.
pub(super) fn int_type(name: &str) -> Option<Int> {
    use Int::{I8, I16, I32, I64, U8, U16, U32, U64};
    [U8, U16, U32, U64, I8, I16, I32, I64]
        .into_iter()
        .find(|int| int.name() == name)
}

fn scalar(name: &str) -> Option<Scalar> {
    match name {
        "f32" => Some(Scalar::F32),
        "f64" => Some(Scalar::F64),
        _ => int_type(name).map(Scalar::Int),
    }
}

/// Parses a type name; `max_length` is that of the field's validation rules.
pub(super) fn parse(text: &str, max_length: Option<usize>) -> Result<FieldType, TypeError> {
    let name: String = text.split_whitespace().collect();
    if let Some(scalar) = scalar(&name) {
        return Ok(FieldType::Scalar(scalar));
    }
    match name.as_str() {
        "bool" => return Ok(FieldType::Bool),
        "u128" => return Ok(FieldType::U128),
        "i128" => return Ok(FieldType::I128),
        "U256" => return Ok(FieldType::U256),
        "String" => {
            let max_length = counted(max_length.unwrap_or(TEXT_DEFAULT))?;
            return Ok(FieldType::Text { max_length });
        }
        _ => {}
    }
    if let Some(element) = name
        .strip_prefix("Vec<")
        .and_then(|rest| rest.strip_suffix('>'))
    {
        return vec(element, max_length, text);
    }
    if let Some((inner, rows)) = array(&name) {
        let rows = length(rows, text)?;
        if inner == "u8" {
            return Ok(FieldType::Bytes(rows));
        }
        if let Some(("u8", len)) = array(inner) {
            let len = length(len, text)?;
            if len * rows > PAYLOAD_LIMIT {
                let text = format!("array too large: type={text}, size={}", len * rows);
                return error(
                    text,
                    &format!("a payload has at most {PAYLOAD_LIMIT} bytes"),
                );
            }
            return Ok(FieldType::Table { len, rows });
        }
    }
    unknown(text, &name)
}

fn unknown<T>(text: &str, name: &str) -> Result<T, TypeError> {
    const KNOWN: [&str; 16] = [
        "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "f32", "f64", "bool",
        "U256", "String", "Vec<u8>",
    ];
    if let Some((element, count)) = array(name)
        && scalar(element).is_some()
    {
        let hint =
            format!("a fixed array holds u8; use \"Vec<{element}>\" with max_length: {count}");
        return error(format!("unknown type: type={text}"), &hint);
    }
    let meant = other_spelling(name).or_else(|| closest(name, KNOWN));
    let hint = match meant {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!(
            "use one of {}, [u8; N], [[u8; N]; M], Vec<[u8; N]>",
            KNOWN.join(", ")
        ),
    };
    error(format!("unknown type: type={text}"), &hint)
}

/// What types are called elsewhere.
fn other_spelling(name: &str) -> Option<&'static str> {
    Some(match name.to_lowercase().as_str() {
        "float" | "double" | "float64" | "real" | "number" => "f64",
        "float32" => "f32",
        "byte" | "uint8" | "uint8_t" => "u8",
        "uint16" | "uint16_t" => "u16",
        "uint" | "uint32" | "uint32_t" => "u32",
        "uint64" | "uint64_t" | "size_t" | "usize" => "u64",
        "int8" | "int8_t" => "i8",
        "int16" | "int16_t" => "i16",
        "int" | "integer" | "int32" | "int32_t" => "i32",
        "long" | "int64" | "int64_t" | "isize" => "i64",
        "uint128" => "u128",
        "int128" => "i128",
        "uint256" => "U256",
        "boolean" => "bool",
        "str" | "text" | "&str" => "String",
        "bytes" | "blob" | "binary" => "Vec<u8>",
        "address" => "[u8; 20]",
        _ => return None,
    })
}

/// Splits `[inner;count]`.
fn array(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('[')?.strip_suffix(']')?.rsplit_once(';')
}

fn length(digits: &str, text: &str) -> Result<usize, TypeError> {
    let value = integer(digits).and_then(|value| usize::try_from(value).ok());
    match value {
        Some(0) => error(
            format!("array of length zero: type={text}"),
            "use a length of at least 1",
        ),
        Some(value) if value <= PAYLOAD_LIMIT => Ok(value),
        _ => error(
            format!("array length out of range: type={text}"),
            &format!("use 1 to {PAYLOAD_LIMIT}"),
        ),
    }
}

fn counted(max_length: usize) -> Result<usize, TypeError> {
    match max_length {
        0 => error(
            "max_length is zero".to_owned(),
            "use a length of at least 1",
        ),
        1..=0xFFFF => Ok(max_length),
        _ => error(
            format!("max_length out of range: max_length={max_length}"),
            "use 1 to 65535: the length is stored in 16 bits",
        ),
    }
}

fn vec(name: &str, max_length: Option<usize>, text: &str) -> Result<FieldType, TypeError> {
    let (element, default) = match (scalar(name), array(name)) {
        (Some(scalar), _) => (Element::Scalar(scalar), VEC_DEFAULT),
        (None, Some(("u8", len))) => (Element::Bytes(length(len, text)?), VEC_BYTES_DEFAULT),
        _ => {
            return error(
                format!("unknown type of elements: type={text}"),
                "use Vec<T> with T = u8 to u64, i8 to i64, f32, f64 or [u8; N]",
            );
        }
    };
    let max_length = counted(max_length.unwrap_or(default))?;
    if max_length * element.size() > PAYLOAD_LIMIT {
        let size = max_length * element.size();
        let text = format!("vec too large: type={text}, max_length={max_length}, size={size}");
        return error(
            text,
            &format!("a payload has at most {PAYLOAD_LIMIT} bytes"),
        );
    }
    Ok(FieldType::Vec {
        element,
        max_length,
    })
}
