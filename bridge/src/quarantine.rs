//! Records that kept killing their worker, in a file that can be looked at: `quarantine.jsonl` in the state directory.
//!
//! One JSON object per line, only ever appended, each line synced before the record leaves its ring. A line that was torn by
//! a crash is passed over. Two kinds of lines: an [`Entry`], and `{"reinjected": ID, "time_ms": …}` once it was sent again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// A record that was moved aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the file, from 1.
    pub id: u64,
    /// When, in milliseconds since 1970 in UTC.
    pub time_ms: u64,
    /// The worker that it killed.
    pub worker: String,
    /// Its topic.
    pub topic_id: u16,
    /// Name of the message; empty if the contracts do not know the topic.
    pub message: String,
    /// How the payload is written: `contract`, `msgpack`, `json` or `raw`.
    pub encoding: String,
    /// Digest of the message's layout in the bridge's contracts, in hexadecimal.
    pub layout_digest: String,
    /// So many processes in a row died over it.
    pub kills: u32,
    /// How the last of them ended.
    pub status: String,
    /// The payload, in hexadecimal.
    pub payload: String,
}

impl Entry {
    /// The bytes of the payload; `None` if somebody has damaged them.
    #[must_use]
    pub fn payload_bytes(&self) -> Option<Vec<u8>> {
        let digits = self.payload.as_bytes();
        let pairs = digits.chunks(2).map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|it| it.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        });
        pairs.collect()
    }
}

/// The line that says that an entry was sent again.
#[derive(Debug, Serialize, Deserialize)]
struct Reinjected {
    reinjected: u64,
    time_ms: u64,
}

/// The file of the records that were moved aside.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

/// An entry of the file, and how often it was sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The entry.
    pub entry: Entry,
    /// How often it was sent again.
    pub reinjected: u64,
}

impl Store {
    /// The file in this state directory. Nothing is made before there is something to keep.
    #[must_use]
    pub fn at(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("quarantine.jsonl"),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry, gives it its number and time, and syncs the file. Blocks for the time of that.
    ///
    /// # Errors
    ///
    /// What the system says; nothing is kept then.
    pub fn append(&self, mut entry: Entry) -> io::Result<u64> {
        let mut file = self.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let ids = parse(&text).into_iter().map(|kept| kept.entry.id);
        entry.id = ids.max().unwrap_or(0) + 1;
        entry.time_ms = now_ms();
        write_line(&mut file, &text, &entry)?;
        Ok(entry.id)
    }

    /// Notes that an entry was sent again.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn note_reinjected(&self, id: u64) -> io::Result<()> {
        let mut file = self.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let line = Reinjected {
            reinjected: id,
            time_ms: now_ms(),
        };
        write_line(&mut file, &text, &line)
    }

    /// All entries, oldest first. A file that is not there has none.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Opens the file for one writer at a time.
    fn lock(&self) -> io::Result<Flock<File>> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&self.path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
}

/// Appends one line, on a line of its own even behind a torn one.
fn write_line(file: &mut File, before: &str, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = Vec::new();
    if !before.is_empty() && !before.ends_with('\n') {
        bytes.push(b'\n');
    }
    serde_json::to_writer(&mut bytes, line)?;
    bytes.push(b'\n');
    file.seek(SeekFrom::End(0))?;
    file.write_all(&bytes)?;
    file.sync_data()
}

fn parse(text: &str) -> Vec<Kept> {
    let mut found: Vec<Kept> = Vec::new();
    for line in text.lines() {
        if let Ok(entry) = serde_json::from_str::<Entry>(line) {
            found.push(Kept {
                entry,
                reinjected: 0,
            });
        } else if let Ok(line) = serde_json::from_str::<Reinjected>(line) {
            let mut entries = found.iter_mut();
            if let Some(kept) = entries.find(|kept| kept.entry.id == line.reinjected) {
                kept.reinjected += 1;
            }
        }
    }
    found
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(payload: &str) -> Entry {
        Entry {
            id: 0,
            time_ms: 0,
            worker: "momentum".into(),
            topic_id: 1001,
            message: "Quote".into(),
            encoding: "contract".into(),
            layout_digest: "00ff".into(),
            kills: 3,
            status: "signal: 11".into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn what_is_kept_can_be_read_again_and_by_nobody_else() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::at(&directory.path().join("state"));
        assert_eq!(store.list().expect("no file yet"), []);
        assert_eq!(store.append(entry("00a0")).expect("appended"), 1);
        assert_eq!(store.append(entry("")).expect("appended"), 2);
        store.note_reinjected(1).expect("noted");
        let kept = store.list().expect("readable");
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].reinjected, kept[1].reinjected), (1, 0));
        assert_eq!(kept[0].entry.payload_bytes(), Some(vec![0, 0xA0]));
        assert_eq!(kept[1].entry.payload_bytes(), Some(Vec::new()));
        assert!(kept[0].entry.time_ms > 1_600_000_000_000);
        let mode = store.path().metadata().expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_line_costs_that_line_only() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::at(directory.path());
        store.append(entry("01")).expect("appended");
        let mut file = OpenOptions::new()
            .append(true)
            .open(store.path())
            .expect("file");
        file.write_all(b"{\"id\": 2, \"time").expect("written");
        assert_eq!(store.append(entry("02")).expect("appended"), 2);
        let payloads: Vec<_> = store
            .list()
            .expect("readable")
            .into_iter()
            .map(|it| it.entry.payload)
            .collect();
        assert_eq!(payloads, ["01", "02"]);
    }

    #[test]
    fn a_damaged_payload_is_told_from_an_empty_one() {
        for damaged in ["0", "0x", "zz", "000"] {
            assert_eq!(entry(damaged).payload_bytes(), None, "{damaged}");
        }
    }
}
