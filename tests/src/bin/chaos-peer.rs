//! The programs in Rust of the scenario of random faults: a worker, and a client beside the workers. Their twins are
//! `tests/src/chaos/worker.py` and `client.py`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mycelium_messages::message::DynamicMessage;
use mycelium_tests::WATCHDOG;
use mycelium_tests::chaos::crowd::FRAMES;
use mycelium_tests::chaos::frames::{Publisher, checksum};
use mycelium_tests::chaos::journal::Entry;
use mycelium_tests::chaos::messages::{CONTRACTS, Order, Trade};
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["worker", folder] => work(Path::new(folder)),
        [
            "client",
            address,
            name,
            publisher,
            role,
            transport,
            token,
            journal,
            _,
        ] => {
            let mut options = ConnectOptions::for_contracts(&CONTRACTS).named(name);
            token.clone_into(&mut options.token);
            options.timeout = WATCHDOG;
            if transport == "socket" {
                options.transport = TransportRequest::Socket;
            }
            let channel = Channel::connect(address, &options);
            let channel = channel.unwrap_or_else(|error| panic!("{error}"));
            let publisher = publisher.parse().expect("a number");
            visit(
                channel,
                publisher,
                role == "publish",
                open(Path::new(journal)),
            );
        }
        _ => panic!("'worker' with one argument, or 'client' with eight: {words:?}"),
    }
}

fn open(journal: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(journal).expect("open the journal")
}

/// Writes down every frame that came, before it goes on to the next one.
fn work(folder: &Path) {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let address = format!("fd:{}", variable("MYCELIUM_FD"));
    let options = ConnectOptions::for_contracts(&CONTRACTS).named(&variable("MYCELIUM_WORKER"));
    let mut channel =
        Channel::connect(&address, &options).unwrap_or_else(|error| panic!("{error}"));
    let pid = std::process::id();
    let name = format!("{}.{:08}.{pid}", channel.name(), channel.epoch());
    let mut journal = open(&folder.join("journal").join(name));
    while let Ok(frame) = channel.recv(None) {
        let bytes = frame.to_vec();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let topic_id = frame.topic_id();
        let entry = Entry {
            topic_id,
            publisher: word(0),
            sequence: u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes")),
            lane: if topic_id == <Order as DynamicMessage>::TOPIC_ID {
                0
            } else {
                word(4)
            },
            checksum: checksum(&bytes),
        };
        let record = entry.to_bytes();
        // One call, as a SIGKILL between two would leave half a record.
        let written = journal.write(&record).expect("write the journal");
        assert_eq!(written, record.len());
    }
    // The bridge has asked for the end, or is gone.
    let _ = channel.close();
}

/// Publishes orders or subscribes to what there is. Writes eight bytes when that has begun, and when it publishes, eight more
/// for each frame that was taken.
fn visit(mut channel: Channel, publisher: u32, publishes: bool, mut journal: File) {
    if publishes {
        channel.advertise_dynamic::<Order>().expect("advertise");
        journal.write_all(&[0; 8]).expect("write the journal");
        let mut publisher = Publisher::new(publisher, 0, channel);
        while publisher.published < FRAMES {
            assert!(publisher.publish(0, WATCHDOG), "room within the watchdog");
            let word = publisher.published.to_le_bytes();
            journal.write_all(&word).expect("write the journal");
        }
        channel = publisher.channel;
    } else {
        channel.subscribe_dynamic::<Order>().expect("subscribe");
        channel.subscribe::<Trade>().expect("subscribe");
        journal.write_all(&[0; 8]).expect("write the journal");
    }
    while channel.recv(None).is_ok() {}
}
