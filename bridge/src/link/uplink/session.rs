//! The movement of frames between the rings of an uplink and its connection.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shm_transport::channel::LinkEnds;
use shm_transport::error::{Corrupt, ReserveError};
use shm_transport::frame::Encoding;
use shm_transport::ring::{Consumer, Frame, Producer};
use shm_transport::wakeup::{Doorbell, heavy_fence};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::status::Board;
use super::wire::{Incoming, Next, Outgoing};
use crate::config::UPLINK_PAYLOAD_MAX;
use crate::link::session::watch;

/// How long nothing is exported on a new connection, unless the bus speaks before: one that does not like the handshake
/// closes, and what was sent to it would be lost.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);
/// How long a connection that was ended is read from for its end, so that what the bus sends does not reset it.
const LINGER: Duration = Duration::from_millis(500);
/// Rounds in a row, while they bring something, before others have their turn.
const TURNS_MAX: usize = 16;

/// A connection to a bus.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read(buffer),
            Self::Tcp(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.ready(interest).await.map(drop),
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes).await,
            Self::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    /// Says that nothing more is sent, and waits until the bus has taken that in, or for a while.
    async fn finish(&mut self) {
        let done = match self {
            Self::Unix(stream) => stream.shutdown().await,
            Self::Tcp(stream) => stream.shutdown().await,
        };
        let closed = async {
            let mut rest = [0; 4096];
            while self.ready(Interest::READABLE).await.is_ok() {
                match self.try_read(&mut rest) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        };
        if done.is_ok() {
            // A bus that stays has all the same been sent everything.
            let _ = tokio::time::timeout(LINGER, closed).await;
        }
    }
}

/// A message that comes from the bus.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) payload_len: RangeInclusive<usize>,
    pub(super) encoding: Encoding,
    /// Whether a wrong size was said in the log.
    pub(super) warned: bool,
}

/// Why frames cannot flow any more on a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Everything is sent, and nothing more comes.
    #[error("everything is sent")]
    Finished,
    /// The configuration wants another connection.
    #[error("the configuration was reloaded")]
    Reconfigured,
    /// The bus has closed it.
    #[error("the bus closed the connection: bytes_received={received}, frames_sent={sent}")]
    HangUp { received: u64, sent: u64 },
    /// The bus sent what no frame can be.
    #[error(
        "frame from the bus is too large: type_id={type_id} payload_len={len} max={UPLINK_PAYLOAD_MAX}; the stream is out of \
         step, or the other side is no Mycelium bus"
    )]
    TooLarge { type_id: u16, len: usize },
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// Memory of this process was overwritten.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The uplink's side of its rings, with what is on its way. Outlives connections.
pub(super) struct Mover {
    consumer: Consumer,
    producer: Producer,
    doorbell: AsyncFd<Doorbell>,
    router: Doorbell,
    outgoing: Outgoing,
    incoming: Incoming,
    imports: HashMap<u16, Import>,
    max_payload: usize,
    /// Topics that were exported once and are no longer; what waits of them is not for the bus any more.
    withdrawn: HashSet<u16>,
    board: Arc<Board>,
}

/// One connection's stay.
pub(super) struct Talk {
    /// Until when nothing is exported.
    hold: Option<Instant>,
    /// Bytes that came.
    received: u64,
    /// Frames that had been handed to connections before this one.
    sent_before: u64,
}

impl Mover {
    pub(super) fn new(
        ends: LinkEnds,
        imports: HashMap<u16, Import>,
        max_payload: usize,
        board: Arc<Board>,
    ) -> io::Result<Self> {
        let (consumer, producer, doorbell, router) = ends.into_parts();
        Ok(Self {
            incoming: Incoming::new(producer.max_payload()),
            doorbell: watch(doorbell, Interest::READABLE)?,
            consumer,
            producer,
            router,
            outgoing: Outgoing::default(),
            imports,
            max_payload,
            withdrawn: HashSet::new(),
            board,
        })
    }

