//! Names: what a file has to import, how built-in types are spelt, and the order in which ruff sorts.

use std::fmt::Write as _;

use super::text::COLUMNS;
use crate::check::python_name;
use crate::model::Message;

/// Built-in types that annotations and defaults are written with.
const BUILTINS: [&str; 6] = ["bool", "bytes", "float", "int", "str", "tuple"];

/// Names of the runtime that generated code may use.
const CLASSES: [&str; 5] = ["CANNOT_PACK", "TRUTH", "DynamicMessage", "Field", "Message"];
const FUNCTIONS: [&str; 17] = [
    "empty_room",
    "make_room",
    "read_bytes",
    "read_byte_rows",
    "read_number_rows",
    "read_rows",
    "read_text",
    "read_wide",
    "rejected",
    "single",
    "unnamed",
    "write_byte_rows",
    "write_bytes",
    "write_number_rows",
    "write_rows",
    "write_text",
    "write_wide",
];

/// How built-in types are spelt inside of one class: a field that is called like one hides it there.
pub(super) struct Builtins {
    hidden: Vec<&'static str>,
}

impl Builtins {
    pub(super) fn of(message: &Message) -> Self {
        let is_hidden = |name: &&str| {
            let mut fields = message.fields.iter();
            fields.any(|field| python_name(&field.name) == *name)
        };
        Self {
            hidden: BUILTINS.into_iter().filter(is_hidden).collect(),
        }
    }

    pub(super) fn name(&self, name: &'static str) -> String {
        if self.hidden.contains(&name) {
            format!("builtins.{name}")
        } else {
            name.to_owned()
        }
    }
}

/// Constants, then classes, then functions.
pub(super) fn kind(name: &str) -> u8 {
    if name.to_uppercase() == name {
        0
    } else {
        u8::from(name.to_lowercase() == name) + 1
    }
}

/// The code without its strings, in which a name could stand for something else.
fn without_strings(body: &str) -> String {
    let code = body.split("\"\"\"").step_by(2).collect::<Vec<_>>();
    code.join("")
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("")
}

/// Whether the code uses a global name, and does not just have an attribute or property of that name.
fn uses(code: &str, name: &str, is_function: bool) -> bool {
    code.match_indices(name).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + name.len()..]);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        !before.ends_with(is_part)
            && !before.ends_with("def ")
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && (!is_function || after.starts_with('('))
    })
}

/// The imports that the code of a file needs.
pub(super) fn imports(runtime: &str, body: &str) -> String {
    let code = without_strings(body);
    let mut text = String::new();
    let is_spelt_out = |name: &&str| code.contains(&format!("builtins.{name}"));
    if BUILTINS.iter().any(is_spelt_out) {
        text.push_str("import builtins\n");
    }
    for (module, needle) in [("enum", "(enum.IntEnum)"), ("struct", "struct.Struct(")] {
        if code.contains(needle) {
            let _ = writeln!(text, "import {module}");
        }
    }
    if code.contains("Iterable[") {
        text.push_str("from collections.abc import Iterable\n");
    }
    let class_var = if code.contains("ClassVar[") {
        "ClassVar, "
    } else {
        ""
    };
    let _ = writeln!(text, "from typing import {class_var}Final");
    let classes = CLASSES.into_iter().filter(|name| uses(&code, name, false));
    let functions = FUNCTIONS.into_iter().filter(|name| uses(&code, name, true));
    let mut names: Vec<_> = classes.chain(functions).collect();
    if names.is_empty() {
        return text;
    }
    names.sort_by_key(|name| (kind(name), *name));
    let line = format!("from {runtime} import {}", names.join(", "));
    let named = if line.len() <= COLUMNS {
        format!("{line}\n")
    } else {
        let lines = names.join(",\n    ");
        format!("from {runtime} import (\n    {lines},\n)\n")
    };
    // Under a private name, because a message may well be called so. It sorts behind constants.
    let private = format!("from {runtime} import Contracts as _Contracts\n");
    let (first, second) = if kind(names[0]) == 0 {
        (named, private)
    } else {
        (private, named)
    };
    let _ = write!(text, "\n{first}{second}");
    text
}
