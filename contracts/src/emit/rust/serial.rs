//! What serde needs of generated types, behind a feature of the package that has them.

use std::fmt::Write as _;

use super::layout::{array, call};
use crate::check::{pascal, snake};
use crate::emit::zero_is_legal;
use crate::model::{Contracts, Message};

/// The two traits of serde for a type, whose work functions of the runtime do.
fn traits(name: &str, feature: &str, suffix: &str) -> String {
    format!(
        "\n#[cfg(feature = \"{feature}\")]\nimpl message::serde::Serialize for {name} {{\n    \
         fn serialize<S: message::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{\n        \
         message::serial::serialize{suffix}({}self, serializer)\n    }}\n}}\n\n\
         #[cfg(feature = \"{feature}\")]\nimpl<'de> message::serde::Deserialize<'de> for {name} {{\n    \
         fn deserialize<D: message::serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {{\n        \
         message::serial::deserialize{suffix}(input)\n    }}\n}}\n",
        if suffix.is_empty() { "" } else { "*" }
    )
}

/// A named integer.
pub(super) fn enumeration(name: &str, feature: &str) -> String {
    traits(name, feature, "_named")
}

/// A message of fixed layout.
pub(super) fn message(contracts: &Contracts, message: &Message, feature: &str) -> String {
    let name = pascal(&message.name);
    let mut text = traits(&name, feature, "");
    let _ = writeln!(
        text,
        "\n#[cfg(feature = \"{feature}\")]\nimpl message::serial::Fields for {name} {{"
    );
    let names: Vec<_> = message.fields.iter().map(|it| snake(&it.name)).collect();
    let quoted = |name: &String| format!("\"{name}\"");
    let all: Vec<_> = names.iter().map(quoted).collect();
    let head = |name: &str| format!("const {name}: &'static [&'static str] = &");
    text.push_str(&array("    ", &head("NAMES"), &all, ";"));
    let required = message.fields.iter().zip(&all);
    let required: Vec<_> = required
        .filter(|(field, _)| !zero_is_legal(contracts, field))
        .map(|(_, name)| name.clone())
        .collect();
    text.push_str(&array("    ", &head("REQUIRED"), &required, ";"));
    text.push_str(&write(&names));
    text.push_str(&read(&names));
    text.push_str("}\n");
    text
}

fn write(names: &[String]) -> String {
    let out = if names.is_empty() { "_" } else { "out" };
    let mut text = format!(
        "\n    fn write<S: message::serde::ser::SerializeStruct>(&self, {out}: &mut S) \
         -> Result<(), S::Error> {{\n"
    );
    for name in names {
        let arguments = [
            "out".to_owned(),
            format!("\"{name}\""),
            format!("&self.{name}"),
        ];
        text.push_str(&call("        ", "message::serial::put", &arguments, "?;"));
    }
    text.push_str("        Ok(())\n    }\n");
    text
}

fn read(names: &[String]) -> String {
    let unused = if names.is_empty() { "_" } else { "" };
    let mut text = format!(
        "\n    fn read<'de, D: message::serde::Deserializer<'de>>(\n        &mut self,\n        \
         {unused}index: usize,\n        {unused}value: D,\n    ) -> Result<(), D::Error> {{\n"
    );
    let get = |indent: &str, name: &str, tail: &str| {
        let arguments = [format!("&mut self.{name}"), "value".to_owned()];
        call(indent, "message::serial::get", &arguments, tail)
    };
    match names {
        [] => text.push_str("        Ok(())\n"),
        [name] => {
            let _ = write!(
                text,
                "        if index == 0 {{\n{}        }}\n        Ok(())\n",
                get("            ", name, "?;")
            );
        }
        _ => {
            text.push_str("        match index {\n");
            for (index, name) in names.iter().enumerate() {
                let value = get("            ", name, ",");
                let _ = write!(text, "            {index} => {}", value.trim_start());
            }
            text.push_str("            _ => Ok(()),\n        }\n");
        }
    }
    text.push_str("    }\n");
    text
}
