//! From the file as written to the model: every rule of the grammar, every mistake reported.

mod ids;
mod names;
mod rules;
mod types;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::diagnostics::{Position, Report, closest};
use crate::model::{
    Constant, Delivery, Domain, Encoding, EnumType, Field, FieldType, Int, Message, Notes,
    PAYLOAD_LIMIT,
};
use crate::schema::{self, Located, Text};

pub(crate) use names::{pascal, python_name, snake};

/// What is left of a file after all checks; digests are added by the caller.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) core: bool,
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) notes: Notes,
}

/// A finding's beginning and the report that it goes to.
pub(crate) struct Scope<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) context: String,
}

impl Scope<'_> {
    pub(crate) fn error(&mut self, at: Position, text: &str, hint: &str) {
        self.report
            .error(at, format!("{}: {text}", self.context), hint);
    }

    pub(crate) fn warning(&mut self, at: Position, text: &str, hint: &str) {
        self.report
            .warning(at, format!("{}: {text}", self.context), hint);
    }
}

/// Checks the whole file. The result is of use only if the report has no errors afterwards.
pub(crate) fn check(file: &schema::File, report: &mut Report) -> Checked {
    names::check(file, report);
    ids::check(file, report);
    let enums = EnumNames::new(file);
    let mut checked = Checked {
        core: file.core,
        notes: notes(file),
        ..Checked::default()
    };
    for written in &file.messages {
        if let Some(message) = message(written, &enums, &mut checked.enums, report) {
            checked.messages.push(message);
        }
    }
    checked.messages.sort_by_key(|message| message.topic_id);
    for written in &file.constants {
        checked.constants.extend(constant(written, report));
    }
    if file.messages.is_empty() && file.constants.is_empty() && !report.has_errors() {
        let at = Position { line: 1, column: 1 };
        report.error(
            at,
            "the file has neither messages nor constants".into(),
            "add `messages:`",
        );
    }
    names::check_types(&checked, file, report);
    checked
}

fn notes(file: &schema::File) -> Notes {
    let domain = |written: &schema::Domain| Domain {
        name: written.name.value.clone(),
        type_range: written
            .type_range
            .as_ref()
            .and_then(ids::range)
            .map(RangeInclusive::into_inner),
        description: written.description.clone(),
        slos: written.slos.clone(),
    };
    Notes {
        schema: file.schema.clone(),
        domains: file.domains.iter().map(domain).collect(),
        types: file.types.clone(),
        invariants: file.invariants.clone(),
    }
}

/// Words for content that anybody may read in a log.
const HARMLESS: [&str; 4] = ["public", "internal", "low", "none"];

/// Whether values may be logged: the explicit word, else what the sensitivity suggests.
fn log_payload(written: &schema::Message) -> bool {
    written.log_payload.unwrap_or_else(|| {
        written.sensitivity.as_ref().is_none_or(|word| {
            let word = word.trim().to_lowercase();
            HARMLESS.contains(&word.as_str())
        })
    })
}

/// Decides what the enum of a field is called: by the field alone where all fields of that name
/// in the file have the same set and the name is free, else with the message's name in front.
struct EnumNames {
    shared: HashMap<String, Option<String>>,
}

impl EnumNames {
    fn new(file: &schema::File) -> Self {
        let mut shared: HashMap<String, Option<String>> = HashMap::new();
        for field in file.messages.iter().flat_map(|message| &message.fields) {
            let Some(variants) = &field.variants else {
                continue;
            };
            let kind = field.kind.as_ref().map_or("", |kind| kind.value.as_str());
            let mut parts: Vec<_> = variants
                .value
                .iter()
                .map(|(name, value)| (&name.value, &value.value))
                .collect();
            parts.sort();
            let set = format!("{kind} {parts:?}");
            let name = pascal(&field.name.value);
            let entry = shared.entry(name).or_insert_with(|| Some(set.clone()));
            if entry.as_ref() != Some(&set) {
                *entry = None;
            }
        }
        for message in &file.messages {
            shared.insert(pascal(&message.name.value), None);
        }
        for (name, set) in &mut shared {
            if names::is_taken(name) {
                *set = None;
            }
        }
        Self { shared }
    }

    fn name(&self, message: &str, field: &str) -> String {
        let own = pascal(field);
        match self.shared.get(&own) {
            Some(Some(_)) => own,
            _ => format!("{}{own}", pascal(message)),
        }
    }
}

