//! Parts of the file that only inform people: any shape is taken, nothing here is an error.

use super::{Located, Reader, SCHEMA_KEYS, Text, flat};
use crate::model::Invariant;
use crate::yaml::{Node, Value};

/// The entries of `schema`.
pub(super) fn schema(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, value) in reader.map(node, "schema", "write { id, version, min_compatible }") {
        if SCHEMA_KEYS.contains(&key.name.as_str()) {
            found.push((key.name.clone(), flat(value)));
        } else {
            reader.warn_unknown(key, SCHEMA_KEYS);
        }
    }
    found
}

/// Names of types, each with its entries.
pub(super) fn types(node: &Node) -> Vec<(String, Vec<(String, String)>)> {
    entries(node)
        .map(|(name, node)| {
            let facts: Vec<_> = entries(node)
                .map(|(key, value)| (key.to_owned(), line(value)))
                .collect();
            if facts.is_empty() && matches!(node.value, Value::Scalar(_)) {
                return (
                    name.to_owned(),
                    vec![("description".to_owned(), line(node))],
                );
            }
            (name.to_owned(), facts)
        })
        .collect()
}

/// Invariants: a list of maps, or a map from names to maps.
pub(super) fn invariants(node: &Node) -> Vec<Invariant> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| invariant("", item)).collect(),
        _ => entries(node)
            .map(|(name, item)| invariant(name, item))
            .collect(),
    }
}

fn invariant(name: &str, node: &Node) -> Invariant {
    let mut found = Invariant {
        name: name.to_owned(),
        ..Invariant::default()
    };
    if matches!(node.value, Value::Scalar(_)) {
        found.description = line(node);
    }
    for (key, value) in entries(node) {
        match key {
            "name" => found.name = line(value),
            "description" => found.description = line(value),
            "enforced_by" => {
                found.enforced_by = names(value).into_iter().map(|it| it.value).collect();
            }
            "severity" => found.severity = line(value),
            _ => {}
        }
    }
    found
}

/// A list of names, or a single one.
pub(super) fn names(node: &Node) -> Vec<Text> {
    let text = |node: &Node| Located {
        at: node.at,
        value: line(node),
    };
    match &node.value {
        Value::List(items) => items.iter().map(text).collect(),
        Value::Scalar(one) if super::is_null(one) => Vec::new(),
        _ => vec![text(node)],
    }
}

fn entries(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, node)| (key.name.as_str(), node))
}

/// The text of a node on one line.
fn line(node: &Node) -> String {
    flat(node).split_whitespace().collect::<Vec<_>>().join(" ")
}
