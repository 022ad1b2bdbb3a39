//! What the values of a message may be, taken from the checked model, and drawing some of them.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "random bits are cut to the width that is wanted"
)]

use mycelium_contracts::{
    Contracts, Element, Encoding, Field, FieldType, Number, PREFIX_LEN, Rule, Scalar,
};
use mycelium_tests::random::Random;
use serde_json::{Map, Value, json};

use super::wire::{Wire, hex};

pub(crate) struct MessageSpec {
    pub(crate) name: String,
    fields: Vec<FieldSpec>,
}

struct FieldSpec {
    name: String,
    offset: usize,
    size: usize,
    kind: Kind,
    not_zero: bool,
}

enum Kind {
    Int {
        min: i128,
        max: i128,
    },
    /// 128 bits; an unsigned number above `i128::MAX` only where `max` is that.
    Wide {
        min: i128,
        max: i128,
        signed: bool,
    },
    Float {
        single: bool,
        min: f64,
        max: f64,
        bounded: bool,
    },
    Bool,
    Bytes {
        len: usize,
    },
    Rows {
        len: usize,
        rows: usize,
    },
    Text {
        least: usize,
        most: usize,
        no_prefix: bool,
    },
    List {
        element: Box<Kind>,
        least: usize,
        most: usize,
    },
    ByteList {
        least: usize,
        most: usize,
    },
    Enum {
        values: Vec<i128>,
    },
}

/// The messages of fixed layout.
pub(crate) fn of(contracts: &Contracts) -> Vec<MessageSpec> {
    let fixed = contracts
        .messages()
        .filter(|message| message.encoding == Encoding::Contract);
    let spec = |message: &mycelium_contracts::Message| MessageSpec {
        name: message.name.clone(),
        fields: message
            .fields
            .iter()
            .map(|field| field_spec(contracts, field))
            .collect(),
    };
    fixed.map(spec).collect()
}

fn field_spec(contracts: &Contracts, field: &Field) -> FieldSpec {
    let (mut min, mut max) = (None, None);
    let mut least = 0;
    for rule in &field.rules {
        match rule {
            Rule::Min(bound) => min = Some(*bound),
            Rule::Max(bound) => max = Some(*bound),
            Rule::MinLength(length) => least = least.max(*length),
            _ => {}
        }
    }
    let kind = match field.kind {
        FieldType::Scalar(scalar) => number(scalar, min, max),
        FieldType::U128 | FieldType::I128 => {
            let signed = field.kind == FieldType::I128;
            let lowest = if signed { i128::MIN } else { 0 };
            Kind::Wide {
                min: whole(min, lowest),
                max: whole(max, i128::MAX),
                signed,
            }
        }
        FieldType::Bool => Kind::Bool,
        FieldType::U256 => Kind::Bytes { len: 32 },
        FieldType::Bytes(len) => Kind::Bytes { len },
        FieldType::Table { len, rows } => Kind::Rows { len, rows },
        FieldType::Text { max_length: most } => Kind::Text {
            least,
            most,
            no_prefix: field.rules.contains(&Rule::No0xPrefix),
        },
        FieldType::Vec {
            element,
            max_length: most,
        } => match element {
            Element::Scalar(scalar) if scalar.name() == "u8" => Kind::ByteList { least, most },
            Element::Scalar(scalar) => Kind::List {
                element: Box::new(number(scalar, None, None)),
                least,
                most,
            },
            Element::Bytes(len) => Kind::List {
                element: Box::new(Kind::Bytes { len }),
                least,
                most,
            },
        },
        FieldType::Enum { index, .. } => {
            let variants = &contracts.enums()[index].variants;
            Kind::Enum {
                values: variants.iter().map(|(_, value)| *value).collect(),
            }
        }
    };
    FieldSpec {
        name: field.name.clone(),
        offset: field.offset,
        size: field.size,
        kind,
        not_zero: field.rules.contains(&Rule::NotZero),
    }
}

fn whole(bound: Option<Number>, otherwise: i128) -> i128 {
    match bound {
        None => otherwise,
        Some(Number::Int(value)) => value,
        Some(Number::Float(value)) => {
            panic!("the files here have whole bounds for integers: {value}")
        }
    }
}

fn number(scalar: Scalar, min: Option<Number>, max: Option<Number>) -> Kind {
    match scalar {
        Scalar::Int(int) => {
            let (lowest, highest) = int.range();
            Kind::Int {
                min: whole(min, lowest),
                max: whole(max, highest),
            }
        }
        Scalar::F32 | Scalar::F64 => Kind::Float {
            single: scalar == Scalar::F32,
            min: min.map_or(f64::NEG_INFINITY, Number::as_f64),
            max: max.map_or(f64::INFINITY, Number::as_f64),
            bounded: min.is_some() || max.is_some(),
        },
    }
}

