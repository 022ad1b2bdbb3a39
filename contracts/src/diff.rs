//! Where two contracts differ in what decides the bytes, message by message.
//!
//! ```
//! use std::path::Path;
//! use mycelium_contracts::{diff, parse};
//!
//! let shape = |fields: &str| {
//!     let text = format!("messages: {{ Tick: {{ tlv_type: 1000, domain: D, fields: {{ {fields} }} }} }}");
//!     parse(Path::new("ticks.yaml"), text.as_bytes()).map(|contracts| contracts.shape())
//! };
//! let old = shape("at: { type: u32 }, price: { type: f32 }")?;
//! let new = shape("at: { type: u64 }, price: { type: f32 }")?;
//! let found = diff::compare(&old, &new);
//! assert!(!found[0].compatible);
//! assert_eq!(
//!     found[0].to_string(),
//!     "message 'Tick' (topic 1000): layout changed: size 8 -> 16; \
//!      field 'at': type u32 -> u64; field 'price': offset 4 -> 8"
//! );
//! # Ok::<(), mycelium_contracts::Report>(())
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::model::Encoding;
use crate::shape::{ContractsShape, FieldShape, MessageShape};

/// Most details that [`Difference`] shows; the others are counted.
const SHOWN: usize = 8;
/// Longest type text that is shown, in characters.
const TYPE_SHOWN: usize = 60;

/// One message that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the message; of a renamed one the old name.
    pub message: String,
    /// Topic id on the old side; `None` if the message is new.
    pub old_id: Option<u16>,
    /// Topic id on the new side; `None` if the message is gone.
    pub new_id: Option<u16>,
    /// What became of the message.
    pub change: Change,
    /// What differs inside it, one fact each, for example `field 'bid': offset 32 -> 40`.
    pub details: Vec<String>,
    /// Whether old and new peers can use all topics concerned together.
    ///
    /// True if each side's payloads have the same fields with the same names and types at the
    /// same places on the other side, and for a message that only one side knows.
    pub compatible: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the new side has it.
    Added,
    /// Only the old side has it.
    Removed,
    /// The new side calls it so.
    Renamed {
        /// Its name on the new side.
        to: String,
    },
    /// The new side has it under another topic id.
    Moved,
    /// Name and topic id are the same, the content is not.
    LayoutChanged,
}

impl Difference {
    /// Whether frames of this topic are concerned.
    #[must_use]
    pub fn concerns(&self, topic_id: u16) -> bool {
        self.old_id == Some(topic_id) || self.new_id == Some(topic_id)
    }
}