fn message(
    written: &schema::Message,
    names: &EnumNames,
    enums: &mut Vec<EnumType>,
    report: &mut Report,
) -> Option<Message> {
    let name = &written.name.value;
    let mut scope = Scope {
        report,
        context: format!("message '{name}'"),
    };
    let at = written.name.at;
    if written.tlv_type.is_none() {
        scope.error(
            at,
            "tlv_type is missing",
            "add `tlv_type:` with a number of its own",
        );
    }
    let topic = match &written.domain {
        Some(domain) => ids::topic(&domain.value),
        None => {
            scope.error(at, "domain is missing", "add `domain:`, it names the topic");
            String::new()
        }
    };
    let encoding = choice(
        &mut scope,
        "encoding",
        &written.encoding,
        &Encoding::ALL,
        Encoding::name,
    );
    let delivery = choice(
        &mut scope,
        "delivery",
        &written.delivery,
        &Delivery::ALL,
        Delivery::name,
    );
    let mut fields = Vec::new();
    for written in &written.fields {
        let context = format!("message '{name}', field '{}'", written.name.value);
        let mut scope = Scope {
            report: scope.report,
            context,
        };
        fields.extend(field(&mut scope, written, name, names, enums));
    }
    let dynamic_size = size_of_dynamic(&mut scope, written, encoding);
    let (size, align) = place(&mut fields);
    if size > PAYLOAD_LIMIT && encoding == Encoding::Contract {
        let text = format!("payload too large: size={size}, max={PAYLOAD_LIMIT}");
        scope.error(at, &text, "shorten the longest String, Vec or array");
    }
    check_key(&mut scope, written, delivery, encoding);
    Some(Message {
        name: name.clone(),
        domain: written
            .domain
            .as_ref()
            .map(|domain| domain.value.clone())
            .unwrap_or_default(),
        topic,
        topic_id: ids::number(written.tlv_type.as_ref()?)?,
        description: written.description.clone(),
        schema_version: written.schema_version.clone(),
        sensitivity: written.sensitivity.clone(),
        log_payload: log_payload(written),
        rust_type: written.rust_type.clone(),
        required_prior_messages: written
            .required_prior_messages
            .iter()
            .map(|name| name.value.clone())
            .collect(),
        delivery,
        key: written.key.iter().map(|key| key.value.clone()).collect(),
        encoding,
        wire_len: (encoding == Encoding::Contract).then_some(size),
        max_size: dynamic_size.unwrap_or(size),
        align,
        layout_digest: [0; 32],
        fields,
    })
}

/// Gives every field its offset; returns the size and alignment of the whole.
fn place(fields: &mut [Field]) -> (usize, usize) {
    let mut end = 0_usize;
    let mut align = 1;
    for field in fields {
        field.offset = end.next_multiple_of(field.kind.align());
        end = field.offset.saturating_add(field.size);
        align = align.max(field.kind.align());
    }
    (end.next_multiple_of(align), align)
}

fn choice<T: Copy + Default>(
    scope: &mut Scope<'_>,
    key: &str,
    written: &Option<Text>,
    all: &[T],
    name: fn(T) -> &'static str,
) -> T {
    let Some(written) = written else {
        return T::default();
    };
    if let Some(found) = all.iter().find(|&&one| name(one) == written.value) {
        return *found;
    }
    let names: Vec<_> = all.iter().map(|&one| name(one)).collect();
    let text = format!("unknown {key}: {key}={}", written.value);
    let hint = match closest(&written.value, names.iter().copied()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!("use one of {}", names.join(", ")),
    };
    scope.error(written.at, &text, &hint);
    T::default()
}

/// The largest payload of a message with an encoding of its own; `None` for a contract layout.
fn size_of_dynamic(
    scope: &mut Scope<'_>,
    written: &schema::Message,
    encoding: Encoding,
) -> Option<usize> {
    let at = written.name.at;
    if encoding == Encoding::Contract {
        if !written.has_fields {
            scope.error(
                at,
                "fields are missing",
                "add `fields:`, or `encoding:` and `max_size:`",
            );
        }
        if let Some(size) = &written.max_size {
            scope.warning(
                size.at,
                "max_size has no effect: the fields decide the size",
                "remove it",
            );
        }
        return None;
    }
    if let Some(first) = written.fields.first() {
        let text = format!("a message with encoding {} has no fields", encoding.name());
        scope.error(first.name.at, &text, "remove the fields or the encoding");
    }
    let Some(size) = &written.max_size else {
        let text = format!("max_size is missing: encoding={}", encoding.name());
        scope.error(at, &text, "add `max_size:`, the largest payload in bytes");
        return None;
    };
    match types::integer(&size.value) {
        Some(value) if (1..=PAYLOAD_LIMIT as i128).contains(&value) => usize::try_from(value).ok(),
        _ => {
            let text = format!("max_size out of range: max_size={}", size.value);
            scope.error(size.at, &text, &format!("use 1 to {PAYLOAD_LIMIT} bytes"));
            None
        }
    }
}