    /// Other messages and another limit from here on. Frames of `withdrawn` that are still in the ring are dropped.
    pub(super) fn reconfigure(
        &mut self,
        imports: HashMap<u16, Import>,
        max_payload: usize,
        exported: &[u16],
        withdrawn: Vec<u16>,
    ) {
        self.imports = imports;
        self.max_payload = max_payload;
        self.withdrawn.extend(withdrawn);
        self.withdrawn
            .retain(|topic_id| !exported.contains(topic_id));
    }

    /// Prepares for a new connection.
    pub(super) fn begin(&mut self) -> Talk {
        self.outgoing.rewind();
        self.incoming.clear();
        Talk {
            hold: Some(Instant::now() + HANDSHAKE_GRACE),
            received: 0,
            sent_before: self.board.exported.load(Relaxed),
        }
    }

    /// Whether something is left that is to go to the bus.
    pub(super) fn is_empty(&self) -> bool {
        self.consumer.is_empty() && self.outgoing.unsent().is_empty()
    }

    /// What is left: frames that were taken from the ring, and bytes in it.
    pub(super) fn left(&self) -> (usize, usize) {
        (self.outgoing.frames(), self.consumer.occupancy())
    }

    /// Moves frames both ways until the connection ends. Once `drained` has come to its end no more is published, and
    /// what is left is sent. May be dropped, and called again for the same connection.
    pub(super) async fn serve(
        &mut self,
        stream: &mut Stream,
        talk: &mut Talk,
        drained: &mut (impl Future<Output = ()> + Unpin),
        is_last: &mut bool,
    ) -> End {
        match self.serve_until(stream, talk, drained, is_last).await {
            Ok(()) => {
                stream.finish().await;
                End::Finished
            }
            Err(end) => end,
        }
    }

