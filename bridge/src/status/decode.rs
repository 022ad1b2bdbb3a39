//! A payload as text or JSON, by the contracts that the bridge has read: for people who look, so anything can be shown.

use mycelium_contracts::{
    Contracts, Element, Field, FieldType, Int, Message, PREFIX_LEN, Scalar, hex,
};
use serde::Deserialize;
use serde_json::Value;
use shm_transport::frame::Encoding;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// `Quote symbol="EUR/USD" sequence=1`.
    #[default]
    Text,
    /// An object with `message`, `bytes`, `missed` and `value`.
    Json,
}

/// One line for a message, without a line end. `missed`: frames that the reader did not get so far.
pub(super) fn line(
    form: Form,
    contracts: &Contracts,
    message: &Message,
    encoding: Encoding,
    payload: &[u8],
    missed: u64,
) -> String {
    let fields = fields(contracts, message, encoding, payload);
    let name = &message.name;
    match (form, fields) {
        (Form::Text, Shown::Hidden) => {
            format!("{name} ({} bytes, log_payload is false)", payload.len())
        }
        (Form::Text, Shown::Whole(value)) => format!("{name} {value}"),
        (Form::Text, Shown::Fields(fields)) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!(" {name}={value}"));
            format!("{name}{}", fields.collect::<String>())
        }
        (Form::Json, shown) => {
            let value = match shown {
                Shown::Hidden => "null".to_owned(),
                Shown::Whole(value) => value.to_string(),
                // Written by hand to keep the order of the contract.
                Shown::Fields(fields) => {
                    let fields = fields
                        .iter()
                        .map(|(name, value)| format!("\"{name}\":{value}"));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
                }
            };
            format!(
                "{{\"message\":\"{name}\",\"bytes\":{},\"missed\":{missed},\"value\":{value}}}",
                payload.len()
            )
        }
    }
}

enum Shown<'m> {
    /// The contract forbids to show it.
    Hidden,
    /// The payload has no fields that the bridge knows.
    Whole(Value),
    Fields(Vec<(&'m str, Value)>),
}

fn fields<'m>(
    contracts: &Contracts,
    message: &'m Message,
    encoding: Encoding,
    payload: &[u8],
) -> Shown<'m> {
    if !message.log_payload {
        return Shown::Hidden;
    }
    if message.wire_len == Some(payload.len()) {
        let fields = message.fields.iter();
        return Shown::Fields(
            fields
                .map(|field| (&*field.name, value(contracts, field, payload)))
                .collect(),
        );
    }
    let parsed = match encoding {
        Encoding::Json => serde_json::from_slice(payload).ok(),
        Encoding::Contract | Encoding::MsgPack | Encoding::Raw => None,
    };
    Shown::Whole(parsed.unwrap_or_else(|| Value::String(hex(payload))))
}

fn value(contracts: &Contracts, field: &Field, payload: &[u8]) -> Value {
    // The length of the payload is that of the contract, so each field lies in it.
    let bytes = payload.get(field.offset..).unwrap_or_default();
    let bytes = bytes.get(..field.size).unwrap_or_default();
    match field.kind {
        FieldType::Scalar(kind) => scalar(kind, bytes),
        FieldType::Bool => match bytes {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => Value::String(hex(bytes)),
        },
        FieldType::U128 => Value::String(unsigned(bytes).to_string()),
        FieldType::I128 => Value::String(unsigned(bytes).cast_signed().to_string()),
        FieldType::U256 | FieldType::Bytes(_) => Value::String(hex(bytes)),
        FieldType::Table { len, .. } => {
            let rows = bytes.chunks(len.max(1));
            Value::Array(rows.map(|row| Value::String(hex(row))).collect())
        }
        FieldType::Text { max_length } => {
            let (count, content) = counted(bytes);
            let text = &content[..count.min(max_length).min(content.len())];
            Value::String(String::from_utf8_lossy(text).into_owned())
        }
        FieldType::Vec {
            element,
            max_length,
        } => {
            let (count, content) = counted(bytes);
            let elements = content.chunks_exact(element.size().max(1));
            let elements = elements.take(count.min(max_length));
            let one = |bytes: &[u8]| match element {
                Element::Scalar(kind) => scalar(kind, bytes),
                Element::Bytes(_) => Value::String(hex(bytes)),
            };
            Value::Array(elements.map(one).collect())
        }
        FieldType::Enum { index, repr } => {
            let number = integer(repr, bytes);
            let variants = contracts.enums().get(index).map(|it| &it.variants);
            let mut variants = variants.into_iter().flatten();
            let name = variants.find(|(_, value)| *value == number);
            match name {
                Some((name, _)) => Value::String(name.clone()),
                None => scalar(Scalar::Int(repr), bytes),
            }
        }
    }
}

/// How many elements there are, and where they begin.
fn counted(bytes: &[u8]) -> (usize, &[u8]) {
    let count = bytes.get(..2).map_or(0, |count| unsigned(count) as usize);
    (count, bytes.get(PREFIX_LEN..).unwrap_or_default())
}

/// A little-endian number of up to 16 bytes.
fn unsigned(bytes: &[u8]) -> u128 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |number, &byte| number << 8 | u128::from(byte))
}

fn integer(kind: Int, bytes: &[u8]) -> i128 {
    let number = unsigned(bytes).cast_signed();
    let (lowest, highest) = kind.range();
    if number > highest {
        // Its sign bit is set.
        number - (highest - lowest + 1)
    } else {
        number
    }
}

