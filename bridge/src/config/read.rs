//! The configuration as written: keys, types and ranges, without a look at the file system.

use std::collections::BTreeMap;
use std::ops::Range;

use mycelium_contracts::Delivery;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::delivery::{Written, policies, subscriptions};
use super::endpoint::{self, Endpoint, PENDING_HANDSHAKES_MAX};
use super::problem::Problems;
use super::section::{At, Section, integer};
use super::uplink::{self, Uplink};
use super::{OnMismatch, RestartPolicy, SETTINGS_MAX, TransportMode, WORKER_NAME_MAX};
use super::{process, watch, watching};
use mycelium_messages::layout::{RING_CAPACITY_MAX, RING_CAPACITY_MIN};

/// Times in the file are bounded so that no arithmetic on instants can overflow: 24 hours.
pub(super) const MILLISECONDS_MAX: u64 = 86_400_000;

const TRANSPORTS: [(&str, TransportMode); 3] = [
    ("auto", TransportMode::Auto),
    ("shm", TransportMode::Shm),
    ("socket", TransportMode::Socket),
];

const WORKER_TRANSPORTS: [(&str, TransportMode); 4] = [
    TRANSPORTS[0],
    TRANSPORTS[1],
    TRANSPORTS[2],
    ("stdio", TransportMode::Stdio),
];

const MISMATCHES: [(&str, OnMismatch); 2] =
    [("topic", OnMismatch::Topic), ("refuse", OnMismatch::Refuse)];

const RESTART_POLICIES: [(&str, RestartPolicy); 3] = [
    ("always", RestartPolicy::Always),
    ("on-failure", RestartPolicy::OnFailure),
    ("never", RestartPolicy::Never),
];

/// The whole file. What is absent or wrong is `None`; what is wrong has been noted as a problem.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) bridge: Bridge,
    pub(super) on_mismatch: Option<OnMismatch>,
    pub(super) listen: Vec<Endpoint>,
    pub(super) metrics: Option<watching::Written>,
    pub(super) workers: Vec<Worker>,
    pub(super) uplinks: Vec<Uplink>,
    /// Policies by message.
    pub(super) delivery: BTreeMap<String, At<Delivery>>,
}

#[derive(Debug, Default)]
pub(super) struct Bridge {
    pub(super) listen: Option<At<String>>,
    pub(super) contracts: Option<At<String>>,
    pub(super) transport: Option<TransportMode>,
    pub(super) ring_capacity: Option<usize>,
    pub(super) spin_us: Option<u32>,
    pub(super) allowed_uids: Option<Vec<u32>>,
    pub(super) shutdown_timeout_ms: Option<u64>,
    pub(super) log: Option<At<String>>,
    pub(super) memory: Memory,
    pub(super) max_pending_handshakes: Option<u64>,
    pub(super) stage_capacity: Option<usize>,
    pub(super) state_dir: Option<At<String>>,
    pub(super) control: Option<At<String>>,
}

/// The table `memory` of `[bridge]` or of a worker.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) directory: Option<At<String>>,
    pub(super) prefault: Option<bool>,
    pub(super) lock: Option<bool>,
    pub(super) huge_pages: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Worker {
    /// How messages name the worker.
    pub(super) label: String,
    pub(super) span: Range<usize>,
    pub(super) name: Option<At<String>>,
    pub(super) command: Option<At<Vec<String>>>,
    pub(super) working_dir: Option<At<String>>,
    pub(super) env: Option<At<BTreeMap<String, String>>>,
    pub(super) subscribe: Option<At<Vec<Written>>>,
    pub(super) transport: Option<TransportMode>,
    pub(super) ring_capacity: Option<usize>,
    pub(super) ring_capacity_span: Range<usize>,
    pub(super) stage_capacity: Option<usize>,
    pub(super) quarantine_after: Option<u64>,
    pub(super) spin_us: Option<u32>,
    pub(super) memory: Memory,
    pub(super) process: process::Written,
    pub(super) watch: watch::Written,
    pub(super) restart: Option<RestartPolicy>,
    pub(super) backoff_ms: Option<At<u64>>,
    pub(super) backoff_max_ms: Option<At<u64>>,
    pub(super) limit: Option<u64>,
    pub(super) window_ms: Option<u64>,
    pub(super) settings: Map<String, Value>,
}

