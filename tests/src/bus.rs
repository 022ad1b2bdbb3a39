//! A Mycelium bus for scenarios, written from the bytes of the stream format alone.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::link::UplinkStatus;

use crate::{Place, WATCHDOG, wait_for};

const CONTRACTS: &str = "messages:
  Trade: { tlv_type: 1200, domain: D, fields: { price: { type: u64 }, size: { type: u64 } } }
  Note: { tlv_type: 1201, domain: D, encoding: raw, max_size: 2048 }
";

/// A frame of type 1200 with the numbers 101500 and 2500.
pub const EXAMPLE: [u8; 22] = [
    0xB0, 0x04, 0x10, 0x00, 0x00, 0x00, 0x7C, 0x8C, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0xC4, 0x09,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// The payload of a trade.
#[must_use]
pub fn trade(price: u64, size: u64) -> Vec<u8> {
    [price, size].map(u64::to_le_bytes).concat()
}

/// A frame as the bus has it.
///
/// # Panics
///
/// If the payload is too long for any frame.
#[must_use]
pub fn frame(type_id: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    [&type_id.to_le_bytes()[..], &len.to_le_bytes(), payload].concat()
}

/// The digest of a file, as another program tells it.
///
/// # Panics
///
/// If there is no such program.
#[must_use]
pub fn sha256(path: &Path) -> Vec<u8> {
    let output = Command::new("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    let digits = text.split_whitespace().next().expect("a digest");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..64).step_by(2).map(byte).collect()
}

/// A listening bus.
#[derive(Debug)]
pub struct Bus {
    listener: UnixListener,
    path: PathBuf,
}

impl Bus {
    /// Listens in the directory of the place.
    ///
    /// # Panics
    ///
    /// If it cannot.
    #[must_use]
    pub fn new(place: &Place, name: &str) -> Self {
        let path = place.path().join(name);
        let listener = UnixListener::bind(&path).expect("bind");
        listener.set_nonblocking(true).expect("a socket");
        Self { listener, path }
    }

    /// The table of an uplink to this bus, with further lines.
    #[must_use]
    pub fn table(&self, name: &str, lines: &str) -> String {
        format!(
            "[[uplink]]\nname = '{name}'\naddress = 'unix:{}'\nreconnect_backoff_ms = 1\nreconnect_backoff_max_ms = 20\n{lines}",
            self.path.display()
        )
    }

    /// The next connection, which has said nothing that was read.
    ///
    /// # Panics
    ///
    /// If none comes before the watchdog barks.
    #[must_use]
    pub fn accept(&self) -> UnixStream {
        let accept = || self.listener.accept().ok();
        let (stream, _) = wait_for("a connection of the bridge", accept);
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a socket");
        stream.set_write_timeout(Some(WATCHDOG)).expect("a socket");
        stream
    }

    /// The next connection, after its handshake.
    ///
    /// # Panics
    ///
    /// If none comes before the watchdog barks, or it says another digest.
    #[must_use]
    pub fn greet(&self, place: &Place) -> UnixStream {
        let mut stream = self.accept();
        let said = read(&mut stream, 34);
        assert_eq!(said[..2], [0x20, 0x00], "the length of the digest");
        assert_eq!(
            said[2..],
            sha256(&contracts(place)),
            "the digest of the file"
        );
        stream
    }
}

/// The next bytes of a connection.
///
/// # Panics
///
/// If they do not come.
pub fn read(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the bridge sends it");
    bytes
}

/// The contracts file of the bus.
#[must_use]
pub fn contracts(place: &Place) -> PathBuf {
    place.path().join("bus.yaml")
}

/// A place whose bridge has the contracts of the bus.
///
/// # Panics
///
/// If they cannot be written.
#[must_use]
pub fn place() -> Place {
    let place = Place::new();
    let file = contracts(&place);
    std::fs::write(&file, CONTRACTS).expect("write");
    place.contracts_file(&file)
}

/// What is known of an uplink.
///
/// # Panics
///
/// If there is none of this name.
#[must_use]
pub fn status(bridge: &Bridge, name: &str) -> UplinkStatus {
    let mut uplinks = bridge.uplinks().into_iter();
    uplinks
        .find(|it| it.name == name)
        .expect("it is configured")
}
