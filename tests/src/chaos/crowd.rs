//! Clients beside the workers: programs that are killed, channels that vanish, and connections that break the rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mycelium_messages::Message;
use mycelium_messages::control::Welcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};
use shm_transport::error::HandshakeError;
use shm_transport::frame::{Encoding, FrameHeader};

use super::faults::{ClientKind, Hostility, SLOTS, Way};
use super::frames::{Publisher, TOPIC_IDS, payload};
use super::messages::{CONTRACTS, Order};
use super::site::Site;
use crate::{TOKEN, WATCHDOG, python, repository, wait_until};

/// Orders that a client program publishes at most.
pub const FRAMES: u64 = 64;

/// How many frames of a publisher that is gone must have been delivered at least, and can have been at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Its number.
    pub id: u32,
    /// So many frames were taken for certain.
    pub least: u64,
    /// More were never published.
    pub most: u64,
}

#[derive(Debug)]
struct Client {
    child: Child,
    id: u32,
    kind: ClientKind,
    journal: PathBuf,
}

/// All clients of a run.
#[derive(Debug)]
pub struct Crowd {
    address: String,
    port: String,
    folder: PathBuf,
    rust: PathBuf,
    slots: [Option<Client>; SLOTS],
    last_id: u32,
}

impl Crowd {
    /// No clients yet. `rust` is the program of those in Rust.
    #[must_use]
    pub fn new(site: &mut Site, rust: PathBuf) -> Self {
        Self {
            address: site.address(),
            port: site.port(),
            folder: site.path().to_owned(),
            rust,
            slots: [const { None }; SLOTS],
            // The lower ones belong to the run itself.
            last_id: 100,
        }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn options(&self, name: &str, way: Way) -> ConnectOptions {
        let mut options = ConnectOptions::for_contracts(&CONTRACTS).named(name);
        options.timeout = WATCHDOG;
        match way {
            Way::Any => {}
            Way::Socket => options.transport = TransportRequest::Socket,
            Way::Tcp => TOKEN.clone_into(&mut options.token),
        }
        options
    }

    fn address(&self, way: Way) -> &str {
        match way {
            Way::Any | Way::Socket => &self.address,
            Way::Tcp => &self.port,
        }
    }

    /// A channel of the run itself.
    ///
    /// # Panics
    ///
    /// If the bridge does not take it.
    #[must_use]
    pub fn connect(&self, name: &str, way: Way) -> Channel {
        let channel = Channel::connect(self.address(way), &self.options(name, way));
        channel.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Puts a client program into a slot, where there is none.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn enter(&mut self, slot: usize, kind: ClientKind) {
        let id = self.next_id();
        let journal = self.folder.join(format!("client-{id}"));
        let mut command = if kind.python {
            let mut command = Command::new(python());
            command.arg(self.folder.join("client.py"));
            command
        } else {
            let mut command = Command::new(&self.rust);
            command.arg("client");
            command
        };
        let (transport, token) = match kind.way {
            Way::Any => ("auto", ""),
            Way::Socket => ("socket", ""),
            Way::Tcp => ("auto", TOKEN),
        };
        let role = if kind.publishes {
            "publish"
        } else {
            "subscribe"
        };
        command.args([self.address(kind.way), &format!("client-{id}")]);
        command.args([&id.to_string(), role, transport, token]);
        command
            .arg(&journal)
            .arg(repository().join("tests/contracts"));
        let errors = std::fs::File::create(self.folder.join(format!("client-{id}.err")));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.expect("a file for what it says"));
        let child = command.spawn().expect("start a client");
        self.slots[slot] = Some(Client {
            child,
            id,
            kind,
            journal,
        });
    }

    /// Kills the client in a slot once it is connected; stopped before, and with `meanwhile` in between, if `frozen`. Says
    /// what it must have published, if it published.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn kill(&mut self, slot: usize, frozen: bool, meanwhile: impl FnOnce()) -> Option<Gone> {
        let mut client = self.slots[slot].take()?;
        let errors = self.folder.join(format!("client-{}.err", client.id));
        let length = |journal| std::fs::metadata(journal).map_or(0, |data| data.len());
        wait_until("a client that is connected", || {
            let ended = client.child.try_wait().expect("ask for the client");
            let words = || std::fs::read_to_string(&errors).unwrap_or_default();
            assert!(ended.is_none(), "{:?} {ended:?}: {}", client.kind, words());
            length(&client.journal) >= 8
        });
        if frozen {
            let pid = Pid::from_raw(client.child.id().cast_signed());
            kill(pid, Signal::SIGSTOP).expect("it is there until it is waited for");
            meanwhile();
        }
        client.child.kill().expect("it has not been waited for");
        client.child.wait().expect("its end");
        let taken = length(&client.journal) / 8 - 1;
        for file in [&client.journal, &errors] {
            std::fs::remove_file(file).expect("it was there");
        }
        let least = match client.kind.way {
            Way::Any if crate::expected_transport() == Transport::Shm => taken,
            // A part of the last one may have waited in the program.
            Way::Any | Way::Socket => taken.saturating_sub(1),
            // The host of the program forgets what it has not sent.
            Way::Tcp => 0,
        };
        client.kind.publishes.then_some(Gone {
            id: client.id,
            least,
            most: FRAMES,
        })
    }

