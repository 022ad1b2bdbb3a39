//! `show`: the messages of a file as a table, or one message with every byte.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use mycelium_contracts::{Contracts, Encoding, FieldType, Message, closest, hex};

use super::{Side, print, table};

/// Hexadecimal digits of a digest that are enough to tell two apart by eye.
const SHORT: usize = 12;

pub(crate) fn run(file: &Path, message: Option<&str>) -> ExitCode {
    let contracts = match mycelium_contracts::load(file) {
        Ok(contracts) => contracts,
        Err(report) => {
            eprintln!("{report}");
            return ExitCode::from(1);
        }
    };
    let Some(wanted) = message else {
        print(&overview(&contracts));
        return ExitCode::SUCCESS;
    };
    let by_id = wanted.parse().ok().and_then(|id| contracts.by_id(id));
    match contracts.by_name(wanted).or(by_id) {
        Some(message) => {
            print(&layout(&contracts, message));
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("error: no message '{wanted}' in {}", file.display());
            let names = contracts.messages().map(|message| message.name.as_str());
            match closest(wanted, names) {
                Some(meant) => eprintln!("hint: did you mean '{meant}'?"),
                None => eprintln!(
                    "hint: mycelium-contracts show {} prints all messages",
                    file.display()
                ),
            }
            ExitCode::from(2)
        }
    }
}

fn short(digest: &[u8]) -> String {
    hex(digest)[..SHORT].to_owned()
}

/// Bytes between and behind the fields.
fn padding(message: &Message) -> usize {
    let used: usize = message.fields.iter().map(|field| field.size).sum();
    message.wire_len.map_or(0, |total| total - used)
}

fn overview(contracts: &Contracts) -> String {
    let mut text = format!(
        "{}  {} messages, schema {}, source {}\n",
        contracts.file().display(),
        contracts.messages().len(),
        short(&contracts.schema_digest()),
        short(&contracts.source_digest()),
    );
    if contracts.messages().len() > 0 {
        let columns = [
            ("id", Side::Right),
            ("message", Side::Left),
            ("topic", Side::Left),
            ("bytes", Side::Right),
            ("fields", Side::Right),
            ("padding", Side::Right),
            ("delivery", Side::Left),
            ("key", Side::Left),
            ("layout", Side::Left),
        ];
        let rows: Vec<_> = contracts.messages().map(overview_row).collect();
        let _ = write!(text, "\n{}", table(&columns, &rows));
    }
    if !contracts.constants().is_empty() {
        let columns = [
            ("constant", Side::Left),
            ("type", Side::Left),
            ("value", Side::Right),
        ];
        let rows: Vec<_> = contracts
            .constants()
            .iter()
            .map(|it| vec![it.name.clone(), it.kind.clone(), it.value.to_string()])
            .collect();
        let _ = write!(text, "\n{}", table(&columns, &rows));
    }
    text
}

fn overview_row(message: &Message) -> Vec<String> {
    let dynamic = message.encoding != Encoding::Contract;
    let number = |value: usize| {
        if dynamic {
            String::new()
        } else {
            value.to_string()
        }
    };
    vec![
        message.topic_id.to_string(),
        message.name.clone(),
        message.topic.clone(),
        match message.wire_len {
            Some(size) => size.to_string(),
            None => format!("{} <= {}", message.encoding.name(), message.max_size),
        },
        number(message.fields.len()),
        number(padding(message)),
        message.delivery.name().to_owned(),
        message.key.join(", "),
        short(&message.layout_digest),
    ]
}

fn layout(contracts: &Contracts, message: &Message) -> String {
    let mut text = format!(
        "{}  topic {} '{}', delivery {}",
        message.name,
        message.topic_id,
        message.topic,
        message.delivery.name()
    );
    if !message.key.is_empty() {
        let _ = write!(text, ", key {}", message.key.join(", "));
    }
    text.push('\n');
    if !message.description.is_empty() {
        let _ = writeln!(text, "{}", message.description);
    }
    if !message.log_payload {
        text.push_str("values are not logged\n");
    }
    text.push('\n');
    match message.wire_len {
        Some(size) => text.push_str(&fields(contracts, message, size)),
        None => {
            let (name, max) = (message.encoding.name(), message.max_size);
            let _ = writeln!(text, "  payload in {name}, at most {max} bytes");
        }
    }
    let _ = writeln!(text, "\nlayout digest {}", hex(&message.layout_digest));
    text
}

fn fields(contracts: &Contracts, message: &Message, size: usize) -> String {
    let columns = [
        ("offset", Side::Right),
        ("size", Side::Right),
        ("align", Side::Right),
        ("field", Side::Left),
        ("type", Side::Left),
        ("legal values", Side::Left),
    ];
    let mut rows = Vec::new();
    let mut end = 0;
    let gap = |rows: &mut Vec<Vec<String>>, from: usize, to: usize| {
        if from < to {
            let (from, bytes) = (from.to_string(), (to - from).to_string());
            let blank = String::new;
            rows.push(vec![
                from,
                bytes,
                blank(),
                "·".to_owned(),
                "padding".to_owned(),
                "zeros".to_owned(),
            ]);
        }
    };
    for field in &message.fields {
        gap(&mut rows, end, field.offset);
        end = field.offset + field.size;
        let kind = match field.kind {
            FieldType::Enum { index, repr } => {
                format!("{} ({})", contracts.enums()[index].name, repr.name())
            }
            kind => kind.name(),
        };
        let mut legal = contracts.legal_values(field);
        if field.optional {
            legal.push_str("; optional");
        }
        rows.push(vec![
            field.offset.to_string(),
            field.size.to_string(),
            field.kind.align().to_string(),
            field.name.clone(),
            kind,
            legal,
        ]);
    }
    gap(&mut rows, end, size);
    let mut text = table(&columns, &rows);
    let padding = padding(message);
    let _ = writeln!(
        text,
        "\n  {size} bytes: {} in {} fields, {padding} padding; alignment {}",
        size - padding,
        message.fields.len(),
        message.align
    );
    text
}