fn scalar(kind: Scalar, bytes: &[u8]) -> Value {
    let float = match (kind, bytes) {
        (Scalar::Int(kind), _) => {
            let number = integer(kind, bytes);
            let small = i64::try_from(number).map(Value::from);
            return small
                .or_else(|_| u64::try_from(number).map(Value::from))
                .unwrap_or(Value::Null);
        }
        (Scalar::F32, &[a, b, c, d]) => {
            // By way of its shortest text, so that 0.1 stays 0.1.
            let float = f32::from_le_bytes([a, b, c, d]);
            float.to_string().parse().unwrap_or(f64::from(float))
        }
        (Scalar::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Value::Null,
    };
    // JSON has neither infinity nor NaN.
    let number = serde_json::Number::from_f64(float);
    number.map_or_else(|| Value::String(float.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACTS: &str = "
schema: { id: 1, version: 1, min_compatible: 1 }
tag_ranges: { core: 1-999, app: 1000-49999, experimental: 50000-65535 }
messages:
  Every:
    tlv_type: 1001
    domain: Test
    description: \"One of each.\"
    fields:
      name: { type: \"String\", description: \"Text.\", validation: [ { max_length: 6 } ] }
      small: { type: \"i16\", description: \"Negative.\" }
      large: { type: \"u64\", description: \"Large.\" }
      ratio: { type: \"f32\", description: \"Ratio.\" }
      limit: { type: \"f64\", description: \"Limit.\" }
      huge: { type: \"i128\", description: \"Huge.\" }
      side: { type: \"u8\", enum: { BUY: 1, SELL: 2 }, description: \"Side.\" }
      hash: { type: \"[u8; 3]\", description: \"Hash.\" }
      steps: { type: \"Vec<u32>\", description: \"Steps.\", validation: [ { max_length: 4 } ] }
  Secret:
    tlv_type: 1002
    domain: Test
    description: \"Not to be shown.\"
    log_payload: false
    fields:
      pin: { type: \"u64\", description: \"Pin.\" }
";

    fn contracts() -> Contracts {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.yaml");
        std::fs::write(&path, CONTRACTS).unwrap();
        mycelium_contracts::load(&path).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn every_type_is_shown_as_what_it_is() {
        let contracts = contracts();
        let message = contracts.by_name("Every").unwrap();
        let mut payload = vec![0; message.wire_len.unwrap()];
        let mut put = |name: &str, bytes: &[u8]| {
            let field = message.fields.iter().find(|it| it.name == name).unwrap();
            payload[field.offset..][..bytes.len()].copy_from_slice(bytes);
        };
        put("name", b"\x03\0\0\0\0\0\0\0a\"b");
        put("small", &(-5_i16).to_le_bytes());
        put("large", &u64::MAX.to_le_bytes());
        put("ratio", &0.1_f32.to_le_bytes());
        put("limit", &f64::INFINITY.to_le_bytes());
        put("huge", &(-7_i128).to_le_bytes());
        put("side", &[2]);
        put("hash", &[1, 2, 255]);
        put("steps", b"\x02\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0");
        let json = line(
            Form::Json,
            &contracts,
            message,
            Encoding::Contract,
            &payload,
            3,
        );
        let read: Value = serde_json::from_str(&json).expect("JSON");
        let expected = serde_json::json!({
            "name": "a\"b", "small": -5, "large": u64::MAX, "ratio": 0.1, "limit": "inf", "huge": "-7", "side": "SELL",
            "hash": "0102ff", "steps": [7, 8],
        });
        assert_eq!(read["value"], expected, "{json}");
        assert_eq!(
            (&read["message"], &read["missed"]),
            (&"Every".into(), &3.into())
        );
        let text = line(
            Form::Text,
            &contracts,
            message,
            Encoding::Contract,
            &payload,
            0,
        );
        assert!(
            text.starts_with("Every ") && text.contains(" side=\"SELL\""),
            "{text}"
        );
        assert!(
            text.contains(" steps=[7,8]") && text.contains(" small=-5"),
            "{text}"
        );
    }

    #[test]
    fn counts_beyond_the_payload_show_what_there_is() {
        let contracts = contracts();
        let message = contracts.by_name("Every").unwrap();
        let payload = vec![0xff; message.wire_len.unwrap()];
        let json = line(
            Form::Json,
            &contracts,
            message,
            Encoding::Contract,
            &payload,
            0,
        );
        let read: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["value"]["steps"].as_array().map(Vec::len), Some(4));
        assert_eq!(read["value"]["side"], 255);
        let short = line(
            Form::Text,
            &contracts,
            message,
            Encoding::Raw,
            &[1, 0xab],
            0,
        );
        assert_eq!(short, "Every \"01ab\"");
        let json = line(
            Form::Text,
            &contracts,
            message,
            Encoding::Json,
            b"{\"a\":1}",
            0,
        );
        assert_eq!(json, "Every {\"a\":1}");
    }

    #[test]
    fn what_is_not_to_be_logged_is_not_shown() {
        let contracts = contracts();
        let message = contracts.by_name("Secret").unwrap();
        let show = |form| line(form, &contracts, message, Encoding::Contract, &[0x77; 8], 0);
        assert_eq!(show(Form::Text), "Secret (8 bytes, log_payload is false)");
        let expected = "{\"message\":\"Secret\",\"bytes\":8,\"missed\":0,\"value\":null}";
        assert_eq!(show(Form::Json), expected);
    }
}