    /// Kills all clients.
    pub fn leave(&mut self) -> Vec<Gone> {
        (0..SLOTS)
            .filter_map(|slot| self.kill(slot, false, || {}))
            .collect()
    }

    /// A client that publishes and is gone without a goodbye.
    pub fn vanish(&mut self, way: Way, frames: u64) -> Gone {
        let id = self.next_id();
        let channel = self.connect(&format!("vanishing-{id}"), way);
        let mut publisher = Publisher::new(id, 0, channel);
        publisher.burst(frames);
        gone(&publisher)
    }

    /// The same over a socket, with the first bytes of another frame at the end.
    ///
    /// # Panics
    ///
    /// If the bridge does not take it.
    pub fn torn(&mut self, frames: u64, bytes: u64) -> Gone {
        let id = self.next_id();
        let (channel, mut stream) = self.raw(&format!("torn-{id}"));
        let mut publisher = Publisher::new(id, 0, channel);
        publisher.burst(frames);
        let next = payload(0, id, 0, publisher.published + 1);
        let header = FrameHeader::new(TOPIC_IDS[0], next.len() as u32);
        let mut record = header.with_encoding(Encoding::Raw).to_bytes().to_vec();
        record.extend(&next);
        if !publisher.was_full {
            let part = (bytes as usize).min(record.len() - 1);
            stream
                .write_all(&record[..part])
                .expect("room in the socket");
        }
        gone(&publisher)
    }

    /// A channel over the socket, and the socket itself.
    fn raw(&self, name: &str) -> (Channel, UnixStream) {
        let path = self.address.strip_prefix("unix:").expect("a UNIX socket");
        let stream = UnixStream::connect(path).expect("the bridge listens");
        let same = stream.try_clone().expect("the same socket");
        let mut channel = Channel::from_stream(same, &self.options(name, Way::Socket))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        channel.advertise_dynamic::<Order>().expect("advertise");
        (channel, stream)
    }

    /// Somebody breaks the rules.
    ///
    /// # Panics
    ///
    /// If the bridge lets it pass.
    pub fn hostile(&mut self, hostility: Hostility) {
        let id = self.next_id();
        let name = format!("hostile-{id}");
        let path = self.address.strip_prefix("unix:").expect("a UNIX socket");
        let connect = || UnixStream::connect(path).expect("the bridge listens");
        match hostility {
            Hostility::Silence => drop(connect()),
            Hostility::Garbage => until_closed(connect(), &[0xFF; 64]),
            Hostility::HalfHello => {
                let header = FrameHeader::new(1, 200).to_bytes();
                connect()
                    .write_all(&header)
                    .expect("the first bytes are taken");
            }
            Hostility::TakenName => {
                let refused = Channel::connect(&self.address, &self.options("calm", Way::Any));
                assert_refused(refused);
            }
            Hostility::WrongToken => {
                let mut options = self.options(&name, Way::Tcp);
                options.token.make_ascii_uppercase();
                assert_refused(Channel::connect(&self.port, &options));
                drop(TcpStream::connect(&self.port["tcp:".len()..]));
            }
            Hostility::Oversized => {
                let (_channel, stream) = self.raw(&name);
                until_closed(stream, &FrameHeader::new(TOPIC_IDS[0], u32::MAX).to_bytes());
            }
            Hostility::WrongControl => {
                let (_channel, stream) = self.raw(&name);
                let length = size_of::<Welcome>();
                let mut record = FrameHeader::new(Welcome::TOPIC_ID, length as u32)
                    .to_bytes()
                    .to_vec();
                record.extend(vec![0; length]);
                until_closed(stream, &record);
            }
        }
    }
}

fn gone(publisher: &Publisher) -> Gone {
    let shm = publisher.channel.transport() == Transport::Shm;
    let pending = u64::from(publisher.was_full && !shm);
    Gone {
        id: publisher.id,
        least: publisher.published.saturating_sub(pending),
        most: publisher.published,
    }
}

fn assert_refused(result: Result<Channel, HandshakeError>) {
    let error = result.expect_err("the bridge is to refuse it");
    assert!(matches!(error, HandshakeError::Refused { .. }), "{error}");
}

/// Sends bytes, and waits until the bridge closes.
fn until_closed(mut stream: UnixStream, bytes: &[u8]) {
    stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(WATCHDOG)))
        .expect("a time limit");
    stream
        .write_all(bytes)
        .expect("the socket takes a few bytes");
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the bridge does not close: {error}"),
        }
    }
}
