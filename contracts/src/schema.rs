//! The file as written: values with their places, shapes checked, meaning not yet.
//!
//! Reading never stops at the first mistake; whatever has the wrong shape is reported and left out.

mod notes;

use crate::diagnostics::{Position, Report, closest};
use crate::model::Invariant;
use crate::yaml::{Key, Node, Value};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) at: Position,
    pub(crate) value: T,
}

/// Text of a scalar.
pub(crate) type Text = Located<String>;

#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) core: bool,
    pub(crate) tag_ranges: Vec<(Text, Text)>,
    pub(crate) messages: Vec<Message>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) schema: Vec<(String, String)>,
    pub(crate) types: Vec<(String, Vec<(String, String)>)>,
    pub(crate) invariants: Vec<Invariant>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: Text,
    pub(crate) tlv_type: Option<Text>,
    pub(crate) domain: Option<Text>,
    pub(crate) description: String,
    pub(crate) delivery: Option<Text>,
    pub(crate) encoding: Option<Text>,
    pub(crate) max_size: Option<Text>,
    pub(crate) key: Vec<Text>,
    pub(crate) has_fields: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) schema_version: Option<String>,
    pub(crate) sensitivity: Option<String>,
    pub(crate) log_payload: Option<bool>,
    pub(crate) rust_type: Option<String>,
    pub(crate) required_prior_messages: Vec<Text>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Text,
    /// Whether there is a type at all; one of the wrong shape is reported but not kept.
    pub(crate) has_kind: bool,
    pub(crate) kind: Option<Text>,
    pub(crate) description: String,
    pub(crate) optional: bool,
    pub(crate) variants: Option<Located<Vec<(Text, Text)>>>,
    pub(crate) rules: Vec<(Text, Text)>,
}

#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) name: Text,
    pub(crate) type_range: Option<Text>,
    pub(crate) description: String,
    pub(crate) slos: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) name: Text,
    pub(crate) kind: Option<Text>,
    pub(crate) value: Option<Text>,
    pub(crate) description: String,
}

const FILE_KEYS: &[&str] = &[
    "schema",
    "core",
    "tag_ranges",
    "messages",
    "domains",
    "types",
    "invariants",
    "constants",
];
const MESSAGE_KEYS: &[&str] = &[
    "tlv_type",
    "domain",
    "description",
    "fields",
    "key",
    "delivery",
    "encoding",
    "max_size",
    "schema_version",
    "rust_type",
    "rkyv",
    "required_prior_messages",
    "sensitivity",
    "log_payload",
];
const FIELD_KEYS: &[&str] = &["type", "description", "optional", "validation", "enum"];
const DOMAIN_KEYS: &[&str] = &[
    "type_range",
    "description",
    "latency_slo_p99_ms",
    "error_rate_slo_pct",
    "security",
];
const CONSTANT_KEYS: &[&str] = &["type", "value", "description"];
const SCHEMA_KEYS: &[&str] = &["id", "version", "min_compatible"];

/// Reads one map whose keys are known, and remembers what it is for the messages.
struct Reader<'a> {
    report: &'a mut Report,
    /// Starts every finding, for example `message 'Quote', field 'bid': `.
    context: String,
}

