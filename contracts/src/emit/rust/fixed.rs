//! Messages of fixed layout.

use std::fmt::Write as _;

use super::layout::{array, array_of_calls, call, doc};
use super::types::{padded_members, stored_align, stored_type};
use super::{constants, described, field_doc, values};
use crate::check::{pascal, snake};
use crate::model::{Contracts, Field, FieldType, Message};

pub(super) fn message(contracts: &Contracts, message: &Message) -> String {
    let name = pascal(&message.name);
    let size = message.wire_len.unwrap_or(0);
    let mut text = format!("\n{}", doc("", &described(&message.description, &name)));
    let natural = message
        .fields
        .iter()
        .map(|field| stored_align(field.kind))
        .max()
        .unwrap_or(1);
    let align = if natural < message.align {
        format!(", align({})", message.align)
    } else {
        String::new()
    };
    let derives = "Clone, Copy, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout";
    let _ = writeln!(text, "#[repr(C{align})]\n#[derive({derives})]");
    if message.fields.is_empty() {
        let _ = writeln!(text, "pub struct {name} {{}}");
    } else {
        let _ = writeln!(text, "pub struct {name} {{");
        text.push_str(&members(contracts, message));
        text.push_str("}\n");
    }
    text.push_str(&asserts(message, &name, size));
    text.push_str(&values::fields_struct(contracts, message));
    text.push_str(&values::inherent(contracts, message));
    text.push_str(&default_and_formats(message, &name));
    text.push_str(&message_impl(contracts, message, &name));
    text.push_str(&try_from(&name));
    text
}

fn members(contracts: &Contracts, message: &Message) -> String {
    let mut text = String::new();
    for (name, member) in padded_members(message) {
        let kind = match member {
            Ok(field) => {
                text.push_str(&doc("    ", &field_doc(contracts, field)));
                stored_type(contracts, field.kind)
            }
            Err(padding) => {
                text.push_str("    #[doc(hidden)]\n");
                format!("[u8; {padding}]")
            }
        };
        let _ = writeln!(text, "    pub {name}: {kind},");
    }
    text
}

fn asserts(message: &Message, name: &str, size: usize) -> String {
    let mut text = String::from("\nconst _: () = {\n");
    text.push_str(&call(
        "    ",
        "assert!",
        &[format!("size_of::<{name}>() == {size}")],
        ";",
    ));
    let align = format!("align_of::<{name}>() == {}", message.align);
    text.push_str(&call("    ", "assert!", &[align], ";"));
    for field in &message.fields {
        let claim = format!(
            "offset_of!({name}, {}) == {}",
            snake(&field.name),
            field.offset
        );
        text.push_str(&call("    ", "assert!", &[claim], ";"));
    }
    text.push_str("};\n");
    text
}

fn default_and_formats(message: &Message, name: &str) -> String {
    let mut text = format!(
        "\nimpl Default for {name} {{\n    /// All bytes zero, which may not be a valid message.\n    \
         fn default() -> Self {{\n        FromZeros::new_zeroed()\n    }}\n}}\n\n\
         impl fmt::Debug for {name} {{\n    \
         fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n"
    );
    if !message.log_payload {
        text.push_str("        message::not_logged::<Self>(f)\n");
    } else if message.fields.is_empty() {
        let _ = writeln!(text, "        f.write_str(\"{name}\")");
    } else {
        let _ = writeln!(text, "        let mut out = f.debug_struct(\"{name}\");");
        for field in &message.fields {
            let name = snake(&field.name);
            let value = match field.kind {
                FieldType::U256 | FieldType::Bytes(_) => format!("&message::Hex(&self.{name})"),
                FieldType::Table { .. } => format!("&message::HexRows(&self.{name})"),
                _ => format!("&self.{name}"),
            };
            let arguments = [format!("\"{name}\""), value];
            text.push_str(&call("        ", "out.field", &arguments, ";"));
        }
        text.push_str("        out.finish()\n");
    }
    let _ = write!(
        text,
        "    }}\n}}\n\nimpl fmt::Display for {name} {{\n    \
         fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        \
         write!(f, \"{{self:?}}\")\n    }}\n}}\n"
    );
    text
}

fn message_impl(contracts: &Contracts, message: &Message, name: &str) -> String {
    let mut text = format!("\nimpl Message for {name} {{\n");
    text.push_str(&constants(message));
    let key: Vec<_> = message
        .key
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    text.push_str(&array(
        "    ",
        "const KEY: &'static [&'static str] = &",
        &key,
        ";",
    ));
    let info = |field: &Field| {
        let arguments = vec![
            format!("\"{}\"", field.name),
            format!("\"{}\"", contracts.type_text(field)),
            field.offset.to_string(),
            field.size.to_string(),
        ];
        ("message::FieldInfo::new".to_owned(), arguments)
    };
    let fields: Vec<_> = message.fields.iter().map(info).collect();
    let head = "const FIELDS: &'static [message::FieldInfo] = &";
    text.push_str(&array_of_calls("    ", head, &fields, ";"));
    text.push_str("\n    fn validate(&self) -> Result<(), message::ValidationError> {\n");
    let checks: String = message.fields.iter().map(values::checks).collect();
    if !checks.is_empty() {
        text.push_str("        let check = message::Check::of::<Self>();\n");
        text.push_str(&checks);
    }
    text.push_str("        Ok(())\n    }\n}\n");
    text
}

fn try_from(name: &str) -> String {
    format!(
        "\nimpl<'a> TryFrom<&'a [u8]> for &'a {name} {{\n    type Error = message::ViewError;\n\n    \
         /// Views a payload as [`Message::view`] does.\n    \
         fn try_from(payload: &'a [u8]) -> Result<Self, message::ViewError> {{\n        \
         <{name} as Message>::view(payload)\n    }}\n}}\n"
    )
}
