//! `diff`: what changed between two contracts files, message by message.
//!
//! What decides the bytes is compared by the library, as in a handshake. Beside it stand changes
//! that leave the bytes alone: rules, delivery, key, topic. Descriptions are ignored.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use mycelium_contracts::diff::{Change, Difference, compare};
use mycelium_contracts::{Contracts, Field, Message, Number, Rule};
use serde_json::json;

use super::{count, print};
use crate::Format;

/// What changed in how a message is handled, beside its bytes.
struct Other {
    message: String,
    topic_id: u16,
    details: Vec<String>,
}

pub(crate) fn run(old: &Path, new: &Path, format: Format) -> ExitCode {
    let (old, new) = match (mycelium_contracts::load(old), mycelium_contracts::load(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            for report in [old.err(), new.err()].into_iter().flatten() {
                eprintln!("{report}");
            }
            return ExitCode::from(2);
        }
    };
    let changes = compare(&old.shape(), &new.shape());
    let others = others(&old, &new);
    let compatible = changes.iter().all(|difference| difference.compatible);
    let text = match format {
        Format::Text => as_text(&old, &new, &changes, &others),
        Format::Json => as_json(&old, &new, &changes, &others),
    };
    print(&text);
    ExitCode::from(u8::from(!compatible))
}

/// Changes beside the bytes of messages that both files have.
fn others(old: &Contracts, new: &Contracts) -> Vec<Other> {
    let mut found = Vec::new();
    for before in old.messages() {
        if let Some(after) = new.by_name(&before.name) {
            let details = handling(before, after);
            if !details.is_empty() {
                found.push(Other {
                    message: before.name.clone(),
                    topic_id: after.topic_id,
                    details,
                });
            }
        }
    }
    found
}

fn handling(old: &Message, new: &Message) -> Vec<String> {
    let mut details = Vec::new();
    let mut fact = |what: &str, before: String, after: String| {
        if before != after {
            let shown = |text: String| {
                if text.is_empty() {
                    "none".to_owned()
                } else {
                    text
                }
            };
            details.push(format!("{what} {} -> {}", shown(before), shown(after)));
        }
    };
    fact("topic", old.topic.clone(), new.topic.clone());
    fact(
        "delivery",
        old.delivery.name().to_owned(),
        new.delivery.name().to_owned(),
    );
    fact("key", old.key.join(", "), new.key.join(", "));
    fact(
        "log_payload",
        old.log_payload.to_string(),
        new.log_payload.to_string(),
    );
    let version = |message: &Message| message.schema_version.clone().unwrap_or_default();
    fact("schema_version", version(old), version(new));
    for before in &old.fields {
        let Some(after) = new.fields.iter().find(|it| it.name == before.name) else {
            continue;
        };
        let (had, has) = (rules(before), rules(after));
        let gone = had.iter().filter(|rule| !has.contains(rule));
        let come = has.iter().filter(|rule| !had.contains(rule));
        let gone = gone.map(|rule| format!("{rule} removed"));
        let come = come.map(|rule| format!("{rule} added"));
        let changes: Vec<_> = gone.chain(come).collect();
        if !changes.is_empty() {
            details.push(format!("field '{}': {}", before.name, changes.join(", ")));
        }
    }
    details
}

fn rules(field: &Field) -> Vec<String> {
    let number = |number: &Number| match number {
        Number::Int(value) => value.to_string(),
        Number::Float(value) => value.to_string(),
    };
    let rules = field.rules.iter().map(|rule| match rule {
        Rule::MinLength(length) => format!("min_length {length}"),
        Rule::NotZero => "not_zero".to_owned(),
        Rule::Min(bound) => format!("min {}", number(bound)),
        Rule::Max(bound) => format!("max {}", number(bound)),
        Rule::No0xPrefix => "no_0x_prefix".to_owned(),
        Rule::Documented(text) => text.clone(),
    });
    let mut rules: Vec<_> = rules.collect();
    if field.optional {
        rules.push("optional".to_owned());
    }
    rules
}

fn as_text(old: &Contracts, new: &Contracts, changes: &[Difference], others: &[Other]) -> String {
    let mut text = format!("{} -> {}\n", old.file().display(), new.file().display());
    for difference in changes {
        let verdict = if difference.compatible {
            "compatible"
        } else {
            "incompatible"
        };
        let head = Difference {
            details: Vec::new(),
            ..difference.clone()
        };
        let _ = writeln!(text, "\n{verdict}: {head}");
        for detail in &difference.details {
            let _ = writeln!(text, "  {detail}");
        }
    }
    for other in others {
        let (name, id) = (&other.message, other.topic_id);
        let _ = writeln!(text, "\nhandling: message '{name}' (topic {id})");
        for detail in &other.details {
            let _ = writeln!(text, "  {detail}");
        }
    }
    let broken: Vec<_> = changes
        .iter()
        .filter(|difference| !difference.compatible)
        .map(|difference| format!("'{}'", difference.message))
        .collect();
    let verdict = if changes.is_empty() && others.is_empty() {
        "no message changed".to_owned()
    } else if broken.is_empty() {
        "compatible: old and new peers can exchange every message that both know".to_owned()
    } else {
        format!(
            "incompatible: old and new peers cannot exchange {}: {}",
            count(broken.len(), "message"),
            broken.join(", ")
        )
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

fn as_json(old: &Contracts, new: &Contracts, changes: &[Difference], others: &[Other]) -> String {
    let layouts = changes.iter().map(|difference| {
        let (change, name) = match &difference.change {
            Change::Added => ("added", None),
            Change::Removed => ("removed", None),
            Change::Renamed { to } => ("renamed", Some(to)),
            Change::Moved => ("moved", None),
            Change::LayoutChanged => ("layout", None),
        };
        json!({
            "message": difference.message,
            "new_name": name,
            "old_id": difference.old_id,
            "new_id": difference.new_id,
            "change": change,
            "compatible": difference.compatible,
            "details": difference.details,
        })
    });
    let handling = others.iter().map(|other| {
        json!({
            "message": other.message,
            "old_id": other.topic_id,
            "new_id": other.topic_id,
            "change": "handling",
            "compatible": true,
            "details": other.details,
        })
    });
    let all: Vec<_> = layouts.chain(handling).collect();
    let whole = json!({
        "old": old.file().to_string_lossy(),
        "new": new.file().to_string_lossy(),
        "compatible": changes.iter().all(|difference| difference.compatible),
        "differences": all,
    });
    format!("{whole:#}\n")
}