impl Reader<'_> {
    fn error(&mut self, at: Position, text: &str, hint: &str) {
        let text = format!("{}{text}", self.context);
        self.report.error(at, text, hint);
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str, hint: &str) -> &'n [(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.error(
                    node.at,
                    &format!("{what} must be a map, found {}", node.kind()),
                    hint,
                );
                &[]
            }
        }
    }

    fn list<'n>(&mut self, node: &'n Node, what: &str, hint: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            _ => {
                self.error(
                    node.at,
                    &format!("{what} must be a list, found {}", node.kind()),
                    hint,
                );
                &[]
            }
        }
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<Text> {
        match &node.value {
            Value::Scalar(text) => Some(Located {
                at: node.at,
                value: text.clone(),
            }),
            Value::List(_) if what == "type" => {
                self.error(
                    node.at,
                    "type must be text, found a list",
                    "put array types into quotes: \"[u8; 32]\"",
                );
                None
            }
            _ => {
                let text = format!("{what} must be a single value, found {}", node.kind());
                self.error(node.at, &text, "");
                None
            }
        }
    }

    /// `None` where the file says nothing: no value, or YAML's null.
    fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        let text = self.text(node, what)?;
        match text.value.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            other if is_null(other) => None,
            other => {
                let text = format!("{what} must be true or false: {what}={other}");
                self.error(node.at, &text, "write true or false");
                None
            }
        }
    }

    /// Text that informs people; `None` for YAML's null.
    fn note(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        (!is_null(&text.value)).then_some(text.value)
    }

    fn warn_unknown(&mut self, key: &Key, known: &[&str]) {
        let hint = match closest(&key.name, known.iter().copied()) {
            Some(meant) => format!("did you mean '{meant}'? an unknown key has no effect"),
            None => "an unknown key has no effect; remove it".to_owned(),
        };
        let text = format!("{}unknown key '{}'", self.context, key.name);
        self.report.warning(key.at, text, &hint);
    }
}

/// What YAML reads as "no value".
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn located(key: &Key) -> Text {
    Located {
        at: key.at,
        value: key.name.clone(),
    }
}

/// Reads the whole file.
pub(crate) fn read(root: &Node, report: &mut Report) -> File {
    let mut reader = Reader {
        report,
        context: String::new(),
    };
    let mut file = File::default();
    for (key, node) in reader.map(root, "the file", "start with `messages:`") {
        match key.name.as_str() {
            "core" => file.core = reader.flag(node, "core").unwrap_or(false),
            "tag_ranges" => file.tag_ranges = pairs(&mut reader, node, "tag_ranges"),
            "messages" => {
                for (name, node) in reader.map(node, "messages", "write `Name:` per message") {
                    file.messages
                        .push(message(reader.report, located(name), node));
                }
            }
            "domains" => {
                for (name, node) in reader.map(node, "domains", "write `Name:` per domain") {
                    file.domains
                        .push(domain(reader.report, located(name), node));
                }
            }
            "constants" => {
                for (name, node) in reader.map(node, "constants", "write `NAME:` per constant") {
                    file.constants
                        .push(constant(reader.report, located(name), node));
                }
            }
            "schema" => file.schema = notes::schema(&mut reader, node),
            "types" => file.types = notes::types(node),
            "invariants" => file.invariants = notes::invariants(node),
            _ => reader.warn_unknown(key, FILE_KEYS),
        }
    }
    file
}