fn check_key(
    scope: &mut Scope<'_>,
    written: &schema::Message,
    delivery: Delivery,
    encoding: Encoding,
) {
    for key in &written.key {
        if !written
            .fields
            .iter()
            .any(|field| field.name.value == key.value)
        {
            let names = written.fields.iter().map(|field| field.name.value.as_str());
            let hint = match closest(&key.value, names) {
                Some(meant) => format!("did you mean '{meant}'?"),
                None => "name a field of this message".to_owned(),
            };
            scope.error(
                key.at,
                &format!("key field does not exist: key={}", key.value),
                &hint,
            );
        }
    }
    if delivery == Delivery::Conflate && written.key.is_empty() {
        let at = written
            .delivery
            .as_ref()
            .map_or(written.name.at, |delivery| delivery.at);
        let hint = match encoding {
            Encoding::Contract => "add `key: [field]`",
            _ => "use another delivery: a message without fields has no key",
        };
        scope.error(at, "delivery conflate needs a key", hint);
    }
}

fn field(
    scope: &mut Scope<'_>,
    written: &schema::Field,
    message: &str,
    names: &EnumNames,
    enums: &mut Vec<EnumType>,
) -> Option<Field> {
    let Some(kind) = &written.kind else {
        if !written.has_kind {
            scope.error(written.name.at, "type is missing", "add `type:`");
        }
        return None;
    };
    let max_length = rules::max_length(scope, &written.rules);
    let mut kind = match types::parse(&kind.value, max_length) {
        Ok(parsed) => parsed,
        Err(failed) => {
            scope.error(kind.at, &failed.text, &failed.hint);
            return None;
        }
    };
    if let Some(variants) = &written.variants {
        let FieldType::Scalar(crate::model::Scalar::Int(repr)) = kind else {
            let text = format!("an enum needs an integer type: type={}", kind.name());
            scope.error(
                variants.at,
                &text,
                "use u8, u16, u32, u64, i8, i16, i32 or i64",
            );
            return None;
        };
        let found = EnumType {
            name: names.name(message, &written.name.value),
            description: written.description.clone(),
            repr,
            variants: enum_variants(scope, variants, repr),
        };
        let index = enums.iter().position(|known| known.name == found.name);
        if let Some(known) = index.map(|index| &enums[index])
            && (known.repr, &known.variants) != (found.repr, &found.variants)
        {
            let text = format!(
                "its enum would be called '{}', as another one is",
                found.name
            );
            scope.error(variants.at, &text, "rename the field or the message");
        }
        let index = index.unwrap_or_else(|| {
            enums.push(found);
            enums.len() - 1
        });
        kind = FieldType::Enum { index, repr };
    }
    Some(Field {
        name: written.name.value.clone(),
        description: written.description.clone(),
        kind,
        offset: 0,
        size: kind.size(),
        optional: written.optional,
        rules: rules::check(scope, &written.rules, kind),
    })
}

fn enum_variants(
    scope: &mut Scope<'_>,
    written: &Located<Vec<(Text, Text)>>,
    repr: Int,
) -> Vec<(String, i128)> {
    let mut found: Vec<(String, i128)> = Vec::new();
    let (min, max) = repr.range();
    if written.value.is_empty() {
        scope.error(written.at, "the enum is empty", "write { NAME: value, … }");
    }
    for (name, value) in &written.value {
        let Some(number) = types::integer(&value.value).filter(|it| (min..=max).contains(it))
        else {
            let text = format!("enum value out of range: {}={}", name.value, value.value);
            let hint = format!("{} holds integers from {min} to {max}", repr.name());
            scope.error(value.at, &text, &hint);
            continue;
        };
        names::check_variant(scope, name);
        if let Some((other, _)) = found.iter().find(|(_, known)| *known == number) {
            let text = format!(
                "enum value used twice: {other}={number}, {}={number}",
                name.value
            );
            scope.error(value.at, &text, "give every name a value of its own");
        }
        found.push((name.value.clone(), number));
    }
    found.sort_by_key(|(_, value)| *value);
    found
}

fn constant(written: &schema::Constant, report: &mut Report) -> Option<Constant> {
    let name = &written.name.value;
    let mut scope = Scope {
        report,
        context: format!("constant '{name}'"),
    };
    let (Some(kind), Some(value)) = (&written.kind, &written.value) else {
        scope.error(
            written.name.at,
            "type or value is missing",
            "write { type: u32, value: 1 }",
        );
        return None;
    };
    let range = match types::int_type(&kind.value) {
        Some(int) => int.range(),
        None if kind.value == "usize" => Int::U64.range(),
        None => {
            let text = format!("unknown type: type={}", kind.value);
            scope.error(kind.at, &text, "use usize, or u8 to u64, or i8 to i64");
            return None;
        }
    };
    let Some(number) =
        types::integer(&value.value).filter(|number| (range.0..=range.1).contains(number))
    else {
        let text = format!("value out of range: value={}", value.value);
        let hint = format!(
            "{} holds integers from {} to {}",
            kind.value, range.0, range.1
        );
        scope.error(value.at, &text, &hint);
        return None;
    };
    Some(Constant {
        name: name.clone(),
        description: written.description.clone(),
        kind: kind.value.clone(),
        value: number,
        hexadecimal: value.value.starts_with("0x"),
    })
}
