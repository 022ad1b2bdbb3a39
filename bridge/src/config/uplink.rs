//! The `[uplink]` table, or several `[[uplink]]`: buses of Mycelium that the bridge joins, as written and as checked.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mycelium_contracts::{Contracts, Delivery, Message};
use mycelium_messages::layout::{FRAME_ALIGN, FRAME_HEADER_LEN, RING_RECORD_DIVISOR};
use shm_transport::socket::Address;
use toml::de::{DeTable, DeValue};

use super::BridgeConfig;
use super::check::join;
use super::delivery::{self, POLICIES};
use super::problem::Problems;
use super::read::{MILLISECONDS_MAX, capacity, check_name};
use super::section::{At, Section};

/// Name where the table names none.
const NAME_DEFAULT: &str = "uplink";
/// Longest payload that the Python side of a bus takes.
const MAX_PAYLOAD_DEFAULT: u64 = 4 << 20;
/// Longest payload of the stream format.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;
const BACKOFF_DEFAULT: Duration = Duration::from_millis(100);
const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(10);

/// One bus that the bridge joins as a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Unique name: also the name of its link.
    pub name: String,
    /// Where the bus listens: `unix:` or `tcp:`.
    pub address: Address,
    /// The contracts file that the bus has.
    pub contracts: PathBuf,
    /// SHA-256 of that file's bytes, which the bus compares with its own.
    pub digest: [u8; 32],
    /// Names of the messages that come from the bus.
    pub import: Vec<String>,
    /// Names of the messages that go to the bus.
    pub export: Vec<String>,
    /// What happens to a frame for the bus that finds no room.
    pub delivery: Delivery,
    /// Longest payload that is sent to the bus, in bytes.
    pub max_payload: usize,
    /// Bytes of each ring between the router and the connection; a power of two.
    pub ring_capacity: usize,
    /// Bytes in which further frames for the bus wait; a power of two.
    pub stage_capacity: usize,
    /// Delay before the first attempt to connect again; doubled for each further one, then shortened by up to a half at
    /// random.
    pub backoff: Duration,
    /// Upper bound of the delay. A connection that lasted for longer starts over with `backoff`.
    pub backoff_max: Duration,
}

/// The messages of one direction.
#[derive(Debug)]
enum Names {
    /// `"*"`.
    All,
    Some(Vec<String>),
}

/// A table as written.
#[derive(Debug)]
pub(super) struct Uplink {
    label: String,
    span: Range<usize>,
    name: Option<At<String>>,
    address: Option<At<String>>,
    contracts: Option<At<String>>,
    import: Option<At<Names>>,
    export: Option<At<Names>>,
    delivery: Option<Delivery>,
    max_payload: Option<u64>,
    ring_capacity: (Option<usize>, Range<usize>),
    stage_capacity: (Option<usize>, Range<usize>),
    backoff_ms: Option<u64>,
    backoff_max_ms: Option<At<u64>>,
}

/// Reads `[uplink]` or the `[[uplink]]` tables.
pub(super) fn read(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Uplink> {
    let Some((span, value)) = top.take("uplink") else {
        return Vec::new();
    };
    let mut uplinks = Vec::new();
    match value {
        DeValue::Table(table) => uplinks.push(uplink(0, table, span, problems)),
        DeValue::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                match item.get_ref() {
                    DeValue::Table(table) => {
                        uplinks.push(uplink(number, table, item.span(), problems));
                    }
                    _ => problems.add(
                        &item.span(),
                        "uplink must be a table",
                        "write [[uplink]] on a line of its own",
                    ),
                }
            }
        }
        _ => problems.add(
            &span,
            "uplink must be a table",
            "write [uplink] on a line of its own",
        ),
    }
    uplinks
}

