//! `mycelium-bridge quarantine`: looks at records that were moved aside, and sends them again.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use mycelium_bridge::config::Config;
use mycelium_bridge::quarantine::{Entry, Kept, Store};
use shm_transport::channel::{Channel, ConnectOptions};
use shm_transport::frame::Encoding;
use shm_transport::ring::Frame;
use shm_transport::socket::Address;

use super::{ConfigArgument, EXIT_CONFIG, EXIT_FAILURE, failure, load};

/// Longest wait for room on the topic.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes on one line of a dump.
const DUMP_WIDTH: usize = 16;

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// One line for each record that was moved aside.
    List(ConfigArgument),
    /// Everything that is known of one of them, with its bytes by field.
    Show {
        /// Its number, from the list.
        id: u64,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Publish one of them again on its topic, through the listening socket of the running bridge: every subscriber gets it.
    Reinject {
        /// Its number, from the list.
        id: u64,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

pub(super) fn run(command: &QuarantineCommand) -> ExitCode {
    let (QuarantineCommand::List(argument)
    | QuarantineCommand::Show {
        config: argument, ..
    }
    | QuarantineCommand::Reinject {
        config: argument, ..
    }) = command;
    let config = match load(&argument.path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let store = Store::at(&config.bridge.state_dir);
    let kept = match store.list() {
        Ok(kept) => kept,
        Err(error) => {
            let message = format!(
                "cannot read the quarantine: path={}: {error}",
                store.path().display()
            );
            return failure(
                message,
                "run this as the user that runs the bridge",
                EXIT_FAILURE,
            );
        }
    };
    match command {
        QuarantineCommand::List(_) => list(&kept, &store),
        QuarantineCommand::Show { id, .. } => {
            with_entry(&kept, *id, &store, |kept| show(kept, &config))
        }
        QuarantineCommand::Reinject { id, .. } => with_entry(&kept, *id, &store, |kept| {
            reinject(&kept.entry, &config, &store)
        }),
    }
}

fn with_entry(
    kept: &[Kept],
    id: u64,
    store: &Store,
    act: impl FnOnce(&Kept) -> ExitCode,
) -> ExitCode {
    match kept.iter().find(|kept| kept.entry.id == id) {
        Some(kept) => act(kept),
        None => failure(
            format!(
                "no such record in the quarantine: id={id}, records={}, path={}",
                kept.len(),
                store.path().display()
            ),
            "mycelium-bridge quarantine list shows the numbers",
            EXIT_CONFIG,
        ),
    }
}

/// A reader that has closed the pipe has seen enough.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn list(kept: &[Kept], store: &Store) -> ExitCode {
    if kept.is_empty() {
        return print(&format!(
            "nothing is in quarantine: path={}\n",
            store.path().display()
        ));
    }
    let mut text = format!(
        "{:>4}  {:<24}  {:<20}  {:<20}  {:>5}  {:>7}  {:<16}  {}\n",
        "id", "time (UTC)", "worker", "message", "kills", "bytes", "last end", "sent again"
    );
    for Kept { entry, reinjected } in kept {
        text += &format!(
            "{:>4}  {:<24}  {:<20}  {:<20}  {:>5}  {:>7}  {:<16}  {}\n",
            entry.id,
            utc(entry.time_ms),
            entry.worker,
            name(entry),
            entry.kills,
            entry.payload.len() / 2,
            entry.status,
            reinjected
        );
    }
    print(&text)
}

fn name(entry: &Entry) -> String {
    if entry.message.is_empty() {
        format!("topic {}", entry.topic_id)
    } else {
        entry.message.clone()
    }
}

fn show(kept: &Kept, config: &Config) -> ExitCode {
    let entry = &kept.entry;
    let mut text = format!(
        "id        {}\ntime      {}\nworker    {}\nmessage   {} (topic {}, {})\nkills     {} in a row, the last: {}\nsent again {} times\n",
        entry.id,
        utc(entry.time_ms),
        entry.worker,
        name(entry),
        entry.topic_id,
        entry.encoding,
        entry.kills,
        entry.status,
        kept.reinjected
    );
    let Some(payload) = entry.payload_bytes() else {
        return failure(
            format!("the payload is damaged: id={}", entry.id),
            "",
            EXIT_FAILURE,
        );
    };
    text += &format!("payload   {} bytes\n", payload.len());
    let message = config.contracts.by_id(entry.topic_id);
    let fields = message.filter(|message| {
        mycelium_contracts::hex(&message.layout_digest) == entry.layout_digest
            && message.wire_len == Some(payload.len())
    });
    match fields {
        Some(message) if !message.fields.is_empty() => {
            for field in &message.fields {
                let bytes = &payload[field.offset..][..field.size];
                let label = format!("{} {}", field.name, config.contracts.type_text(field));
                text += &dump(&label, field.offset, bytes);
            }
        }
        _ => text += &dump("", 0, &payload),
    }
    print(&text)
}

/// Bytes in hexadecimal and as text, with their place.
fn dump(label: &str, offset: usize, bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(DUMP_WIDTH).enumerate() {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = line
            .iter()
            .map(|&byte| {
                if (0x20..0x7f).contains(&byte) {
                    char::from(byte)
                } else {
                    '.'
                }
            })
            .collect();
        let label = if number == 0 { label } else { "" };
        text += &format!(
            "  {:>6}  {label:<24}  {:<47}  {shown}\n",
            offset + number * DUMP_WIDTH,
            digits.join(" ")
        );
    }
    text
}

fn reinject(entry: &Entry, config: &Config, store: &Store) -> ExitCode {
    let place = format!("id={} message={}", entry.id, name(entry));
    let refuse = |why: &str, hint: &str| {
        failure(
            format!("record cannot be sent again: {place}: {why}"),
            hint,
            EXIT_FAILURE,
        )
    };
    let Some(payload) = entry.payload_bytes() else {
        return refuse("its payload is damaged", "");
    };
    let layout = config.contracts.by_id(entry.topic_id);
    let layout = layout.map(|message| mycelium_contracts::hex(&message.layout_digest));
    if layout.as_deref() != Some(&entry.layout_digest) {
        return refuse(
            "the bridge's contracts have another layout for its topic by now",
            "mycelium-bridge quarantine show has its bytes",
        );
    }
    let encodings = [
        Encoding::Contract,
        Encoding::MsgPack,
        Encoding::Json,
        Encoding::Raw,
    ];
    let encoding = encodings.into_iter().find(|it| it.name() == entry.encoding);
    let Some(encoding) = encoding else {
        return refuse(
            &format!("its encoding is not known: value={}", entry.encoding),
            "",
        );
    };
    let mut unix = config.listen.iter().map(|endpoint| &endpoint.address);
    let Some(address) = unix.find(|address| matches!(address, Address::Unix(_))) else {
        return refuse(
            "the bridge listens on no UNIX socket",
            "add listen = \"bridge.sock\" to [bridge]",
        );
    };
    let frame = Frame::new(entry.topic_id, &payload).with_encoding(encoding);
    let mut channel = match Channel::connect(&address.to_string(), &ConnectOptions::default()) {
        Ok(channel) => channel,
        Err(error) => return refuse(&error.to_string(), "is the bridge running?"),
    };
    let sent = channel
        .publish_frame(&frame, Some(PUBLISH_TIMEOUT))
        .and_then(|()| channel.close());
    if let Err(error) = sent {
        return refuse(&error.to_string(), "");
    }
    if let Err(error) = store.note_reinjected(entry.id) {
        return failure(
            format!("record was sent again, but that could not be noted: {place}: {error}"),
            "",
            EXIT_FAILURE,
        );
    }
    print(&format!("sent again to every subscriber: {place}\n"))
}

/// A time as `2026-01-31T12:34:56.789Z`.
fn utc(time_ms: u64) -> String {
    let (days, rest) = (time_ms / 86_400_000, time_ms % 86_400_000);
    // Days since the first of March of the year 0, in eras of 400 years (Howard Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1000 % 60,
        rest % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_767_225_599_999), "2025-12-31T23:59:59.999Z");
        assert_eq!(utc(1_772_323_200_001), "2026-03-01T00:00:00.001Z");
    }

    #[test]
    fn bytes_are_shown_with_their_place() {
        let text = dump("symbol String", 8, b"EUR/USD\0and more of it");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("symbol String") && lines[0].ends_with("EUR/USD.and more"));
        assert!(lines[1].trim_start().starts_with("24") && lines[1].ends_with(" of it"));
    }
}