pub(super) fn file(root: &DeTable<'_>, problems: &mut Problems<'_>) -> File {
    let mut top = Section::new("top level", root, 0..0);
    let mut file = File::default();
    match top.take("bridge") {
        Some((span, DeValue::Table(table))) => file.bridge = bridge(table, span, problems),
        Some((span, _)) => problems.add(
            &span,
            "bridge must be a table",
            "write [bridge] on a line of its own",
        ),
        None => problems.add(
            &(0..0),
            "missing table [bridge]",
            "add [bridge] with at least contracts = \"FILE\"",
        ),
    }
    match top.take("contracts") {
        Some((span, DeValue::Table(table))) => {
            let mut section = Section::new("[contracts]", table, span);
            file.on_mismatch = section.choice("on_mismatch", &MISMATCHES, problems);
            section.finish(problems);
        }
        Some((span, _)) => problems.add(
            &span,
            "contracts must be a table",
            "write [contracts] on a line of its own; the path of the file is contracts in [bridge]",
        ),
        None => {}
    }
    file.listen = endpoint::read(&mut top, problems);
    file.uplinks = uplink::read(&mut top, problems);
    file.metrics = watching::read(&mut top, problems);
    if let Some((span, value)) = top.take("delivery") {
        file.delivery = policies(value, &span, problems);
    }
    match top.take("worker") {
        Some((_, DeValue::Array(items))) => {
            for (number, item) in items.iter().enumerate() {
                match item.get_ref() {
                    DeValue::Table(table) => {
                        file.workers
                            .push(worker(number, table, item.span(), problems))
                    }
                    _ => problems.add(
                        &item.span(),
                        "worker must be a table",
                        "write [[worker]] on a line of its own",
                    ),
                }
            }
        }
        Some((span, _)) => {
            problems.add(
                &span,
                "worker must be an array of tables",
                "write [[worker]] with two brackets",
            );
        }
        None => {}
    }
    top.finish(problems);
    file
}

fn bridge(table: &DeTable<'_>, span: Range<usize>, problems: &mut Problems<'_>) -> Bridge {
    let mut section = Section::new("[bridge]", table, span);
    let bridge = Bridge {
        listen: section.path("listen", problems),
        contracts: section.path("contracts", problems),
        transport: section.choice("transport", &TRANSPORTS, problems),
        ring_capacity: capacity("ring_capacity", &mut section, problems).0,
        stage_capacity: capacity("stage_capacity", &mut section, problems).0,
        state_dir: section.path("state_dir", problems),
        control: section.path("control", problems),
        spin_us: spin_us(&mut section, problems),
        allowed_uids: section
            .u32_list("allowed_uids", problems)
            .map(|uids| uids.value),
        shutdown_timeout_ms: section
            .integer("shutdown_timeout_ms", 1..=MILLISECONDS_MAX, problems)
            .map(|at| at.value),
        log: section.string("log", problems),
        memory: memory(&mut section, problems),
        max_pending_handshakes: section
            .integer(
                "max_pending_handshakes",
                1..=PENDING_HANDSHAKES_MAX,
                problems,
            )
            .map(|at| at.value),
    };
    if !table.contains_key("contracts") {
        problems.add(
            section.span(),
            "[bridge]: missing key 'contracts'",
            "add contracts = \"contracts/FILE.yaml\"",
        );
    }
    section.finish(problems);
    bridge
}

fn worker(
    number: usize,
    table: &DeTable<'_>,
    span: Range<usize>,
    problems: &mut Problems<'_>,
) -> Worker {
    let mut section = Section::new(format!("worker number {}", number + 1), table, span.clone());
    let name = section.string("name", problems);
    if let Some(name) = &name {
        section.set_label(format!("worker '{}'", name.value.escape_debug()));
        check_name("worker", name, problems);
    }
    for (key, example) in [
        ("name", "name = \"momentum\""),
        ("command", "command = [\"python3\", \"momentum.py\"]"),
    ] {
        if !table.contains_key(key) {
            problems.add(
                &span,
                format!("{}: missing key '{key}'", section.label()),
                format!("add {example}"),
            );
        }
    }
    let command = section.strings("command", problems);
    let (ring_capacity, ring_capacity_span) = capacity("ring_capacity", &mut section, problems);
    let (stage_capacity, _) = capacity("stage_capacity", &mut section, problems);
    let worker = Worker {
        label: section.label().to_owned(),
        span,
        name,
        command,
        working_dir: section.path("working_dir", problems),
        env: section.string_map("env", problems),
        subscribe: subscriptions(&mut section, problems),
        transport: section.choice("transport", &WORKER_TRANSPORTS, problems),
        ring_capacity,
        ring_capacity_span,
        stage_capacity,
        quarantine_after: section
            .integer("quarantine_after", 0..=1000, problems)
            .map(|at| at.value),
        spin_us: spin_us(&mut section, problems),
        memory: memory(&mut section, problems),
        process: process::read(&mut section, problems),
        watch: watch::read(&mut section, problems),
        restart: section.choice("restart", &RESTART_POLICIES, problems),
        backoff_ms: section.integer("restart_backoff_ms", 1..=MILLISECONDS_MAX, problems),
        backoff_max_ms: section.integer("restart_backoff_max_ms", 1..=MILLISECONDS_MAX, problems),
        limit: section
            .integer("restart_limit", 1..=1000, problems)
            .map(|at| at.value),
        window_ms: section
            .integer("restart_window_ms", 1..=MILLISECONDS_MAX, problems)
            .map(|at| at.value),
        settings: settings(&mut section, problems),
    };
    section.finish(problems);
    worker
}