/// A map of single values.
fn pairs(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<(Text, Text)> {
    let mut found = Vec::new();
    for (key, value) in reader.map(node, what, "write { NAME: value, … }") {
        if let Some(value) = reader.text(value, &format!("{what} '{}'", key.name)) {
            found.push((located(key), value));
        }
    }
    found
}

fn message(report: &mut Report, name: Text, node: &Node) -> Message {
    let mut reader = Reader {
        report,
        context: format!("message '{}': ", name.value),
    };
    let mut message = Message {
        name,
        tlv_type: None,
        domain: None,
        description: String::new(),
        delivery: None,
        encoding: None,
        max_size: None,
        key: Vec::new(),
        has_fields: false,
        fields: Vec::new(),
        schema_version: None,
        sensitivity: None,
        log_payload: None,
        rust_type: None,
        required_prior_messages: Vec::new(),
    };
    for (key, node) in reader.map(
        node,
        "a message",
        "write `tlv_type:`, `domain:` and `fields:`",
    ) {
        match key.name.as_str() {
            "tlv_type" => message.tlv_type = reader.text(node, "tlv_type"),
            "domain" => message.domain = reader.text(node, "domain"),
            "description" => message.description = description(&mut reader, node),
            "delivery" => message.delivery = reader.text(node, "delivery"),
            "encoding" => message.encoding = reader.text(node, "encoding"),
            "max_size" => message.max_size = reader.text(node, "max_size"),
            "key" => {
                let items = reader.list(node, "key", "write `key: [field, …]`");
                message.key = items
                    .iter()
                    .filter_map(|item| reader.text(item, "key"))
                    .collect();
            }
            "fields" => {
                message.has_fields = true;
                let fields = reader.map(node, "fields", "write `name:` per field");
                for (name, node) in fields {
                    let field = field(reader.report, &message.name.value, located(name), node);
                    message.fields.push(field);
                }
            }
            "schema_version" => message.schema_version = reader.note(node, "schema_version"),
            "sensitivity" => message.sensitivity = reader.note(node, "sensitivity"),
            "log_payload" => message.log_payload = reader.flag(node, "log_payload"),
            "rust_type" => message.rust_type = reader.note(node, "rust_type"),
            "required_prior_messages" => {
                message.required_prior_messages = notes::names(node);
            }
            // Settings of another generator; without effect here.
            "rkyv" => {}
            _ => reader.warn_unknown(key, MESSAGE_KEYS),
        }
    }
    message
}

fn description(reader: &mut Reader<'_>, node: &Node) -> String {
    let text = reader
        .text(node, "description")
        .map(|text| text.value)
        .unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn field(report: &mut Report, message: &str, name: Text, node: &Node) -> Field {
    let context = format!("message '{message}', field '{}': ", name.value);
    let mut reader = Reader { report, context };
    let mut field = Field {
        name,
        has_kind: false,
        kind: None,
        description: String::new(),
        optional: false,
        variants: None,
        rules: Vec::new(),
    };
    for (key, node) in reader.map(node, "a field", "write `type:` below the field's name") {
        match key.name.as_str() {
            "type" => {
                field.has_kind = true;
                field.kind = reader.text(node, "type");
            }
            "description" => field.description = description(&mut reader, node),
            "optional" => {
                field.optional = reader.flag(node, "optional").unwrap_or(false);
            }
            "enum" => {
                let value = pairs(&mut reader, node, "enum");
                field.variants = Some(Located { at: node.at, value });
            }
            "validation" => {
                for rule in reader.list(node, "validation", "write `- not_empty: true` per rule") {
                    let entries = reader.map(rule, "a validation rule", "write `- name: value`");
                    for (key, node) in entries {
                        let value = Located {
                            at: node.at,
                            value: flat(node),
                        };
                        field.rules.push((located(key), value));
                    }
                }
            }
            _ => reader.warn_unknown(key, FIELD_KEYS),
        }
    }
    field
}

/// The value of a rule as text; rules that are only documented may hold lists.
fn flat(node: &Node) -> String {
    match &node.value {
        Value::Scalar(text) => text.clone(),
        Value::List(items) => items.iter().map(flat).collect::<Vec<_>>().join(", "),
        Value::Map(entries) => {
            let parts: Vec<_> = entries
                .iter()
                .map(|(key, node)| format!("{} {}", key.name, flat(node)))
                .collect();
            parts.join(", ")
        }
    }
}

fn domain(report: &mut Report, name: Text, node: &Node) -> Domain {
    let mut reader = Reader {
        report,
        context: format!("domain '{}': ", name.value),
    };
    let mut domain = Domain {
        name,
        type_range: None,
        description: String::new(),
        slos: Vec::new(),
    };
    for (key, node) in reader.map(node, "a domain", "write { type_range: \"1000-1009\" }") {
        match key.name.as_str() {
            "type_range" => domain.type_range = reader.text(node, "type_range"),
            "description" => domain.description = description(&mut reader, node),
            slo if DOMAIN_KEYS.contains(&slo) => domain.slos.push((key.name.clone(), flat(node))),
            _ => reader.warn_unknown(key, DOMAIN_KEYS),
        }
    }
    domain
}

fn constant(report: &mut Report, name: Text, node: &Node) -> Constant {
    let mut reader = Reader {
        report,
        context: format!("constant '{}': ", name.value),
    };
    let mut constant = Constant {
        name,
        kind: None,
        value: None,
        description: String::new(),
    };
    for (key, node) in reader.map(node, "a constant", "write { type: u32, value: 1 }") {
        match key.name.as_str() {
            "type" => constant.kind = reader.text(node, "type"),
            "value" => constant.value = reader.text(node, "value"),
            "description" => constant.description = description(&mut reader, node),
            _ => reader.warn_unknown(key, CONSTANT_KEYS),
        }
    }
    constant
}