impl fmt::Display for Difference {
    /// One line: `message 'Quote' (topic 1001): layout changed: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message '{}' ", self.message)?;
        match (self.old_id, self.new_id) {
            (Some(old), Some(new)) if old != new => write!(f, "(topic {old} -> {new}): ")?,
            (Some(id), _) | (None, Some(id)) => write!(f, "(topic {id}): ")?,
            (None, None) => {}
        }
        match &self.change {
            Change::Added => f.write_str("added")?,
            Change::Removed => f.write_str("removed")?,
            Change::Renamed { to } => write!(f, "renamed to '{to}'")?,
            Change::Moved => f.write_str("moved to another topic id")?,
            Change::LayoutChanged => f.write_str("layout changed")?,
        }
        for (number, detail) in self.details.iter().take(SHOWN).enumerate() {
            write!(f, "{} {detail}", if number == 0 { ":" } else { ";" })?;
        }
        if self.details.len() > SHOWN {
            write!(f, "; and {} more", self.details.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// All differences, ordered by topic id. Empty if every message has the same bytes on both sides.
///
/// Messages are paired by topic id and name, then by one of the two. Cost: linear in the number
/// of fields.
#[must_use]
pub fn compare(old: &ContractsShape, new: &ContractsShape) -> Vec<Difference> {
    let old_by_id: HashMap<u16, &MessageShape> = by_id(old);
    let new_by_id: HashMap<u16, &MessageShape> = by_id(new);
    let old_by_name: HashMap<&str, &MessageShape> = by_name(old);
    let new_by_name: HashMap<&str, &MessageShape> = by_name(new);
    let mut found = Vec::new();
    let mut paired = HashSet::new();
    for before in &old.messages {
        let same_id = new_by_id.get(&before.topic_id).copied();
        let same_name = new_by_name.get(before.name.as_str()).copied();
        match (same_id, same_name) {
            (Some(after), _) if after.name == before.name => {
                paired.insert(after.topic_id);
                let details = layout(before, after);
                if !details.is_empty() {
                    found.push(pair(before, after, Change::LayoutChanged, details, false));
                }
            }
            (_, Some(after)) => {
                paired.insert(after.topic_id);
                let details = layout(before, after);
                found.push(pair(before, after, Change::Moved, details, false));
            }
            (Some(after), None) if !old_by_name.contains_key(after.name.as_str()) => {
                paired.insert(after.topic_id);
                let to = after.name.clone();
                let details = layout(before, after);
                let compatible = details.is_empty();
                let change = Change::Renamed { to };
                found.push(pair(before, after, change, details, compatible));
            }
            (taken, None) => found.push(single(before, Change::Removed, taken)),
        }
    }
    for after in &new.messages {
        if !paired.contains(&after.topic_id) {
            let taken = old_by_id.get(&after.topic_id).copied();
            found.push(single(after, Change::Added, taken));
        }
    }
    found.sort_by_key(|difference| (difference.old_id.or(difference.new_id), difference.new_id));
    found
}

fn by_id(shape: &ContractsShape) -> HashMap<u16, &MessageShape> {
    let messages = shape.messages.iter();
    messages.map(|it| (it.topic_id, it)).collect()
}

fn by_name(shape: &ContractsShape) -> HashMap<&str, &MessageShape> {
    let messages = shape.messages.iter();
    messages.map(|it| (it.name.as_str(), it)).collect()
}

fn pair(
    before: &MessageShape,
    after: &MessageShape,
    change: Change,
    details: Vec<String>,
    compatible: bool,
) -> Difference {
    Difference {
        message: before.name.clone(),
        old_id: Some(before.topic_id),
        new_id: Some(after.topic_id),
        change,
        details,
        compatible,
    }
}

/// A message that one side lacks; `taken` is what the other side has under its topic id.
fn single(message: &MessageShape, change: Change, taken: Option<&MessageShape>) -> Difference {
    let added = change == Change::Added;
    let details = taken.map(|other| {
        let side = if added { "old" } else { "new" };
        format!(
            "its topic id is message '{}' on the {side} side",
            other.name
        )
    });
    Difference {
        message: message.name.clone(),
        old_id: (!added).then_some(message.topic_id),
        new_id: added.then_some(message.topic_id),
        change,
        compatible: details.is_none(),
        details: details.into_iter().collect(),
    }
}

/// Every fact that differs between two versions of a message, names and ids apart.
fn layout(old: &MessageShape, new: &MessageShape) -> Vec<String> {
    let mut details = Vec::new();
    if old.encoding != new.encoding {
        let (before, after) = (old.encoding.name(), new.encoding.name());
        details.push(format!("encoding {before} -> {after}"));
    }
    if old.max_size != new.max_size {
        let fixed = old.encoding == Encoding::Contract && new.encoding == Encoding::Contract;
        let what = if fixed { "size" } else { "max_size" };
        details.push(format!("{what} {} -> {}", old.max_size, new.max_size));
    }
    let in_new: HashMap<&str, &FieldShape> =
        new.fields.iter().map(|it| (it.name.as_str(), it)).collect();
    let in_old: HashSet<&str> = old.fields.iter().map(|it| it.name.as_str()).collect();
    for before in &old.fields {
        match in_new.get(before.name.as_str()) {
            Some(after) => {
                let changes = field(before, after);
                if !changes.is_empty() {
                    let changes = changes.join(", ");
                    details.push(format!("field '{}': {changes}", before.name));
                }
            }
            None => details.push(format!(
                "field '{}' removed from offset {}, {}",
                before.name,
                before.offset,
                shown(&before.type_text)
            )),
        }
    }
    for after in &new.fields {
        if !in_old.contains(after.name.as_str()) {
            details.push(format!(
                "field '{}' added at offset {}, {}",
                after.name,
                after.offset,
                shown(&after.type_text)
            ));
        }
    }
    details
}

fn field(old: &FieldShape, new: &FieldShape) -> Vec<String> {
    let mut changes = Vec::new();
    if old.type_text != new.type_text {
        changes.extend(types(&old.type_text, &new.type_text));
    }
    if old.offset != new.offset {
        changes.push(format!("offset {} -> {}", old.offset, new.offset));
    }
    if old.size != new.size && old.type_text == new.type_text {
        changes.push(format!("size {} -> {}", old.size, new.size));
    }
    changes
}

/// Splits `u8 BUY=1 SELL=2` into the type and its members; a type without members has no `=`.
fn members(type_text: &str) -> Option<(&str, Vec<&str>)> {
    let (kind, members) = type_text.split_once(' ')?;
    let members: Vec<_> = members.split(' ').collect();
    members
        .iter()
        .all(|member| member.contains('='))
        .then_some((kind, members))
}

fn types(old: &str, new: &str) -> Vec<String> {
    let (Some((old_kind, before)), Some((new_kind, after))) = (members(old), members(new)) else {
        return vec![format!("type {} -> {}", shown(old), shown(new))];
    };
    let mut changes = Vec::new();
    if old_kind != new_kind {
        changes.push(format!("type {old_kind} -> {new_kind}"));
    }
    let known: HashSet<&str> = before.iter().copied().collect();
    let added: Vec<_> = after.iter().filter(|it| !known.contains(*it)).collect();
    let known: HashSet<&str> = after.iter().copied().collect();
    let removed: Vec<_> = before.iter().filter(|it| !known.contains(*it)).collect();
    for (what, members) in [("removed", removed), ("added", added)] {
        if !members.is_empty() {
            let names: Vec<&str> = members.into_iter().copied().collect();
            changes.push(format!("enum values {what}: {}", shown(&names.join(" "))));
        }
    }
    if changes.is_empty() {
        changes.push(format!("type {} -> {}", shown(old), shown(new)));
    }
    changes
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(TYPE_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