pub(super) fn check_name(what: &str, name: &At<String>, problems: &mut Problems<'_>) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.value.is_empty() || name.value.len() > WORKER_NAME_MAX || !name.value.bytes().all(legal)
    {
        problems.add(
            &name.span,
            format!(
                "{what} name is not legal: value='{}', length={} bytes, legal=1..={WORKER_NAME_MAX} of A-Z a-z 0-9 _ . -",
                name.value.escape_debug(),
                name.value.len()
            ),
            "choose a short name without spaces; the description belongs in a comment",
        );
    }
}

fn spin_us(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Option<u32> {
    let at = section.integer("spin_us", 0..=1_000_000, problems)?;
    u32::try_from(at.value).ok()
}

fn memory(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Memory {
    let label = format!("{}: memory", section.label());
    match section.take("memory") {
        None => Memory::default(),
        Some((span, DeValue::Table(table))) => {
            let mut section = Section::new(label, table, span);
            let memory = Memory {
                directory: section.path("directory", problems),
                prefault: section.boolean("prefault", problems),
                lock: section.boolean("lock", problems),
                huge_pages: section.boolean("huge_pages", problems),
            };
            section.finish(problems);
            memory
        }
        Some((span, _)) => {
            problems.add(
                &span,
                format!("{label} must be a table"),
                "write memory = { lock = true }",
            );
            Memory::default()
        }
    }
}

fn settings(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Map<String, Value> {
    let Some(settings) = section.json_object("settings", problems) else {
        return Map::new();
    };
    let length = serde_json::to_vec(&settings.value).map_or(0, |json| json.len());
    if length > SETTINGS_MAX {
        problems.add(
            &settings.span,
            format!(
                "{}: settings are too long as JSON: length={length}, max={SETTINGS_MAX} bytes",
                section.label()
            ),
            "put large data into a file and hand over its path",
        );
    }
    settings.value
}

/// The capacity and the place to point at, which is that of the table where the key is absent.
pub(super) fn capacity(
    key: &'static str,
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> (Option<usize>, Range<usize>) {
    let Some((span, value)) = section.take(key) else {
        return (None, section.span().clone());
    };
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => {
            integer(value).map_or_else(|| number.to_string(), |n| n.to_string())
        }
        other => {
            let actual = other.type_str();
            let message = format!(
                "{}: {key} has the wrong type: expected=a size like \"1MiB\", actual={actual}",
                section.label()
            );
            problems.add(&span, message, "");
            return (None, span);
        }
    };
    let bytes = parse_size(&text);
    let legal = bytes
        .filter(|n| n.is_power_of_two() && (RING_CAPACITY_MIN..=RING_CAPACITY_MAX).contains(n));
    if legal.is_none() {
        let hint = match bytes {
            Some(n) if (RING_CAPACITY_MIN..=RING_CAPACITY_MAX).contains(&n) => {
                format!("the next power of two is {}", n.next_power_of_two())
            }
            _ => "write bytes or a size like \"64KiB\" or \"4MiB\"".to_owned(),
        };
        let message = format!(
            "{}: {key} is not legal: value={text}, legal=a power of two from {RING_CAPACITY_MIN} to {RING_CAPACITY_MAX} bytes",
            section.label()
        );
        problems.add(&span, message, hint);
    }
    (legal, span)
}

/// A number of bytes, written as an integer or a size such as `"64KiB"`.
pub(super) fn size(
    section: &mut Section<'_, '_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<u64> {
    let (span, value) = section.take(key)?;
    let bytes = match value {
        DeValue::String(text) => parse_size(text),
        other => integer(other).and_then(|number| usize::try_from(number).ok()),
    };
    if bytes.is_none() {
        problems.add(
            &span,
            format!("{}: {key} is not a size", section.label()),
            "write bytes or a size like \"64KiB\", \"512MiB\" or \"4GiB\"",
        );
    }
    bytes.map(|bytes| bytes as u64)
}

/// Bytes of a size such as `4096`, `64KiB`, `1 MiB` or `1GiB`.
fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size(" 1 MiB "), Some(1 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
    }

    #[test]
    fn other_units_signs_and_overflow_are_no_sizes() {
        for text in [
            "",
            "MiB",
            "1MB",
            "1kib",
            "-1",
            "1.5MiB",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
