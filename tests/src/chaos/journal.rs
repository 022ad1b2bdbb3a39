//! What the workers wrote down, process by process.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::has_ended;

/// Length of a record in bytes. It divides a page, so that no record crosses one, and a write is never cut short by SIGKILL.
pub const RECORD_LEN: usize = 32;

/// One frame that a worker got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its topic id; 0 where the worker was told that it missed some.
    pub topic_id: u16,
    /// Its publisher.
    pub publisher: u32,
    /// Its number; where the worker was told that it missed some, how many so far.
    pub sequence: u64,
    /// Its lane.
    pub lane: u32,
    /// CRC-32 of its payload; where the worker was told that it missed some, of which topic.
    pub checksum: u32,
}

impl Entry {
    /// As it stands in a journal.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        record[..8].copy_from_slice(&self.sequence.to_le_bytes());
        record[8..12].copy_from_slice(&self.publisher.to_le_bytes());
        record[12..16].copy_from_slice(&self.lane.to_le_bytes());
        record[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        record[20..22].copy_from_slice(&self.topic_id.to_le_bytes());
        record
    }

    fn parse(record: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("4 bytes"));
        let sequence = u64::from_le_bytes(record[..8].try_into().expect("8 bytes"));
        Self {
            sequence,
            publisher: word(8),
            lane: word(12),
            checksum: word(16),
            topic_id: u16::from_le_bytes([record[20], record[21]]),
        }
    }
}

/// One process of a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// The worker.
    pub worker: String,
    /// Epoch of its link.
    pub epoch: u64,
    /// The process.
    pub pid: u32,
}

/// The journals of all workers.
#[derive(Debug)]
pub struct Journals {
    folder: PathBuf,
    read: HashMap<Writer, u64>,
}

impl Journals {
    /// The journals in a folder, nothing read yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            read: HashMap::new(),
        }
    }

    /// What was written since the last time, each worker's in order. Journals of processes that have ended are removed.
    ///
    /// # Panics
    ///
    /// If a journal cannot be read, or ends in the middle of a record although its process has ended.
    pub fn news(&mut self) -> Vec<(Writer, Vec<Entry>)> {
        let mut writers: Vec<(Writer, PathBuf)> = std::fs::read_dir(&self.folder)
            .expect("the folder of the journals")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| (writer(&path), path))
            .collect();
        writers.sort();
        let mut news = Vec::new();
        for (writer, path) in writers {
            // Asked before it is read, so that nothing is added behind what is read then.
            let ended = has_ended(writer.pid);
            let read = self.read.entry(writer.clone()).or_default();
            let file = File::open(&path).expect("a journal");
            let length = file.metadata().expect("its length").len();
            let mut bytes = vec![0; (length - *read) as usize];
            file.read_exact_at(&mut bytes, *read)
                .expect("what was written");
            let whole = bytes.len() / RECORD_LEN * RECORD_LEN;
            assert!(whole == bytes.len() || !ended, "half a record: {writer:?}");
            *read += whole as u64;
            if ended {
                self.read.remove(&writer);
                std::fs::remove_file(&path).expect("remove a journal");
            }
            let entries: Vec<_> = bytes[..whole]
                .chunks_exact(RECORD_LEN)
                .map(Entry::parse)
                .collect();
            if !entries.is_empty() {
                news.push((writer, entries));
            }
        }
        news
    }
}

/// `worker.epoch.pid`.
fn writer(path: &std::path::Path) -> Writer {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let mut parts = name.split('.');
    let mut next = || parts.next().expect("three parts");
    Writer {
        worker: next().to_owned(),
        epoch: next().parse().expect("a number"),
        pid: next().parse().expect("a number"),
    }
}
