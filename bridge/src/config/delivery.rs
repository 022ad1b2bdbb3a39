//! What the configuration says about delivery: `subscribe` of a worker, and the table `[delivery]`.

use std::collections::BTreeMap;
use std::ops::Range;

use mycelium_contracts::{Contracts, Delivery, Message};
use toml::de::DeValue;

use super::problem::{Problems, did_you_mean};
use super::section::{At, Section};
use super::{Subscription, WORKER_NAME_MAX};

pub(super) const POLICIES: [(&str, Delivery); 4] = [
    ("block", Delivery::Block),
    ("drop_newest", Delivery::DropNewest),
    ("drop_oldest", Delivery::DropOldest),
    ("conflate", Delivery::Conflate),
];

/// Longest key that frames are conflated or shared out by, in bytes.
const KEY_MAX: usize = 4096;

/// One entry of `subscribe`.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) message: At<String>,
    delivery: Option<Delivery>,
    group: Option<At<String>>,
}

/// The entries of `subscribe`: names of messages, or tables with the name as `topic`.
pub(super) fn subscriptions(
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<At<Vec<Written>>> {
    let (span, value) = section.take("subscribe")?;
    let label = section.label().to_owned();
    let Some(items) = value.as_array() else {
        problems.add(
            &span,
            format!(
                "{label}: subscribe has the wrong type: expected=an array, actual={}",
                value.type_str()
            ),
            "write subscribe = [\"Quote\"] or [{ topic = \"Quote\", delivery = \"conflate\" }]",
        );
        return None;
    };
    let mut found = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::String(name) => found.push(Written {
                message: At {
                    value: name.to_string(),
                    span: item.span(),
                },
                delivery: None,
                group: None,
            }),
            DeValue::Table(table) => {
                let label = format!("{label}: subscribe");
                let mut section = Section::new(label.clone(), table, item.span());
                let message = section.string("topic", problems);
                let delivery = section.choice("delivery", &POLICIES, problems);
                let group = section.string("group", problems);
                if !table.contains_key("topic") {
                    problems.add(
                        &item.span(),
                        format!("{label}: missing key 'topic'"),
                        "add topic = \"MESSAGE\"",
                    );
                }
                section.finish(problems);
                if let Some(group) = &group {
                    check_group(&label, group, problems);
                }
                found.extend(message.map(|message| Written {
                    message,
                    delivery,
                    group,
                }));
            }
            other => problems.add(
                &item.span(),
                format!(
                    "{label}: subscribe has an entry of the wrong type: expected=a string or a table, actual={}",
                    other.type_str()
                ),
                "write \"Quote\" or { topic = \"Quote\", delivery = \"conflate\" }",
            ),
        }
    }
    Some(At { value: found, span })
}

fn check_group(label: &str, group: &At<String>, problems: &mut Problems<'_>) {
    let length = group.value.len();
    if !(1..=WORKER_NAME_MAX).contains(&length) {
        problems.add(
            &group.span,
            format!(
                "{label}: group is not legal: length={length} bytes, legal=1..={WORKER_NAME_MAX}"
            ),
            "all workers that share a topic name the same group",
        );
    }
}

/// The table `[delivery]`: message to policy.
pub(super) fn policies(
    value: &DeValue<'_>,
    span: &Range<usize>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, At<Delivery>> {
    let Some(table) = value.as_table() else {
        problems.add(
            span,
            "delivery must be a table",
            "write [delivery] on a line of its own, and Quote = \"conflate\" below it",
        );
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (name, item) in table.iter() {
        let text = item.get_ref().as_str();
        let policy = text.and_then(|text| POLICIES.iter().find(|(word, _)| *word == text));
        match policy {
            Some((_, policy)) => {
                let at = At {
                    value: *policy,
                    span: name.span(),
                };
                found.insert(name.get_ref().to_string(), at);
            }
            None => problems.add(
                &name.span(),
                format!(
                    "[delivery]: policy of {} is not known: value='{}', legal={}",
                    name.get_ref(),
                    text.unwrap_or(item.get_ref().type_str()),
                    POLICIES.map(|(word, _)| word).join(" | ")
                ),
                "",
            ),
        }
    }
    found
}

/// Finds a message, or says what its name might have been.
pub(super) fn find<'c>(
    contracts: &'c Contracts,
    name: &str,
    label: &str,
    span: &Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<&'c Message> {
    let found = contracts.by_name(name);
    if found.is_none() {
        let names: Vec<_> = contracts.messages().map(|message| &*message.name).collect();
        let hint = match did_you_mean(name, names.iter().copied()) {
            Some(known) => format!("did you mean '{known}'?"),
            None => format!("messages of the contracts: {}", names.join(", ")),
        };
        problems.add(
            span,
            format!("{label}: unknown message: value='{name}'"),
            hint,
        );
    }
    found
}

/// Checks `[delivery]` against the contracts.
pub(super) fn check_policies(
    written: BTreeMap<String, At<Delivery>>,
    contracts: &Contracts,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, Delivery> {
    let mut checked = BTreeMap::new();
    for (name, policy) in written {
        let label = "[delivery]";
        if let Some(message) = find(contracts, &name, label, &policy.span, problems) {
            check_key(label, message, policy.value, &policy.span, problems);
            checked.insert(name, policy.value);
        }
    }
    checked
}

/// Checks one entry of `subscribe` against its message.
pub(super) fn check(
    label: &str,
    written: &Written,
    message: &Message,
    problems: &mut Problems<'_>,
) {
    if let Some(delivery) = written.delivery {
        check_key(label, message, delivery, &written.message.span, problems);
    }
}

fn check_key(
    label: &str,
    message: &Message,
    policy: Delivery,
    span: &Range<usize>,
    problems: &mut Problems<'_>,
) {
    if policy != Delivery::Conflate {
        return;
    }
    let name = &message.name;
    let len = key_len(message);
    if len == 0 {
        problems.add(
            span,
            format!("{label}: '{name}' cannot be conflated: it has no key in a fixed layout"),
            "give the message a key in the contracts file, or choose drop_oldest",
        );
    } else if len > KEY_MAX {
        problems.add(
            span,
            format!("{label}: '{name}' cannot be conflated: key_len={len}, max={KEY_MAX} bytes"),
            "choose a shorter key in the contracts file",
        );
    }
}

/// Bytes of a message's key; 0 where there is none in a fixed layout.
fn key_len(message: &Message) -> usize {
    if message.wire_len.is_none() {
        return 0;
    }
    let key = message
        .fields
        .iter()
        .filter(|field| message.key.contains(&field.name));
    key.map(|field| field.size).sum()
}

impl From<Written> for Subscription {
    fn from(written: Written) -> Self {
        Self {
            message: written.message.value,
            delivery: written.delivery,
            group: written.group.map(|group| group.value),
        }
    }
}
