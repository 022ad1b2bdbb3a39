//! Names: identifiers, keywords of the languages, and collisions after case conversion.

use std::collections::HashMap;

use super::{Checked, Scope};
use crate::diagnostics::Report;
use crate::model::NAME_MAX;
use crate::schema::{File, Text};

/// Words that Rust or Python keep for themselves, and that no field or constant can be called.
const KEYWORDS: &[&str] = &[
    "False", "None", "Self", "True", "abstract", "and", "as", "assert", "async", "await", "become",
    "box", "break", "class", "const", "continue", "crate", "def", "del", "do", "dyn", "elif",
    "else", "enum", "except", "extern", "false", "final", "finally", "fn", "for", "from", "gen",
    "global", "if", "impl", "import", "in", "is", "lambda", "let", "loop", "macro", "match", "mod",
    "move", "mut", "nonlocal", "not", "or", "override", "pass", "priv", "pub", "raise", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "with", "yield",
];

/// Names that generated code uses for something else next to the messages.
const TYPE_NAMES: &[&str] = &[
    "Any",
    "CONTRACTS",
    "Check",
    "ClassVar",
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "DynamicMessage",
    "Encoding",
    "Err",
    "Field",
    "Final",
    "FromBytes",
    "FromZeros",
    "I128",
    "Immutable",
    "InlineString",
    "InlineVec",
    "IntEnum",
    "IntoBytes",
    "KnownLayout",
    "MESSAGES",
    "Message",
    "MessageError",
    "Ok",
    "Option",
    "PartialEq",
    "Result",
    "Sequence",
    "Some",
    "String",
    "TryFrom",
    "U128",
    "ValidationError",
    "Vec",
    "Views",
    "WireBool",
];

/// Names of what every generated Python class has, which hide an enum of that name in its body.
const CLASS_NAMES: &[&str] = &[
    "DELIVERY", "ENCODING", "FIELDS", "KEY", "NAME", "SIZE", "TOPIC",
];

/// Names of generated code that a constant would take away.
const CONSTANT_NAMES: &[&str] = &[
    "CANNOT_PACK",
    "CONTRACTS",
    "MESSAGES",
    "SCHEMA_DIGEST",
    "TRUTH",
];

/// What every generated Python message has besides its fields; a property of that name gets an underscore.
const MEMBER_NAMES: &[&str] = &[
    "copy",
    "dtype",
    "from_array",
    "from_bytes",
    "from_dict",
    "property",
    "set",
    "to_array",
    "to_bytes",
    "to_dict",
    "validate",
];

/// `QuoteTick`, `quote_tick` and `quoteTick` all become `QuoteTick`.
pub(crate) fn pascal(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    for part in name.split('_') {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            result.extend(first.to_uppercase());
            result.push_str(chars.as_str());
        }
    }
    result
}

/// `QuoteTick` and `quoteTick` become `quote_tick`.
pub(crate) fn snake(name: &str) -> String {
    let mut result = String::with_capacity(name.len() + 4);
    let mut before_is_small = false;
    for c in name.chars() {
        if c.is_uppercase() && before_is_small {
            result.push('_');
        }
        before_is_small = c.is_lowercase() || c.is_ascii_digit();
        result.extend(c.to_lowercase());
    }
    result
}

/// Name of a field's property in Python: in snake case, and with an underscore where the message itself has that name.
pub(crate) fn python_name(name: &str) -> String {
    let mut name = snake(name);
    if MEMBER_NAMES.contains(&name.as_str()) {
        name.push('_');
    }
    name
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_one(scope: &mut Scope<'_>, what: &str, name: &Text, generated: &str) {
    if !is_identifier(&name.value) {
        let hint = "start with a letter; go on with letters, digits and underscores (ASCII)";
        scope.error(name.at, &format!("not a usable {what} name"), hint);
    } else if name.value.len() > NAME_MAX {
        let text = format!("name too long: len={}, max={NAME_MAX}", name.value.len());
        scope.error(name.at, &text, "choose a shorter name");
    } else if KEYWORDS.contains(&generated) {
        let text = format!("'{generated}' is a keyword of Rust or Python");
        scope.error(name.at, &text, "choose another name");
    }
}

fn check_collision<'a>(
    scope: &mut Scope<'_>,
    seen: &mut HashMap<String, &'a Text>,
    what: &str,
    name: &'a Text,
    key: String,
    generated: &str,
) {
    if let Some(other) = seen.get(&key) {
        let why = if key == generated || pascal(&other.value) == generated {
            format!("both become '{generated}'")
        } else {
            "they differ only in case".to_owned()
        };
        let text = format!(
            "the name collides with {what} '{}' in line {}: {why}",
            other.value, other.at.line
        );
        scope.error(name.at, &text, "rename one of the two");
    } else {
        seen.insert(key, name);
    }
}

