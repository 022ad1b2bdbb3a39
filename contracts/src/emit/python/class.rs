//! One class per message: what it says about itself, its constructor and its builder.

use std::fmt::Write as _;

use super::accessors::property;
use super::imports::Builtins;
use super::pack;
use super::text::{assigned_string, docstring, layout, pieces, short_tuple, tuple};
use super::types::{default, format_code, row_format, written_type};
use crate::check::{pascal, python_name};
use crate::digest::hex;
use crate::model::{Contracts, Encoding, Field, Message};

/// Columns that a string may take as an argument of `Field`.
const FIELD_ROOM: usize = 106;

/// A message of fixed layout.
pub(super) fn fixed(contracts: &Contracts, message: &Message) -> String {
    let builtins = Builtins::of(message);
    let size = message.wire_len.unwrap_or(0);
    let mut text = pack::packer(message);
    text.push_str(&head(message, "Message", &builtins));
    let word = u64::try_from(size).unwrap_or(0) | u64::from(message.topic_id) << 32;
    let int = builtins.name("int");
    let _ = writeln!(text, "    SIZE: ClassVar[{int}] = {size}");
    let _ = writeln!(text, "    HEADER_WORD: ClassVar[{int}] = 0x{word:016X}");
    text.push_str(&policies(message, &builtins));
    text.push_str(&digests(message, &builtins));
    let str = builtins.name("str");
    let head = format!("ROW_FORMAT: ClassVar[{str}] = ");
    text.push_str(&assigned_string("    ", &head, &row_format(message), ""));
    let key = message.key.iter();
    let key: Vec<_> = key
        .map(|name| format!("\"{}\"", python_name(name)))
        .collect();
    let head = format!("KEY: ClassVar[{}[{str}, ...]] = ", builtins.name("tuple"));
    text.push_str(&short_tuple("    ", &head, &key));
    text.push_str(&field_table(contracts, message, &builtins));
    text.push_str(&constructor(contracts, message, &builtins));
    text.push_str(&builder(contracts, message, &builtins));
    for field in &message.fields {
        text.push_str(&property(contracts, field, &builtins));
    }
    text
}

/// A message that is encoded as a whole.
pub(super) fn dynamic(message: &Message) -> String {
    let builtins = Builtins::of(message);
    let mut text = head(message, "DynamicMessage", &builtins);
    let _ = writeln!(
        text,
        "    ENCODING: ClassVar[int] = {}",
        message.encoding.bits()
    );
    let _ = writeln!(text, "    MAX_SIZE: ClassVar[int] = {}", message.max_size);
    text.push_str(&policies(message, &builtins));
    text.push_str(&digests(message, &builtins));
    text
}

/// The description, or what else can be said.
fn described(message: &Message) -> String {
    if !message.description.is_empty() {
        return message.description.clone();
    }
    let what = match message.encoding {
        Encoding::Contract => return format!("A message of topic '{}'.", message.topic),
        Encoding::MsgPack => "MessagePack",
        Encoding::Json => "JSON",
        Encoding::Raw => "Plain bytes",
    };
    format!(
        "{what} on topic '{}', at most {} bytes.",
        message.topic, message.max_size
    )
}

fn head(message: &Message, base: &str, builtins: &Builtins) -> String {
    let name = pascal(&message.name);
    let mut text = format!("\n\nclass {name}({base}):\n");
    text.push_str(&docstring("    ", &described(message)));
    let str = builtins.name("str");
    let _ = write!(
        text,
        "\n    __slots__ = ()\n\n    NAME: ClassVar[{str}] = \"{}\"\n    \
         TOPIC: ClassVar[{str}] = \"{}\"\n    TOPIC_ID: ClassVar[{}] = {}\n",
        message.name,
        message.topic,
        builtins.name("int"),
        message.topic_id
    );
    text
}

/// How a message is delivered and whether its values may be shown.
fn policies(message: &Message, builtins: &Builtins) -> String {
    format!(
        "    DELIVERY: ClassVar[{}] = \"{}\"\n    LOG_PAYLOAD: ClassVar[{}] = {}\n",
        builtins.name("str"),
        message.delivery.name(),
        builtins.name("bool"),
        if message.log_payload { "True" } else { "False" }
    )
}

fn digests(message: &Message, builtins: &Builtins) -> String {
    let bytes = builtins.name("bytes");
    let head = format!("LAYOUT_DIGEST: ClassVar[{bytes}] = {bytes}.fromhex");
    let digest = format!("\"{}\"", hex(&message.layout_digest));
    let mut text = layout("    ", &head, &[&digest], "");
    let _ = writeln!(text, "    SCHEMA_DIGEST: ClassVar[{bytes}] = _DIGEST");
    text
}

fn field_table(contracts: &Contracts, message: &Message, builtins: &Builtins) -> String {
    let rows = message.fields.iter().map(|field| {
        let Field {
            offset, size, kind, ..
        } = field;
        let name = python_name(&field.name);
        let mut arguments = vec![
            format!("\"{name}\""),
            pieces(&contracts.type_text(field), FIELD_ROOM).join("\n            "),
            offset.to_string(),
            size.to_string(),
            format!("\"{}\"", format_code(*kind)),
        ];
        if name != field.name {
            arguments.push(format!("\"{}\"", field.name));
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        layout("        ", "Field", &arguments, "")
            .trim()
            .to_owned()
    });
    let rows: Vec<_> = rows.collect();
    let head = format!(
        "FIELDS: ClassVar[{}[Field, ...]] = ",
        builtins.name("tuple")
    );
    tuple("    ", &head, &rows)
}

fn constructor(contracts: &Contracts, message: &Message, builtins: &Builtins) -> String {
    if message.fields.is_empty() {
        return "\n    def __init__(self) -> None:\n        self._allocate()\n".to_owned();
    }
    let mut text = String::from("\n    def __init__(\n        self,\n        *,\n");
    for field in &message.fields {
        let kind = written_type(contracts, field.kind, builtins);
        let _ = write!(text, "        {}: {kind}", python_name(&field.name));
        if let Some(value) = default(contracts, field, builtins) {
            let _ = write!(text, " = {value}");
        }
        text.push_str(",\n");
    }
    text.push_str("    ) -> None:\n");
    text.push_str(&pack::attempt(
        contracts,
        message,
        "        ",
        pack::Into::NewMessage,
    ));
    text.push_str("        self._allocate()\n");
    for field in &message.fields {
        let name = python_name(&field.name);
        let _ = writeln!(text, "        self.{name} = {name}");
    }
    text
}

/// `set`, which writes some fields of a message, or all of them at once.
fn builder(contracts: &Contracts, message: &Message, builtins: &Builtins) -> String {
    if message.fields.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n    def set(\n        self,\n        *,\n");
    for field in &message.fields {
        let kind = written_type(contracts, field.kind, builtins);
        let _ = writeln!(
            text,
            "        {}: {kind} | None = None,",
            python_name(&field.name)
        );
    }
    text.push_str("    ) -> None:\n");
    text.push_str(&docstring(
        "        ",
        "Sets the fields that are given, each checked as by its property; the others keep their values.",
    ));
    text.push_str(&pack::attempt_if_complete(contracts, message));
    for field in &message.fields {
        let name = python_name(&field.name);
        let _ = writeln!(
            text,
            "        if {name} is not None:\n            self.{name} = {name}"
        );
    }
    text
}
