//! The values of a message as Rust's own types: the struct of fields, the constructor, and access to
//! what is stored in another form.

use std::fmt::Write as _;

use super::checks::{rule_checks, type_check};
use super::layout::{doc, literal};
use super::types::{is_borrowed, is_stored_otherwise, natural_type, padded_members};
use super::{MAY_BE_UNUSED, field_doc};
use crate::check::{pascal, snake};
use crate::model::{Contracts, Field, FieldType, Message};

/// Largest array that Rust itself has a default for.
const DEFAULT_ARRAY_MAX: usize = 32;

/// Name of the struct of a message's fields: `QuoteFields`, longer where a contract takes that name.
pub(super) fn fields_name(contracts: &Contracts, message: &Message) -> String {
    let mut name = format!("{}Fields", pascal(&message.name));
    let taken = |name: &str| {
        let messages = contracts.messages().map(|one| pascal(&one.name));
        let enums = contracts.enums().iter().map(|one| one.name.clone());
        messages.chain(enums).any(|one| one == name)
    };
    while taken(&name) {
        name.push_str("Values");
    }
    name
}

/// `'a`, if a value is borrowed.
fn lifetime(message: &Message, name: &str) -> String {
    if message.fields.iter().any(|field| is_borrowed(field.kind)) {
        format!("<{name}>")
    } else {
        String::new()
    }
}

/// The struct of the values.
pub(super) fn fields_struct(contracts: &Contracts, message: &Message) -> String {
    let name = pascal(&message.name);
    let fields = fields_name(contracts, message);
    let derivable = message.fields.iter().all(|field| has_default(field.kind));
    let debug = if message.log_payload { "Debug, " } else { "" };
    let default = if derivable { ", Default" } else { "" };
    let mut text = format!(
        "\n/// The values of a [`{name}`], for [`{name}::new`].\n\
         #[derive({debug}Clone, Copy, PartialEq{default})]\n"
    );
    let head = format!("pub struct {fields}{}", lifetime(message, "'a"));
    if message.fields.is_empty() {
        let _ = writeln!(text, "{head} {{}}");
    } else {
        let _ = writeln!(text, "{head} {{");
        for field in &message.fields {
            text.push_str(&doc("    ", &field_doc(contracts, field)));
            let kind = natural_type(contracts, field.kind, "'a ");
            let _ = writeln!(text, "    pub {}: {kind},", snake(&field.name));
        }
        text.push_str("}\n");
    }
    let lifetime = lifetime(message, "'_");
    if !message.log_payload {
        let _ = write!(
            text,
            "\nimpl fmt::Debug for {fields}{lifetime} {{\n    \
             fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        \
             message::not_logged::<{name}>(f)\n    }}\n}}\n"
        );
    }
    if !derivable {
        let _ = write!(
            text,
            "\nimpl Default for {fields}{lifetime} {{\n    fn default() -> Self {{\n"
        );
        let value =
            |field: &Field| format!("{}: {}", snake(&field.name), default_value(field.kind));
        let values: Vec<_> = message.fields.iter().map(value).collect();
        text.push_str(&literal("        ", "Self", &values, ""));
        text.push_str("    }\n}\n");
    }
    text
}

fn has_default(kind: FieldType) -> bool {
    match kind {
        FieldType::Bytes(len) => len <= DEFAULT_ARRAY_MAX,
        FieldType::Table { len, rows } => len <= DEFAULT_ARRAY_MAX && rows <= DEFAULT_ARRAY_MAX,
        _ => true,
    }
}

fn default_value(kind: FieldType) -> String {
    match kind {
        FieldType::Bytes(len) => format!("[0; {len}]"),
        FieldType::Table { len, rows } => format!("[[0; {len}]; {rows}]"),
        _ => "Default::default()".to_owned(),
    }
}

/// `impl Quote { … }`: the constructor, all values, getters and setters.
pub(super) fn inherent(contracts: &Contracts, message: &Message) -> String {
    let name = pascal(&message.name);
    let mut text = format!("\n{MAY_BE_UNUSED}impl {name} {{\n");
    text.push_str(&constructor(contracts, message));
    text.push_str(&all_values(contracts, message));
    for field in &message.fields {
        if has_getter(message, field) {
            text.push_str(&getter(contracts, field));
        }
        if is_borrowed(field.kind) {
            text.push_str(&setter(contracts, field));
        }
    }
    text.push_str("}\n");
    text
}

fn constructor(contracts: &Contracts, message: &Message) -> String {
    let fields = fields_name(contracts, message);
    let unused = if message.fields.is_empty() { "_" } else { "" };
    let mut text = format!(
        "    /// Builds a message and validates it. Cost: one copy of the values; nothing is allocated.\n    \
         ///\n    /// # Errors\n    ///\n    \
         /// The first field that breaks a rule, with its value and the legal range.\n    \
         pub fn new({unused}fields: {fields}{}) -> Result<Self, message::ValidationError> {{\n",
        lifetime(message, "'_")
    );
    if message.fields.iter().any(|field| is_borrowed(field.kind)) {
        text.push_str("        let check = message::Check::of::<Self>();\n");
    }
    if message.fields.is_empty() {
        text.push_str("        Ok(Self {})\n    }\n");
        return text;
    }
    let value = |(name, member): (String, Result<&Field, usize>)| match member {
        Ok(field) => format!("{name}: {}", stored_value(field, &name)),
        Err(padding) => format!("{name}: [0; {padding}]"),
    };
    let values: Vec<_> = padded_members(message).into_iter().map(value).collect();
    text.push_str(&literal("        ", "let built = Self", &values, ";"));
    text.push_str("        built.validate()?;\n        Ok(built)\n    }\n");
    text
}