impl MessageSpec {
    /// Valid values.
    pub(crate) fn draw(&self, random: &mut Random) -> Value {
        let mut values = Map::new();
        for field in &self.fields {
            let value = loop {
                let value = field.kind.draw(random);
                if !field.not_zero || !is_zero(&value) {
                    break value;
                }
            };
            values.insert(field.name.clone(), value);
        }
        Value::Object(values)
    }

    /// Breaks a field that can be broken, and tells which.
    pub(crate) fn break_one(&self, payload: &mut [u8], random: &mut Random) -> Option<String> {
        let breakable = self
            .fields
            .iter()
            .filter(|field| !field.ways_to_break().is_empty());
        let breakable: Vec<_> = breakable.collect();
        if breakable.is_empty() {
            return None;
        }
        let field = breakable[random.index(breakable.len())];
        let ways = field.ways_to_break();
        let bytes = &mut payload[field.offset..][..field.size];
        bytes.fill(0);
        let way = &ways[random.index(ways.len())];
        bytes[..way.len()].copy_from_slice(way);
        Some(field.name.clone())
    }

    /// For Python's own drawing.
    pub(crate) fn to_json(&self) -> Value {
        let fields = self.fields.iter().map(|field| {
            let mut kind = field.kind.to_json();
            kind["name"] = json!(field.name);
            kind["not_zero"] = json!(field.not_zero);
            kind
        });
        json!({ "name": self.name, "fields": fields.collect::<Vec<_>>() })
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.bytes().all(|digit| digit == b'0'),
        _ => false,
    }
}

impl FieldSpec {
    /// Bytes that start an invalid value; the others are 0.
    fn ways_to_break(&self) -> Vec<Vec<u8>> {
        let mut ways = Vec::new();
        let counted = |count: usize| u16::try_from(count).expect("short").to_le_bytes().to_vec();
        match &self.kind {
            Kind::Int { min, max } => {
                for value in [min - 1, max + 1] {
                    let bytes = value.to_le_bytes();
                    let fits =
                        i128::from_le_bytes(extended(&bytes[..self.size], *min < 0)) == value;
                    if fits {
                        ways.push(bytes[..self.size].to_vec());
                    }
                }
            }
            Kind::Float {
                single,
                min,
                max,
                bounded: true,
            } => {
                for value in [f64::NAN, min.next_down(), max.next_up()] {
                    // One step of 64 bits is none of 32.
                    if !single {
                        ways.push(value.to_le_bytes().to_vec());
                    }
                }
                if *single {
                    ways.push(f32::NAN.to_le_bytes().to_vec());
                }
                if max.is_infinite() {
                    ways.pop();
                }
            }
            Kind::Bool => ways.extend([vec![2], vec![255]]),
            Kind::Text {
                least,
                most,
                no_prefix,
            } => {
                ways.extend([counted(most + 1), counted(65_535)]);
                ways.push([counted(1), vec![0; PREFIX_LEN - 2], vec![0xFF]].concat());
                if *least > 0 {
                    ways.push(counted(least - 1));
                }
                if *no_prefix {
                    ways.push([counted(2), vec![0; PREFIX_LEN - 2], b"0x".to_vec()].concat());
                }
            }
            Kind::List { least, most, .. } | Kind::ByteList { least, most } => {
                ways.extend([counted(most + 1), counted(65_535)]);
                if *least > 0 {
                    ways.push(counted(least - 1));
                }
            }
            Kind::Enum { values } => {
                let unnamed = (0..=255_u8).find(|byte| !values.contains(&i128::from(*byte)));
                ways.push(vec![unnamed.expect("fewer than 256 names")]);
            }
            _ => {}
        }
        if self.not_zero {
            ways.push(vec![0; self.size]);
        }
        ways
    }
}

/// Sign-extends little-endian bytes, or extends them with zeros.
fn extended(bytes: &[u8], signed: bool) -> [u8; 16] {
    let negative = signed && bytes[bytes.len() - 1] >= 0x80;
    let mut wide = [if negative { 0xFF } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    wide
}

/// From `min` to `max`: the ends and numbers around 0 often, otherwise of any length.
fn whole_number(random: &mut Random, min: i128, max: i128) -> i128 {
    let value = match random.below(8) {
        0 => min,
        1 => max,
        2 => random.one_of(&[-1, 0, 1]),
        3 => -(random.wide() as i128 & i128::MAX),
        _ => random.wide() as i128 & i128::MAX,
    };
    if (min..=max).contains(&value) {
        return value;
    }
    let span = max.wrapping_sub(min) as u128;
    min.wrapping_add((random.wide() % (span + 1)) as i128)
}

/// Bits of a float of this width: zeros, infinities, the ends, NaN of any bits, subnormals, anything.
///
/// A NaN is a quiet one, because a processor may make one of any other when it widens 32 bits.
fn float_bits(random: &mut Random, width: u32) -> u64 {
    let mantissa = if width == 32 { 23 } else { 52 };
    let all = u64::MAX >> (64 - width);
    let sign = 1 << (width - 1);
    let infinity = (all & !sign) >> mantissa << mantissa;
    let quiet = infinity | 1 << (mantissa - 1);
    let bits = match random.below(12) {
        0 => 0,
        1 => infinity,
        2 => infinity - 1,
        3 => 1,
        4 => 1 << mantissa,
        5 => quiet,
        6 => quiet | random.bits() & (all >> (width - mantissa + 1)),
        7 => random.bits() & (all >> (width - mantissa)),
        8 if width == 32 => u64::from((random.below(1_000_000) as f32 / 1000.0).to_bits()),
        8 => (random.below(1_000_000) as f64 / 1000.0).to_bits(),
        _ => random.bits() & all & !sign,
    };
    let bits = if bits > infinity { bits | quiet } else { bits };
    if random.one_in(3) { bits | sign } else { bits }
}

/// Text of so many bytes, of characters of one to four.
fn text(random: &mut Random, least: usize, most: usize) -> String {
    const CHARACTERS: [char; 16] = [
        'a', 'Z', '0', 'x', ' ', '/', '"', '\\', '\0', '\u{7f}', 'é', 'ß', '\u{2028}', '価', '€',
        '🙂',
    ];
    let len = random.length(least, most);
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let next = random.one_of(&CHARACTERS);
        text.push(if text.len() + next.len_utf8() > len {
            '~'
        } else {
            next
        });
    }
    text
}

