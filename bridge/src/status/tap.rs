//! Messages of one topic for somebody who looks: a link of its own that drops the oldest, so that nobody waits for the reader.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mycelium_contracts::{Delivery, Message};
use mycelium_messages::layout::{
    FRAME_ALIGN, FRAME_HEADER_LEN, RING_CAPACITY_MIN, RING_RECORD_DIVISOR,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use shm_transport::error::ChannelError;
use shm_transport::wakeup::WaitStrategy;

use super::Source;
use super::decode::{Form, line};
use crate::config::closest_first;
use crate::local::LocalChannel;

/// Smallest ring of a tap, in bytes; one that takes the largest message is used where that is more.
const RING_CAPACITY: usize = 1 << 18;
/// How often a tap without messages looks whether its reader is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Numbers the taps of this process, for the names of their links.
static TAPS: AtomicU64 = AtomicU64::new(1);

/// A tap that has begun: frames wait for it.
pub(super) struct Tap {
    channel: LocalChannel,
    source: Source,
    message: Message,
    form: Form,
}

impl Tap {
    /// Subscribes to the topic of a message, by the message's name. An error is the answer.
    pub(super) fn open(source: &Source, name: &str, form: Form) -> Result<Self, Value> {
        let contracts = source.registry.contracts();
        let Some(message) = contracts.by_name(name) else {
            let names = contracts.messages().map(|it| &*it.name);
            let known = closest_first(name, names);
            let error = format!("no such message: name={name}, known={}", known.join(","));
            return Err(json!({ "error": error, "known": known }));
        };
        // A frame that does not fit would count against its publisher.
        let record = (FRAME_HEADER_LEN + message.max_size).next_multiple_of(FRAME_ALIGN);
        let capacity = (record * RING_RECORD_DIVISOR).next_power_of_two();
        let channel = LocalChannel::open(
            &format!("tap-{}", TAPS.fetch_add(1, Ordering::Relaxed)),
            capacity.max(RING_CAPACITY).max(RING_CAPACITY_MIN),
            WaitStrategy::Park,
            source.registry.plane().clone(),
            source.registry.clone(),
        );
        let failed = |error: &dyn Display| json!({ "error": error.to_string() });
        let channel = channel.map_err(|error| failed(&error))?;
        let subscribed = channel.subscribe_topic(message.topic_id, Delivery::DropOldest);
        subscribed.map_err(|error| failed(&error))?;
        Ok(Self {
            channel,
            source: source.clone(),
            message: message.clone(),
            form,
        })
    }

    /// Writes a line for each message until the reader goes or the bridge stops. Blocks the thread, but no link: what the
    /// reader does not take is left out and counted.
    pub(super) fn run(mut self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let (mut unsent, mut skipped, mut told) = (Vec::new(), 0, 0);
        loop {
            let missed = self.channel.missed() + skipped;
            match self.channel.recv(Some(LOOK_EVERY)) {
                Ok(frame) => {
                    send(&mut stream, &mut unsent)?;
                    if !unsent.is_empty() {
                        skipped += 1;
                        continue;
                    }
                    if missed > told && self.form == Form::Text {
                        unsent = format!("-- {} missed --\n", missed - told).into_bytes();
                        told = missed;
                    }
                    let encoding = frame.header().encoding();
                    let contracts = self.source.registry.contracts();
                    let payload = frame.to_vec();
                    let message = &self.message;
                    let line = line(self.form, contracts, message, encoding, &payload, missed);
                    unsent.extend_from_slice(line.as_bytes());
                    unsent.push(b'\n');
                }
                Err(ChannelError::TimedOut { .. }) => {}
                Err(ChannelError::Closed { .. }) => return Ok(()),
                Err(error) => return Err(io::Error::other(error)),
            }
            send(&mut stream, &mut unsent)?;
            if is_gone(&stream)? {
                return Ok(());
            }
        }
    }
}

/// Sends as much as goes without waiting.
fn send(stream: &mut UnixStream, unsent: &mut Vec<u8>) -> io::Result<()> {
    while !unsent.is_empty() {
        match stream.write(unsent) {
            Ok(count) => drop(unsent.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLHUP)];
    Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
}
