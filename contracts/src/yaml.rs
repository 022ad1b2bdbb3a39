//! YAML text to a tree of nodes that know where they stand.
//!
//! Nesting, aliases and size are bounded here, so that nothing behind this module can recurse
//! without end, whatever the text.

use saphyr_parser::{Event, Marker, Parser};
use std::collections::HashMap;

use crate::diagnostics::Position;

/// Deepest nesting that is accepted; contracts use six levels.
const DEPTH_MAX: usize = 32;
/// Most nodes that are accepted, counting every use of an alias and long texts by their length.
const NODES_MAX: usize = 1_000_000;
/// Bytes of text that count as much as one more node.
const TEXT_UNIT: usize = 64;

/// One YAML value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
    /// Nodes in this tree, itself and long texts included.
    size: usize,
    /// Levels of this tree, itself included.
    depth: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) at: Position,
    pub(crate) text: String,
    pub(crate) hint: &'static str,
}

impl Node {
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A list or map that is still being read.
struct Open {
    at: Position,
    anchor: usize,
    is_map: bool,
    entries: Vec<(Key, Node)>,
    /// Line of every key, to find one that appears twice.
    lines: HashMap<String, usize>,
    key: Option<Key>,
    size: usize,
    depth: usize,
}

fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

fn error(at: Position, text: impl Into<String>, hint: &'static str) -> YamlError {
    YamlError {
        at,
        text: text.into(),
        hint,
    }
}

/// Parses one document.
pub(crate) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    // Nodes that are kept for aliases.
    let mut anchored = 0;
    let mut root: Option<Node> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|failed| {
            error(
                position(failed.marker()),
                format!("not valid YAML: {}", failed.info()),
                "check the indentation and the quotes around here",
            )
        })?;
        let at = position(&span.start);
        let finished = match event {
            Event::Scalar(text, _, anchor, _) => {
                let size = 1 + text.len() / TEXT_UNIT;
                let value = Value::Scalar(text.into_owned());
                let depth = 1;
                Some((
                    Node {
                        at,
                        value,
                        size,
                        depth,
                    },
                    anchor,
                ))
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() >= DEPTH_MAX {
                    let text = format!(
                        "nested too deeply: depth={}, max={DEPTH_MAX}",
                        open.len() + 1
                    );
                    return Err(error(at, text, "a contracts file needs six levels"));
                }
                let is_map = matches!(event, Event::MappingStart(..));
                let entries = Vec::new();
                open.push(Open {
                    at,
                    anchor,
                    is_map,
                    entries,
                    lines: HashMap::new(),
                    key: None,
                    size: 1,
                    depth: 0,
                });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(close),
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => Some((Node { at, ..node.clone() }, 0)),
                None => return Err(error(at, "alias of an unfinished anchor", "write it out")),
            },
            _ => None,
        };
        let Some((node, anchor)) = finished else {
            continue;
        };
        if anchor != 0 {
            anchored += node.size;
            limit(anchored, node.at)?;
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            Some(parent) => add(parent, node)?,
            None if root.is_none() => root = Some(node),
            None => {
                return Err(error(
                    node.at,
                    "a second YAML document",
                    "keep one document a file",
                ));
            }
        }
        let depth = open.len() + open.last().map_or(0, |parent| parent.depth);
        if depth > DEPTH_MAX {
            let text = format!("nested too deeply: depth={depth}, max={DEPTH_MAX}");
            return Err(error(at, text, "a contracts file needs six levels"));
        }
    }
    root.ok_or_else(|| {
        error(
            Position { line: 1, column: 1 },
            "the file is empty",
            "start with `messages:`",
        )
    })
}

fn close(open: Open) -> (Node, usize) {
    let value = if open.is_map {
        Value::Map(open.entries)
    } else {
        Value::List(open.entries.into_iter().map(|(_, node)| node).collect())
    };
    (
        Node {
            at: open.at,
            value,
            size: open.size,
            depth: open.depth + 1,
        },
        open.anchor,
    )
}

fn limit(count: usize, at: Position) -> Result<(), YamlError> {
    if count <= NODES_MAX {
        return Ok(());
    }
    let text = format!("too many values: count={count}, max={NODES_MAX}");
    Err(error(at, text, "split the file, or repeat fewer aliases"))
}

fn add(parent: &mut Open, node: Node) -> Result<(), YamlError> {
    parent.size += node.size;
    parent.depth = parent.depth.max(node.depth);
    limit(parent.size, node.at)?;
    let key = match (parent.is_map, parent.key.take()) {
        (false, _) => Key {
            at: node.at,
            name: String::new(),
        },
        (true, Some(key)) => key,
        (true, None) => {
            let at = node.at;
            let Value::Scalar(name) = node.value else {
                return Err(error(
                    at,
                    "a map key is a list or a map",
                    "use a plain name as key",
                ));
            };
            if let Some(line) = parent.lines.insert(name.clone(), at.line) {
                let text = format!("key '{name}' appears twice: first in line {line}");
                return Err(error(at, text, "rename or remove one of the two"));
            }
            parent.key = Some(Key { at, name });
            return Ok(());
        }
    };
    parent.entries.push((key, node));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one() {
        let node = parse("a: 1\nb:\n  c: [x, 'y']\n").expect("valid");
        let Value::Map(entries) = node.value else {
            panic!("a map")
        };
        assert_eq!(entries[1].0.at, Position { line: 2, column: 1 });
        let Value::Map(inner) = &entries[1].1.value else {
            panic!("a map")
        };
        assert_eq!(inner[0].1.at, Position { line: 3, column: 6 });
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let failed = parse(&text).expect_err("a billion values");
        assert!(
            failed.text.starts_with("too many values"),
            "{}",
            failed.text
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let failed = parse(&"[".repeat(200)).expect_err("too deep");
        assert!(
            failed.text.contains("max=32") || failed.text.contains("recursion"),
            "{}",
            failed.text
        );
    }
}