/// Checks the names of messages, fields and constants.
pub(super) fn check(file: &File, report: &mut Report) {
    let mut messages = HashMap::new();
    for message in &file.messages {
        let name = &message.name;
        let generated = pascal(&name.value);
        let mut scope = Scope {
            report,
            context: format!("message '{}'", name.value),
        };
        check_one(&mut scope, "message", name, &generated);
        if TYPE_NAMES.contains(&generated.as_str()) {
            let text = format!("'{generated}' is a name that generated code itself needs");
            scope.error(name.at, &text, "choose another name");
        }
        // Helpers of a message have its name in snake case, so case alone cannot tell two apart.
        let key = snake(&generated);
        check_collision(&mut scope, &mut messages, "message", name, key, &generated);
        let mut fields = HashMap::new();
        for field in &message.fields {
            let name = &field.name;
            let generated = snake(&name.value);
            let context = format!("message '{}', field '{}'", message.name.value, name.value);
            let mut scope = Scope { report, context };
            check_one(&mut scope, "field", name, &generated);
            check_collision(
                &mut scope,
                &mut fields,
                "field",
                name,
                generated.clone(),
                &generated,
            );
            let property = python_name(&name.value);
            if property != generated {
                let text = format!(
                    "every Python message has a member '{generated}': the property is called '{property}'"
                );
                scope.warning(
                    name.at,
                    &text,
                    "choose another name to have the same one everywhere",
                );
                let key = property.clone();
                check_collision(&mut scope, &mut fields, "field", name, key, &property);
            }
        }
    }
    let mut constants = HashMap::new();
    for constant in &file.constants {
        let name = &constant.name;
        let mut scope = Scope {
            report,
            context: format!("constant '{}'", name.value),
        };
        let generated = name.value.to_uppercase();
        check_one(&mut scope, "constant", name, &name.value);
        if is_identifier(&name.value) && !name.value.contains(|c: char| c.is_ascii_uppercase()) {
            // Such a name can be that of a function or type that generated code needs.
            let text = format!("'{}' is not the name of a constant", name.value);
            scope.error(name.at, &text, &format!("write {generated}"));
        }
        if CONSTANT_NAMES.contains(&generated.as_str()) || TYPE_NAMES.contains(&name.value.as_str())
        {
            let text = format!(
                "'{}' is a name that generated code itself needs",
                name.value
            );
            scope.error(name.at, &text, "choose another name");
        }
        check_collision(
            &mut scope,
            &mut constants,
            "constant",
            name,
            generated.clone(),
            &generated,
        );
    }
}

/// Checks the name of an enum's member.
pub(super) fn check_variant(scope: &mut Scope<'_>, name: &Text) {
    let upper = name.value.to_uppercase();
    if upper != name.value {
        let text = format!("enum name '{}' is not in upper case", name.value);
        scope.error(name.at, &text, &format!("write {upper}"));
    } else if !is_identifier(&name.value) {
        let text = format!("enum name '{}' is not usable", name.value);
        scope.error(
            name.at,
            &text,
            "start with a letter; go on with letters, digits, underscores",
        );
    } else if name.value.len() > NAME_MAX {
        let text = format!("name too long: len={}, max={NAME_MAX}", name.value.len());
        scope.error(name.at, &text, "choose a shorter name");
    }
}

/// Whether generated code needs this name of a type for itself.
pub(super) fn is_taken(name: &str) -> bool {
    [TYPE_NAMES, KEYWORDS, CLASS_NAMES]
        .iter()
        .any(|names| names.contains(&name))
}

/// Checks that enums and constants are not called like one another or like a message.
pub(super) fn check_types(checked: &Checked, file: &File, report: &mut Report) {
    let mut constants = HashMap::new();
    for constant in &file.constants {
        constants.insert(constant.name.value.as_str(), &constant.name);
    }
    let mut enums: HashMap<String, &str> = HashMap::new();
    for found in &checked.enums {
        let message = file
            .messages
            .iter()
            .find(|one| pascal(&one.name.value) == found.name);
        if let Some(message) = message {
            let context = format!("message '{}'", message.name.value);
            let text = "the name collides with the enum of a field of another message";
            Scope { report, context }.error(message.name.at, text, "rename one of the two");
        }
        if let Some(constant) = constants.get(found.name.as_str()) {
            let context = format!("constant '{}'", found.name);
            let text = "the name collides with the enum of a field";
            Scope { report, context }.error(constant.at, text, "rename one of the two");
        }
        // The helpers of an enum have its name in snake case.
        let other = enums.insert(snake(&found.name), &found.name);
        let field = file.messages.iter().find_map(|message| {
            let mut fields = message.fields.iter();
            let field = fields.find(|field| {
                let own = pascal(&field.name.value);
                field.variants.is_some() && found.name.ends_with(&own)
            })?;
            Some((message, field))
        });
        if let (Some(other), Some((message, field))) = (other, field) {
            let (message, field_name) = (&message.name.value, &field.name.value);
            let context = format!("message '{message}', field '{field_name}'");
            let text = format!(
                "its enum '{}' differs from enum '{other}' only in case",
                found.name
            );
            Scope { report, context }.error(field.name.at, &text, "rename one of the two");
        }
    }
    for message in &file.messages {
        if let Some(constant) = constants.get(pascal(&message.name.value).as_str()) {
            let context = format!("constant '{}'", constant.value);
            let text = format!("the name collides with message '{}'", message.name.value);
            Scope { report, context }.error(constant.at, &text, "rename one of the two");
        }
    }
}