fn stored_value(field: &Field, name: &str) -> String {
    match field.kind {
        FieldType::Text { .. } => format!("check.store_text(\"{name}\", fields.{name})?"),
        FieldType::Vec { .. } => format!("check.store_vec(\"{name}\", fields.{name})?"),
        FieldType::Bool => format!("message::WireBool::new(fields.{name})"),
        FieldType::U128 => format!("message::U128::new(fields.{name})"),
        FieldType::I128 => format!("message::I128::new(fields.{name})"),
        _ => format!("fields.{name}"),
    }
}

/// The expression of a field's natural value, and whether it can fail.
fn natural_value(field: &Field) -> (String, bool) {
    let name = snake(&field.name);
    match field.kind {
        FieldType::Text { .. } => (format!("check.text(\"{name}\", &self.{name})"), true),
        FieldType::Vec { .. } => (format!("check.vec(\"{name}\", &self.{name})"), true),
        FieldType::Bool => (format!("check.truth(\"{name}\", self.{name})"), true),
        FieldType::U128 | FieldType::I128 => (format!("self.{name}.get()"), false),
        _ => (format!("self.{name}"), false),
    }
}

fn all_values(contracts: &Contracts, message: &Message) -> String {
    let fields = fields_name(contracts, message);
    let mut text = format!(
        "\n    /// All values as Rust's own types; texts and vecs are borrowed.\n    ///\n    \
         /// # Errors\n    ///\n    \
         /// A text, vec or truth value that cannot be read; a valid message has none.\n    \
         pub fn fields(&self) -> Result<{fields}{}, message::ValidationError> {{\n",
        lifetime(message, "'_")
    );
    if message.fields.is_empty() {
        let _ = write!(text, "        Ok({fields} {{}})\n    }}\n");
        return text;
    }
    if message.fields.iter().any(|field| natural_value(field).1) {
        text.push_str("        let check = message::Check::of::<Self>();\n");
    }
    let value = |field: &Field| {
        let (value, fallible) = natural_value(field);
        let question = if fallible { "?" } else { "" };
        format!("{}: {value}{question}", snake(&field.name))
    };
    let values: Vec<_> = message.fields.iter().map(value).collect();
    text.push_str(&literal("        ", &format!("Ok({fields}"), &values, ")"));
    text.push_str("    }\n");
    text
}

/// Fields that are stored as Rust's own type need no getter, and a name that a method has gets none:
/// such a field is still reached as a member.
fn has_getter(message: &Message, field: &Field) -> bool {
    let name = snake(&field.name);
    let is_setter = name.strip_prefix("set_").is_some_and(|other| {
        let of = |one: &&Field| snake(&one.name) == other && is_borrowed(one.kind);
        message.fields.iter().any(|one| of(&one))
    });
    let methods = ["as_bytes", "fields", "new", "read", "validate", "view"];
    is_stored_otherwise(field.kind) && !is_setter && !methods.contains(&name.as_str())
}

fn getter(contracts: &Contracts, field: &Field) -> String {
    let name = snake(&field.name);
    let kind = natural_type(contracts, field.kind, "");
    let mut text = format!("\n{}", doc("    ", &field_doc(contracts, field)));
    let (value, fallible) = natural_value(field);
    if fallible {
        let what = match field.kind {
            FieldType::Text { .. } => {
                "The stored length is out of range, or the bytes are not UTF-8."
            }
            FieldType::Bool => "The byte is neither 0 nor 1.",
            _ => "The stored number of elements is out of range.",
        };
        let value = value.replacen("check", "message::Check::of::<Self>()", 1);
        let _ = write!(
            text,
            "    ///\n    /// # Errors\n    ///\n    /// {what}\n    \
             pub fn {name}(&self) -> Result<{kind}, message::ValidationError> {{\n        \
             {value}\n    }}\n"
        );
    } else {
        let _ = write!(
            text,
            "    #[must_use]\n    pub const fn {name}(&self) -> {kind} {{\n        {value}\n    }}\n"
        );
    }
    text
}

fn setter(contracts: &Contracts, field: &Field) -> String {
    let name = snake(&field.name);
    let kind = natural_type(contracts, field.kind, "");
    let store = match field.kind {
        FieldType::Vec { .. } => "store_vec",
        _ => "store_text",
    };
    let mut text = format!(
        "\n    /// Sets `{name}`.\n    ///\n    /// # Errors\n    ///\n    \
         /// If the value breaks a rule; the message is then unchanged.\n    \
         pub fn set_{name}(&mut self, value: {kind}) -> Result<(), message::ValidationError> {{\n        \
         let check = message::Check::of::<Self>();\n        \
         let value = check.{store}(\"{name}\", value)?;\n"
    );
    text.push_str(&rule_checks(field, "value"));
    let _ = write!(
        text,
        "        self.{name} = value;\n        Ok(())\n    }}\n"
    );
    text
}

/// The statements of `validate` for one field.
pub(super) fn checks(field: &Field) -> String {
    let value = format!("self.{}", snake(&field.name));
    type_check(field, &value) + &rule_checks(field, &value)
}