impl Kind {
    fn draw(&self, random: &mut Random) -> Value {
        match self {
            Self::Int { min, max } => {
                let value = whole_number(random, *min, *max);
                i64::try_from(value).map_or_else(|_| Value::from(value as u64), Value::from)
            }
            Self::Wide {
                max: i128::MAX,
                signed: false,
                ..
            } if random.one_in(3) => Value::from((u128::MAX - random.wide() / 2).to_string()),
            Self::Wide { min, max, .. } => {
                Value::from(whole_number(random, *min, *max).to_string())
            }
            Self::Float {
                single: true,
                min,
                max,
                bounded,
            } => {
                let value = f32::from_bits(float_bits(random, 32) as u32);
                if !bounded {
                    return value.write();
                }
                let value = if value.is_nan() {
                    1.0
                } else {
                    f64::from(value)
                };
                (value.clamp(*min, *max) as f32).write()
            }
            Self::Float {
                min, max, bounded, ..
            } => {
                let value = f64::from_bits(float_bits(random, 64));
                if !bounded {
                    return value.write();
                }
                let value = if value.is_nan() { 1.0 } else { value };
                value.clamp(*min, *max).write()
            }
            Self::Bool => Value::from(random.one_in(2)),
            Self::Bytes { len } => Value::from(hex(&random.bytes(*len))),
            Self::Rows { len, rows } => (0..*rows)
                .map(|_| Value::from(hex(&random.bytes(*len))))
                .collect(),
            Self::Text {
                least,
                most,
                no_prefix,
            } => {
                let mut text = text(random, *least, *most);
                if *no_prefix && text.to_lowercase().starts_with("0x") {
                    text.replace_range(..1, "z");
                }
                Value::from(text)
            }
            Self::List {
                element,
                least,
                most,
            } => (0..random.length(*least, *most))
                .map(|_| element.draw(random))
                .collect(),
            Self::ByteList { least, most } => {
                let len = random.length(*least, *most);
                Value::from(hex(&random.bytes(len)))
            }
            Self::Enum { values } => Value::from(random.one_of(values) as i64),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Int { min, max } => {
                json!({ "kind": "int", "min": min.to_string(), "max": max.to_string() })
            }
            Self::Wide { min, max, signed } => {
                let max = if *signed || *max < i128::MAX {
                    max.to_string()
                } else {
                    u128::MAX.to_string()
                };
                json!({ "kind": "wide", "min": min.to_string(), "max": max })
            }
            Self::Float {
                single,
                min,
                max,
                bounded,
            } => json!({
                "kind": "float", "single": single, "bounded": bounded, "min": min.to_string(), "max": max.to_string(),
            }),
            Self::Bool => json!({ "kind": "bool" }),
            Self::Bytes { len } => json!({ "kind": "bytes", "least": len, "most": len }),
            Self::ByteList { least, most } => {
                json!({ "kind": "bytes", "least": least, "most": most })
            }
            Self::Rows { len, rows } => {
                let element = json!({ "kind": "bytes", "least": len, "most": len });
                json!({ "kind": "list", "element": element, "least": rows, "most": rows })
            }
            Self::Text {
                least,
                most,
                no_prefix,
            } => {
                json!({ "kind": "text", "least": least, "most": most, "no_prefix": no_prefix })
            }
            Self::List {
                element,
                least,
                most,
            } => {
                json!({ "kind": "list", "element": element.to_json(), "least": least, "most": most })
            }
            Self::Enum { values } => {
                let values: Vec<_> = values.iter().map(|value| *value as i64).collect();
                json!({ "kind": "enum", "values": values })
            }
        }
    }
}