fn uplink(
    number: usize,
    table: &DeTable<'_>,
    span: Range<usize>,
    problems: &mut Problems<'_>,
) -> Uplink {
    let mut section = Section::new(format!("uplink number {}", number + 1), table, span.clone());
    let name = section.string("name", problems);
    if let Some(name) = &name {
        section.set_label(format!("uplink '{}'", name.value.escape_debug()));
        check_name("uplink", name, problems);
    }
    if !table.contains_key("address") {
        problems.add(
            &span,
            format!("{}: missing key 'address'", section.label()),
            "add address = \"unix:/PATH\" or \"tcp:HOST:PORT\", where the bus listens",
        );
    }
    let uplink = Uplink {
        label: section.label().to_owned(),
        span: span.clone(),
        name,
        address: section.string("address", problems),
        contracts: section.path("contracts", problems),
        import: names("import", &mut section, problems),
        export: names("export", &mut section, problems),
        delivery: section.choice("delivery", &POLICIES, problems),
        max_payload: section
            .integer("max_payload", 1..=MAX_PAYLOAD as u64, problems)
            .map(|at| at.value),
        ring_capacity: capacity("ring_capacity", &mut section, problems),
        stage_capacity: capacity("stage_capacity", &mut section, problems),
        backoff_ms: section
            .integer("reconnect_backoff_ms", 1..=MILLISECONDS_MAX, problems)
            .map(|at| at.value),
        backoff_max_ms: section.integer("reconnect_backoff_max_ms", 1..=MILLISECONDS_MAX, problems),
    };
    if !table.contains_key("import") && !table.contains_key("export") {
        problems.add(
            &span,
            format!(
                "{}: neither import nor export: nothing would flow",
                uplink.label
            ),
            "add import = [\"MESSAGE\"], export = [\"MESSAGE\"], or \"*\" for all messages",
        );
    }
    section.finish(problems);
    uplink
}

/// An array of names, or `"*"`.
fn names(
    key: &'static str,
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<At<Names>> {
    let (span, value) = section.take(key)?;
    let found = match value {
        DeValue::String(text) if text == "*" => Some(Names::All),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Names::Some),
        _ => None,
    };
    if found.is_none() {
        problems.add(
            &span,
            format!(
                "{}: {key} is neither an array of strings nor \"*\"",
                section.label()
            ),
            format!("write {key} = [\"MESSAGE\"], or {key} = \"*\" for all messages"),
        );
    }
    Some(At {
        value: found?,
        span,
    })
}

