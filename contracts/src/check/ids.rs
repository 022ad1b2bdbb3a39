//! Topic ids, the ranges that they come from, and topic names.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::{Scope, types};
use crate::diagnostics::Report;
use crate::schema::{File, Text};

/// Ids of control frames; fixed by the frame contract.
const CORE: RangeInclusive<u16> = 1..=999;
const RANGES: [(&str, RangeInclusive<u16>); 3] = [
    ("core", CORE),
    ("app", 1000..=49999),
    ("experimental", 50000..=65535),
];

/// Topic name of a domain: lower-cased; market data gets its hyphen, also inside a longer name.
pub(super) fn topic(domain: &str) -> String {
    domain.to_lowercase().replace("marketdata", "market-data")
}

/// A topic id, if it is one.
pub(super) fn number(text: &Text) -> Option<u16> {
    types::integer(&text.value)
        .and_then(|value| u16::try_from(value).ok())
        .filter(|id| *id != 0)
}

pub(super) fn range(text: &Text) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.value.split_once('-')?;
    let first = u16::try_from(types::integer(first.trim())?).ok()?;
    let last = u16::try_from(types::integer(last.trim())?).ok()?;
    (first <= last).then_some(first..=last)
}

fn overlap(left: &RangeInclusive<u16>, right: &RangeInclusive<u16>) -> bool {
    left.start() <= right.end() && right.start() <= left.end()
}

/// Checks ids against each other and against the ranges.
pub(super) fn check(file: &File, report: &mut Report) {
    check_messages(file, report);
    let tags = file.tag_ranges.iter().map(|(name, range)| (name, range));
    check_ranges("tag range", tags, report);
    let domains = file
        .domains
        .iter()
        .filter_map(|it| Some((&it.name, it.type_range.as_ref()?)));
    let ranges = check_ranges("domain", domains, report);
    for message in &file.messages {
        let (Some(id), Some(domain)) = (&message.tlv_type, &message.domain) else {
            continue;
        };
        let (Some(id_value), Some(range)) = (number(id), ranges.get(domain.value.as_str())) else {
            continue;
        };
        // Some files count the ranges of domains from the start of the application's ids.
        let from_app = id_value.checked_sub(*CORE.end() + 1);
        if !range.contains(&id_value) && !from_app.is_some_and(|id| range.contains(&id)) {
            let context = format!("message '{}'", message.name.value);
            let (first, last) = (range.start(), range.end());
            Scope { report, context }.warning(
                id.at,
                &format!(
                    "tlv_type={id_value} is outside of its domain {}",
                    domain.value
                ),
                &format!("type_range of the domain is {first}-{last}"),
            );
        }
    }
    for (name, text) in &file.tag_ranges {
        let fixed = RANGES.iter().find(|(known, _)| *known == name.value);
        let context = format!("tag range '{}'", name.value);
        match (fixed, range(text)) {
            (None, _) => Scope { report, context }.warning(
                name.at,
                "unknown tag range",
                "the frame contract has core, app and experimental",
            ),
            (Some((_, fixed)), Some(found)) if found != *fixed => {
                Scope { report, context }.warning(
                    text.at,
                    &format!("range={} has no effect", text.value),
                    &format!(
                        "the frame contract fixes it to {}-{}",
                        fixed.start(),
                        fixed.end()
                    ),
                );
            }
            _ => {}
        }
    }
}

fn check_messages(file: &File, report: &mut Report) {
    let mut seen: HashMap<u16, (&str, usize)> = HashMap::new();
    for message in &file.messages {
        let Some(written) = &message.tlv_type else {
            continue;
        };
        let name = message.name.value.as_str();
        let mut scope = Scope {
            report,
            context: format!("message '{name}'"),
        };
        let Some(id) = number(written) else {
            let text = format!("tlv_type out of range: tlv_type={}", written.value);
            scope.error(written.at, &text, "use 1 to 65535");
            continue;
        };
        if let Some((other, line)) = seen.get(&id) {
            let text = format!("tlv_type={id} is taken by message '{other}' in line {line}");
            scope.error(written.at, &text, "give every message an id of its own");
        } else {
            seen.insert(id, (name, written.at.line));
        }
        if CORE.contains(&id) && !file.core {
            let text = format!("tlv_type={id} is in the core range 1-999 of control frames");
            scope.error(
                written.at,
                &text,
                "use 1000 to 49999, or 50000 to 65535 for experiments",
            );
        }
        if !CORE.contains(&id) && file.core {
            let text = format!("tlv_type={id} is outside of the core range 1-999");
            scope.error(
                written.at,
                &text,
                "use 1 to 999, or remove `core: true` from the file",
            );
        }
    }
}

fn check_ranges<'a>(
    what: &str,
    ranges: impl Iterator<Item = (&'a Text, &'a Text)>,
    report: &mut Report,
) -> HashMap<&'a str, RangeInclusive<u16>> {
    let mut seen: Vec<(&str, &str, RangeInclusive<u16>)> = Vec::new();
    for (name, text) in ranges {
        let mut scope = Scope {
            report,
            context: format!("{what} '{}'", name.value),
        };
        let Some(found) = range(text) else {
            let text_found = format!("not a range: range={}", text.value);
            scope.error(
                text.at,
                &text_found,
                "write \"first-last\" with numbers from 0 to 65535",
            );
            continue;
        };
        for (other, other_text, other_range) in &seen {
            if overlap(&found, other_range) {
                let overlapping = format!(
                    "range {} overlaps range {other_text} of {what} '{other}'",
                    text.value
                );
                scope.error(text.at, &overlapping, "give every id to one of them");
            }
        }
        seen.push((&name.value, &text.value, found));
    }
    seen.into_iter()
        .map(|(name, _, range)| (name, range))
        .collect()
}
