//! The keys of a worker that say when it starts, when it counts as up, and when it counts as hung.

use std::collections::HashMap;
use std::time::Duration;

use super::problem::{Problems, did_you_mean};
use super::read::MILLISECONDS_MAX;
use super::section::{At, Section};

/// Time to attach where the file names none: a Python interpreter that imports something large first needs seconds.
const ATTACH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// When a worker starts, counts as up, and counts as hung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// Workers that have to be up before this one starts for the first time.
    pub after: Vec<String>,
    /// What makes it count as up.
    pub ready: Readiness,
    /// Longest time from its start until it has attached; then it is killed, and restarted by its policy.
    pub attach_timeout: Duration,
    /// Longest time without any progress while frames wait for it; `None` for any.
    pub stall_timeout: Option<Duration>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            after: Vec::new(),
            ready: Readiness::default(),
            attach_timeout: ATTACH_TIMEOUT_DEFAULT,
            stall_timeout: None,
        }
    }
}

/// What makes a worker count as up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Its link has attached; what the configuration subscribes it to stands from before its start.
    #[default]
    Attached,
    /// It has attached, and a topic that it asked for itself stands.
    Subscribed,
}

const READINESS: [(&str, Readiness); 2] = [
    ("attached", Readiness::Attached),
    ("subscribed", Readiness::Subscribed),
];

/// The keys as written.
#[derive(Debug, Default)]
pub(super) struct Written {
    after: Option<At<Vec<String>>>,
    ready: Option<Readiness>,
    attach_timeout_ms: Option<u64>,
    stall_timeout_ms: Option<u64>,
}

pub(super) fn read(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Written {
    let mut milliseconds = |key| {
        let at = section.integer(key, 1..=MILLISECONDS_MAX, problems)?;
        Some(at.value)
    };
    let attach_timeout_ms = milliseconds("attach_timeout_ms");
    let stall_timeout_ms = milliseconds("stall_timeout_ms");
    Written {
        after: section.strings("after", problems),
        ready: section.choice("ready", &READINESS, problems),
        attach_timeout_ms,
        stall_timeout_ms,
    }
}

impl Written {
    pub(super) fn into_config(self) -> WatchConfig {
        let defaults = WatchConfig::default();
        WatchConfig {
            after: self.after.map_or_else(Vec::new, |at| at.value),
            ready: self.ready.unwrap_or_default(),
            attach_timeout: self
                .attach_timeout_ms
                .map_or(defaults.attach_timeout, Duration::from_millis),
            stall_timeout: self.stall_timeout_ms.map(Duration::from_millis),
        }
    }
}

/// Every name in `after` is that of another worker, and the order that they ask for exists.
pub(super) fn check_order(workers: &[(Option<&str>, &Written)], problems: &mut Problems<'_>) {
    let mut order: HashMap<&str, &At<Vec<String>>> = HashMap::new();
    for (name, written) in workers {
        let Some(after) = &written.after else {
            continue;
        };
        let names = workers.iter().filter_map(|(name, _)| *name);
        for other in &after.value {
            if names.clone().any(|known| known == other) {
                continue;
            }
            let others = names.clone().filter(|known| Some(*known) != *name);
            problems.add(
                &after.span,
                format!("after names no worker: value='{}'", other.escape_debug()),
                did_you_mean(other, others).map_or_else(
                    || "name another [[worker]] of this file".to_owned(),
                    |known| format!("did you mean '{known}'?"),
                ),
            );
        }
        if let Some(name) = name {
            order.insert(name, after);
        }
    }
    let mut done: Vec<&str> = Vec::new();
    for (name, _) in workers {
        if let Some(name) = name {
            let mut path = Vec::new();
            find_cycle(name, &order, &mut path, &mut done, problems);
        }
    }
}

/// Follows `after` depth first. Whatever is in `done` leads into no cycle that has not been reported.
fn find_cycle<'a>(
    name: &'a str,
    order: &HashMap<&'a str, &'a At<Vec<String>>>,
    path: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
    problems: &mut Problems<'_>,
) {
    if done.contains(&name) {
        return;
    }
    if let Some(begin) = path.iter().position(|other| *other == name) {
        let span = order.get(name).map_or(0..0, |at| at.span.clone());
        let cycle = path[begin..].join(" -> ");
        problems.add(
            &span,
            format!("after asks for an order that does not exist: {cycle} -> {name}"),
            "remove one of these from the after of the one before it",
        );
        done.extend_from_slice(&path[begin..]);
        return;
    }
    path.push(name);
    for other in order.get(name).map_or(&[][..], |at| &at.value) {
        find_cycle(other, order, path, done, problems);
    }
    path.pop();
    if !done.contains(&name) {
        done.push(name);
    }
}