/// Checks all uplinks against the contracts of the bridge.
pub(super) fn check(
    written: Vec<Uplink>,
    bridge: &BridgeConfig,
    contracts: &Arc<Contracts>,
    workers: &[&str],
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Vec<UplinkConfig> {
    let mut uplinks: Vec<UplinkConfig> = Vec::new();
    for item in written {
        let Some(uplink) = check_one(
            item, &uplinks, bridge, contracts, workers, directory, problems,
        ) else {
            continue;
        };
        uplinks.push(uplink);
    }
    uplinks
}

fn check_one(
    item: Uplink,
    others: &[UplinkConfig],
    bridge: &BridgeConfig,
    ours: &Arc<Contracts>,
    workers: &[&str],
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<UplinkConfig> {
    let label = &item.label;
    let (name, name_span) = match &item.name {
        Some(at) => (at.value.clone(), &at.span),
        None => (NAME_DEFAULT.to_owned(), &item.span),
    };
    if others.iter().any(|other| other.name == name) || workers.contains(&&*name) {
        problems.add(
            name_span,
            format!("{label}: name is taken: name={name}"),
            "add name = \"NAME\"; names of workers and uplinks are unique in a bridge",
        );
    }
    let theirs = match &item.contracts {
        None => Some((bridge.contracts.clone(), Arc::clone(ours))),
        Some(at) => {
            let path = join(directory, &at.value);
            let loaded = mycelium_contracts::load(&path);
            if let Err(report) = &loaded {
                problems.add(
                    &at.span,
                    format!(
                        "{label}: the contracts file cannot be used: path={}\n{report}",
                        path.display()
                    ),
                    "name the very file that the bus was started with",
                );
            }
            loaded.ok().map(|contracts| (path, Arc::new(contracts)))
        }
    };
    let ring_capacity = item.ring_capacity.0.unwrap_or(bridge.ring_capacity);
    let stage_capacity = item
        .stage_capacity
        .0
        .or(bridge.stage_capacity)
        .unwrap_or(ring_capacity);
    if stage_capacity < ring_capacity {
        problems.add(
            &item.stage_capacity.1,
            format!(
                "{label}: stage_capacity is below ring_capacity: value={stage_capacity}, min={ring_capacity}"
            ),
            "raise stage_capacity or lower ring_capacity",
        );
    }
    let backoff = item
        .backoff_ms
        .map_or(BACKOFF_DEFAULT, Duration::from_millis);
    let backoff_max = match &item.backoff_max_ms {
        Some(at) => Duration::from_millis(at.value),
        None => BACKOFF_MAX_DEFAULT.max(backoff),
    };
    if let Some(at) = item
        .backoff_max_ms
        .as_ref()
        .filter(|_| backoff_max < backoff)
    {
        problems.add(
            &at.span,
            format!(
                "{label}: reconnect_backoff_max_ms is below reconnect_backoff_ms: value={}, min={}",
                at.value,
                backoff.as_millis()
            ),
            "raise reconnect_backoff_max_ms or lower reconnect_backoff_ms",
        );
    }
    let address = address(&item, directory, problems);
    let (path, theirs) = theirs?;
    let mut messages = |key: &str, wanted: &Option<At<Names>>| match wanted {
        Some(at) => resolve(
            &format!("{label}: {key}"),
            at,
            ours,
            &theirs,
            ring_capacity,
            problems,
        ),
        None => Vec::new(),
    };
    let (import, export) = (
        messages("import", &item.import),
        messages("export", &item.export),
    );
    Some(UplinkConfig {
        name,
        address: address?,
        contracts: path,
        digest: theirs.source_digest(),
        import,
        export,
        delivery: item.delivery.unwrap_or(Delivery::DropOldest),
        max_payload: usize::try_from(item.max_payload.unwrap_or(MAX_PAYLOAD_DEFAULT))
            .unwrap_or(MAX_PAYLOAD),
        ring_capacity,
        stage_capacity,
        backoff,
        backoff_max,
    })
}

fn address(item: &Uplink, directory: &Path, problems: &mut Problems<'_>) -> Option<Address> {
    let at = item.address.as_ref()?;
    let label = &item.label;
    match at.value.parse() {
        Ok(Address::Unix(path)) => {
            let path = join(directory, path);
            if let Err(error) = crate::listen::check_path(&path) {
                problems.add(
                    &at.span,
                    format!("{label}: {error}"),
                    "choose a shorter path",
                );
            }
            Some(Address::Unix(path))
        }
        Ok(address @ Address::Tcp { .. }) => Some(address),
        Ok(_) => {
            problems.add(
                &at.span,
                format!("{label}: a bus is reached by unix: or tcp: only: value='{}'", at.value),
                "its stream has no encryption of its own; put a tunnel in front of it and name the tunnel's end",
            );
            None
        }
        Err(error) => {
            problems.add(
                &at.span,
                format!("{label}: {}", error.problem),
                "write address = \"unix:/PATH\" or \"tcp:HOST:PORT\"; an IPv6 address takes brackets",
            );
            None
        }
    }
}

/// The messages of one direction: known to both sides, with one layout, and short enough for the ring.
fn resolve(
    place: &str,
    wanted: &At<Names>,
    ours: &Contracts,
    theirs: &Contracts,
    ring_capacity: usize,
    problems: &mut Problems<'_>,
) -> Vec<String> {
    let span = &wanted.span;
    let names = match &wanted.value {
        // What only one side has cannot flow.
        Names::All => {
            let known = ours
                .messages()
                .filter(|it| theirs.by_name(&it.name).is_some());
            known.map(|message| message.name.clone()).collect()
        }
        Names::Some(names) => names.clone(),
    };
    let mut found = Vec::new();
    for name in names {
        if found.contains(&name) {
            let text = format!("{place} names '{name}' twice");
            problems.add(span, text, "remove one of them");
            continue;
        }
        let Some(our) = delivery::find(ours, &name, place, span, problems) else {
            continue;
        };
        let at_bus = format!("{place}, contracts of the bus");
        let Some(their) = delivery::find(theirs, &name, &at_bus, span, problems) else {
            continue;
        };
        if (our.topic_id, our.layout_digest) != (their.topic_id, their.layout_digest) {
            problems.add(
                span,
                format!(
                    "{place}: '{name}' is another message at the bus: bridge: tlv_type={}, {} bytes; bus: tlv_type={}, {} \
                     bytes",
                    our.topic_id,
                    size(our),
                    their.topic_id,
                    size(their)
                ),
                "give both the same fields in the same order, or remove it here",
            );
            continue;
        }
        let payload = our.wire_len.unwrap_or(our.max_size);
        let record = (FRAME_HEADER_LEN + payload).next_multiple_of(FRAME_ALIGN);
        if record > ring_capacity / RING_RECORD_DIVISOR {
            problems.add(
                span,
                format!(
                    "{place}: ring_capacity is too small for '{name}': record={record}, max={} bytes (a quarter of \
                     ring_capacity={ring_capacity})",
                    ring_capacity / RING_RECORD_DIVISOR
                ),
                format!("set ring_capacity = {}", (record * RING_RECORD_DIVISOR).next_power_of_two()),
            );
            continue;
        }
        found.push(name);
    }
    found
}

fn size(message: &Message) -> usize {
    message.wire_len.unwrap_or(message.max_size)
}