    async fn serve_until(
        &mut self,
        stream: &Stream,
        talk: &mut Talk,
        drained: &mut (impl Future<Output = ()> + Unpin),
        is_last: &mut bool,
    ) -> Result<(), End> {
        let mut turns = 0;
        loop {
            let is_quiet = talk.received == 0;
            talk.hold = talk
                .hold
                .filter(|until| is_quiet && Instant::now() < *until);
            let hold = talk.hold;
            let wrote = hold.is_none() && self.send(stream)?;
            let blocked = self.take()?;
            let mut read = 0;
            if blocked.is_none() {
                read = match stream.try_read(self.incoming.room()) {
                    Ok(0) => {
                        let sent = self.board.exported.load(Relaxed) - talk.sent_before;
                        let received = talk.received;
                        return Err(End::HangUp { received, sent });
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error.into()),
                };
                self.incoming.received(read);
                talk.received += read as u64;
            }
            self.wake_router();
            if *is_last && self.is_empty() {
                return Ok(());
            }
            if wrote || read > 0 {
                turns += 1;
                if turns % TURNS_MAX == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            turns = 0;
            let full = !self.outgoing.unsent().is_empty() && hold.is_none();
            let wants_frames = !full && hold.is_none();
            if self.may_sleep(wants_frames, blocked)? {
                let wait = self.wait(stream, full, blocked.is_none(), hold);
                tokio::select! {
                    outcome = wait => outcome?,
                    () = &mut *drained, if !*is_last => *is_last = true,
                }
            }
            self.consumer.disarm();
            self.producer.disarm_room();
        }
    }

    /// Sends what there is as far as the socket takes it; says whether it took anything.
    fn send(&mut self, stream: &Stream) -> Result<bool, End> {
        while self.outgoing.has_room()
            && let Some(frame) = self.consumer.peek()?
        {
            if self.withdrawn.contains(&frame.topic_id()) {
                if count(&self.board.withdrawn) == 0 {
                    let (name, type_id) = (&self.board.status().name, frame.topic_id());
                    tracing::warn!(
                        uplink = name,
                        type_id,
                        "frame waited for the bus, and its topic is exported no longer; it is dropped, and further ones are only counted"
                    );
                }
            } else if frame.payload_len() > self.max_payload {
                let (type_id, len) = (frame.topic_id(), frame.payload_len());
                if count(&self.board.too_large) == 0 {
                    let (name, max) = (&self.board.status().name, self.max_payload);
                    tracing::warn!(
                        uplink = name,
                        type_id,
                        payload_len = len,
                        max_payload = max,
                        "frame is too large for the bus and dropped; further ones are only counted"
                    );
                }
            } else {
                self.outgoing.push(&frame);
            }
            self.consumer.advance();
        }
        if self.outgoing.unsent().is_empty() {
            return Ok(false);
        }
        match stream.try_write(self.outgoing.unsent()) {
            Ok(taken) => {
                let before = self.outgoing.frames();
                self.outgoing.took(taken);
                let whole = before - self.outgoing.frames();
                self.board.exported.fetch_add(whole as u64, Relaxed);
                Ok(taken > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes what has come. Returns the payload length of a frame that waits for room in the ring.
    fn take(&mut self) -> Result<Option<usize>, End> {
        loop {
            let (type_id, len, payload) = match self.incoming.peek() {
                Next::Incomplete => return Ok(None),
                Next::Header(type_id, len) => (type_id, len, None),
                Next::Frame(type_id, payload) => (type_id, payload.len(), Some(payload)),
            };
            if len > UPLINK_PAYLOAD_MAX {
                return Err(End::TooLarge { type_id, len });
            }
            match self.imports.get_mut(&type_id) {
                None => drop(count(&self.board.ignored)),
                Some(import) if !import.payload_len.contains(&len) => {
                    count(&self.board.wrong_size);
                    if !std::mem::replace(&mut import.warned, true) {
                        let (name, expected) = (&self.board.status().name, &import.payload_len);
                        tracing::warn!(
                            uplink = name,
                            message = import.name,
                            type_id,
                            ?expected,
                            actual = len,
                            "frame from the bus has the wrong size and is dropped; further ones are only counted"
                        );
                    }
                }
                Some(import) => {
                    let Some(payload) = payload else {
                        return Ok(None);
                    };
                    let frame = Frame::new(type_id, payload).with_encoding(import.encoding);
                    match self.producer.try_forward(&frame) {
                        Ok(()) => drop(count(&self.board.imported)),
                        Err(ReserveError::Full { .. }) => return Ok(Some(len)),
                        Err(ReserveError::Corrupt(corrupt)) => return Err(corrupt.into()),
                        // The configuration has seen to it that what has a legal size fits.
                        Err(ReserveError::TooLarge { .. } | ReserveError::ReservedTopic { .. }) => {
                            count(&self.board.wrong_size);
                        }
                    }
                }
            }
            self.incoming.skip();
        }
    }

    fn wake_router(&mut self) {
        if self.producer.wakeup_due() | self.consumer.wakeup_due() {
            // A doorbell that cannot be rung belongs to a data plane that is gone.
            let _ = self.router.notify();
        }
    }

    /// Asks the router to ring, and looks again: whether there is still nothing to do.
    fn may_sleep(&mut self, wants_frames: bool, blocked: Option<usize>) -> Result<bool, Corrupt> {
        if wants_frames {
            self.consumer.arm();
        }
        if blocked.is_some() {
            // What was read is room that the router may wait for; two sides must not wait for each other.
            self.consumer.publish_head();
            self.producer.arm_room();
        }
        self.wake_router();
        // SYNC: heavy fence (here) ↔ light fence (wakeup_due of the router's producer and consumer).
        heavy_fence();
        let has_frames = wants_frames && !self.consumer.is_empty();
        let has_room = match blocked {
            Some(payload_len) => self.producer.has_room(payload_len)?,
            None => false,
        };
        Ok(!has_frames && !has_room)
    }

    async fn wait(
        &self,
        stream: &Stream,
        full: bool,
        reads: bool,
        hold: Option<Instant>,
    ) -> Result<(), End> {
        let interest = match (reads, full) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        tokio::select! {
            rung = self.doorbell.readable() => {
                let mut guard = rung?;
                guard.get_inner().drain()?;
                guard.clear_ready();
                Ok(())
            }
            ready = async {
                match interest {
                    Some(interest) => stream.ready(interest).await,
                    None => std::future::pending().await,
                }
            } => Ok(ready?),
            () = async {
                match hold {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => Ok(()),
        }
    }
}

/// Counts one more; returns how many there were before.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Relaxed)
}
