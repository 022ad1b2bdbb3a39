//! One peer's stay on a link, after the handshake: control frames, and with a [`Pump`](shm_transport::pump::Pump) all
//! other frames too.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mycelium_messages::control::{
    Ack, Goodbye, LinkError, LinkErrorCode, Shutdown, TopicReplyCode,
};
use mycelium_messages::{InlineString, Message};
use shm_transport::frame::FrameHeader;
use shm_transport::pump::{Pump, Received, Sent};
use shm_transport::ring::Frame;
use shm_transport::wakeup::Doorbell;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::end::{Failure, SessionEnd, failed};
use super::missed::Missed;
use super::topics::{self, Topics};
use super::wire::{Wire, WireError};

/// Bytes of answers that may wait to be sent.
const ANSWERS_MAX: usize = 256 * 1024;
/// Rounds of sending and reading in a row, while both bring something, before others have their turn.
const TURNS_MAX: usize = 16;

/// What the rest of the bridge wants a peer to be told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The bridge is stopping.
    Shutdown { deadline: Duration, reason: String },
    /// A published frame was dropped.
    Rejected {
        topic_id: u16,
        code: TopicReplyCode,
        reason: String,
    },
    /// Frames did not reach the peer.
    Missed,
    /// The peer has ended, and a successor waits for the link.
    Succeeded,
    /// The peer broke a rule; the session ends with this.
    Condemned {
        code: LinkErrorCode,
        message: String,
    },
}

/// What happens to be ready.
enum Ready {
    Socket,
    Doorbell,
    Notice(Notice),
}

/// What a session needs of the rest of the bridge.
pub(crate) struct Surroundings {
    pub(crate) topics: Topics,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    /// Counts the sends and receives of the pump, across the sessions of a link.
    pub(crate) socket_calls: Arc<AtomicU64>,
    pub(crate) missed: Arc<Missed>,
    /// Whether the peer knows the control frame Gap.
    pub(crate) takes_gaps: bool,
}

pub(crate) struct Session {
    topics: Topics,
    notices: mpsc::UnboundedReceiver<Notice>,
    socket_calls: Arc<AtomicU64>,
    /// What of the stream's traffic is in `socket_calls` already.
    counted: u64,
    wire: AsyncFd<Wire>,
    /// Another handle on the pump's doorbell, for the event loop.
    pump_doorbell: Option<AsyncFd<Doorbell>>,
    /// A received frame waits for room in the ring: its payload length, and whether more can be read meanwhile.
    blocked: Option<(usize, bool)>,
    /// The word of the bridge's end, and how much of the ring goes ahead of it: on a socket a peer takes what comes
    /// behind that word for nothing.
    shutdown: Option<(u64, Shutdown)>,
    missed: Arc<Missed>,
    takes_gaps: bool,
    /// The peer is to be told what it misses, once the socket has taken everything before.
    owes_gaps: bool,
    /// The socket takes nothing more; what the peer sent before is still to be read.
    peer_gone: bool,
    /// Nobody may wait here for room in the ring: a successor of the peer waits for the end of the session.
    is_succeeded: bool,
    /// What the peer sent and what found no room in the ring.
    unplaced: Vec<u8>,
}

impl Session {
    pub(crate) fn new(surroundings: Surroundings, wire: Wire) -> io::Result<Self> {
        let Surroundings {
            topics,
            notices,
            socket_calls,
            missed,
            takes_gaps,
        } = surroundings;
        let pump_doorbell = wire
            .pump()
            .map(|pump| watch(pump.doorbell().try_clone()?, Interest::READABLE))
            .transpose()?;
        let wire = watch(wire, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            topics,
            notices,
            socket_calls,
            counted: 0,
            wire,
            pump_doorbell,
            blocked: None,
            shutdown: None,
            missed,
            takes_gaps,
            owes_gaps: takes_gaps,
            peer_gone: false,
            is_succeeded: false,
            unplaced: Vec::new(),
        })
    }

    /// Serves the peer until it leaves, crashes or breaks a rule. Returns how it ended, and the frames that are left for the
    /// successor to begin with.
    pub(crate) async fn run(mut self) -> (SessionEnd, Vec<u8>) {
        let ended = self.serve().await;
        // What the peer sent last is delivered, also if the router sleeps.
        if let Some(pump) = self.wire.get_mut().pump_mut() {
            pump.flush_wakeups();
        }
        let end = match ended {
            Ok(end) => end,
            Err(Failure::End(end)) => end,
            Err(Failure::Violation(code, message)) => self.condemn(code, message),
        };
        (end, self.unplaced)
    }

    async fn serve(&mut self) -> Result<SessionEnd, Failure> {
        // The handshake may have left something in the buffers.
        let mut more = self.handle_received().await?;
        let mut turns = 0;
        loop {
            let sent = self.send()?;
            self.count_calls();
            if let Some(pump) = self.wire.get_mut().pump_mut() {
                pump.flush_wakeups();
            }
            // Going to sleep costs more than one look that finds nothing; but others want their turn, too.
            if (more || sent == Sent::More) && turns < TURNS_MAX {
                turns += 1;
                more = self.handle_received().await?;
                continue;
            }
            turns = 0;
            // A socket that takes no more asks for frames again when it is writable.
            let wants_frames = sent != Sent::StreamFull && !self.peer_gone;
            let blocked = self.blocked.map(|(payload_len, _)| payload_len);
            if let Some(pump) = self.wire.get_mut().pump_mut()
                && !pump.park(wants_frames, blocked)?
            {
                pump.unpark();
                tokio::task::yield_now().await;
                more = self.handle_received().await?;
                continue;
            }
            let ready = self.wait(sent == Sent::StreamFull).await?;
            if let Some(pump) = self.wire.get_ref().pump() {
                pump.unpark();
            }
            if let Ready::Notice(notice) = ready {
                self.pass_on(notice)?;
            }
            more = self.handle_received().await?;
        }
    }

    /// Sends what is queued and, with a pump, what is in the ring.
    fn send(&mut self) -> Result<Sent, Failure> {
        if self.peer_gone {
            return Ok(Sent::All);
        }
        let mut sent = self.wire.get_mut().send()?;
        if let Some((_, shutdown)) = self.shutdown.take_if(|(position, _)| {
            let pump = self.wire.get_ref().pump();
            pump.is_none_or(|pump| pump.has_sent(*position))
        }) {
            self.wire.get_mut().queue_message(&shutdown);
            sent = self.wire.get_mut().send()?;
        }
        // A peer that does not read is told once it does: what is queued for it must not grow with what it misses.
        if self.owes_gaps && self.wire.get_ref().unsent() == 0 {
            self.owes_gaps = false;
            for gap in self.missed.take_untold() {
                self.wire.get_mut().queue_message(&gap);
            }
            sent = self.wire.get_mut().send()?;
        }
        if sent == Sent::HangUp {
            self.peer_gone = true;
        }
        Ok(sent)
    }

    fn count_calls(&mut self) {
        if let Some(pump) = self.wire.get_ref().pump() {
            let traffic = pump.traffic();
            let calls = traffic.sends + traffic.receives;
            self.socket_calls
                .fetch_add(calls - self.counted, Ordering::Relaxed);
            self.counted = calls;
        }
    }

    /// Nothing can be read while a frame waits for room and what may be read ahead has been; the doorbell tells of room.
    fn read_interest(&self) -> Option<Interest> {
        let wants_more = self.blocked.is_none_or(|(_, wants_more)| wants_more);
        wants_more.then_some(Interest::READABLE)
    }

    async fn wait(&mut self, stream_full: bool) -> Result<Ready, Failure> {
        let interest = match (self.read_interest(), stream_full) {
            (Some(read), true) => Some(read | Interest::WRITABLE),
            (read, false) => read,
            (None, true) => Some(Interest::WRITABLE),
        };
        tokio::select! {
            biased;
            Some(notice) = self.notices.recv() => Ok(Ready::Notice(notice)),
            rung = ring(self.pump_doorbell.as_ref()) => {
                rung.map_err(failed)?;
                if let Some(pump) = self.wire.get_ref().pump() {
                    pump.doorbell().drain().map_err(failed)?;
                }
                Ok(Ready::Doorbell)
            }
            ready = socket_ready(&self.wire, interest) => {
                ready.map_err(failed)?;
                Ok(Ready::Socket)
            }
        }
    }

    /// Takes what has arrived, as far as the rings have room, and handles the control frames. Reads once at most, and says
    /// whether that brought something.
    async fn handle_received(&mut self) -> Result<bool, Failure> {
        let mut received = self.receive_if_ready();
        let has_read = matches!(received, Ok(Received::Data));
        loop {
            // What came in front of something bad is handled first.
            while let Some((header, payload)) = self.wire.get_mut().next_frame()? {
                self.on_frame(header, &payload).await?;
                self.check_answers()?;
            }
            self.blocked = None;
            match received? {
                Received::Data => received = self.wire.get_mut().receive(false),
                Received::Nothing => return Ok(has_read),
                Received::Blocked {
                    payload_len,
                    wants_more,
                } => {
                    self.blocked = Some((payload_len, wants_more));
                    self.leave_to_successor().await?;
                    return Ok(has_read);
                }
                Received::HangUp { missing } => {
                    return Err(Failure::End(SessionEnd::HangUp { missing }));
                }
            }
        }
    }

    /// Ends a session that only waits for room, for frames of a peer that is gone, if somebody is there to go on with them: those
    /// that have to make the room may themselves wait for the successor.
    async fn leave_to_successor(&mut self) -> Result<(), Failure> {
        if !self.is_succeeded {
            return Ok(());
        }
        let pump = self.wire.get_mut().pump_mut();
        let Some((unplaced, missing)) = pump.and_then(Pump::take_unplaced) else {
            return Ok(());
        };
        self.unplaced = unplaced;
        while let Some((header, payload)) = self.wire.get_mut().next_frame()? {
            self.on_frame(header, &payload).await?;
        }
        Err(Failure::End(SessionEnd::HangUp { missing }))
    }

    /// Reads once if the stream is known to be readable; goes on with what was read before otherwise.
    fn receive_if_ready(&mut self) -> Result<Received, WireError> {
        let mut received = None;
        let _ = self.wire.try_io_mut(Interest::READABLE, |wire| {
            let outcome = received.insert(wire.receive(true));
            match outcome {
                Ok(
                    Received::Nothing
                    | Received::Blocked {
                        wants_more: true, ..
                    },
                ) => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        received.unwrap_or_else(|| self.wire.get_mut().receive(false))
    }

    async fn on_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Failure> {
        if header.is_control() {
            return self.on_control(header, payload).await;
        }
        let FrameHeader {
            payload_len,
            topic_id,
            ..
        } = header;
        let message = format!(
            "application frame on the control socket of a shared memory link: topic_id={topic_id} \
             payload_len={payload_len}; write it to the ring"
        );
        Err(Failure::Violation(LinkErrorCode::PROTOCOL, message))
    }

    async fn on_control(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Failure> {
        let frame = Frame::new(header.topic_id, payload);
        if let Some(reply) = self.topics.answer(&frame).await? {
            self.wire.get_mut().queue_message(&reply);
            return Ok(());
        }
        match header.topic_id {
            Ack::TOPIC_ID if self.wire.get_ref().pump().is_some() => {
                let ack: Ack = frame.read()?;
                if let Some(pump) = self.wire.get_mut().pump_mut() {
                    pump.acknowledge(ack.bytes)?;
                }
            }
            Goodbye::TOPIC_ID => {
                let goodbye: Goodbye = frame.read()?;
                let reason = goodbye.reason.as_str().unwrap_or_default().to_owned();
                if let Some(pump) = self.wire.get_mut().pump_mut() {
                    pump.flush_wakeups();
                }
                return Err(Failure::End(SessionEnd::Goodbye { reason }));
            }
            topic_id => {
                let message = format!("unexpected control frame: topic_id={topic_id}");
                return Err(Failure::Violation(LinkErrorCode::PROTOCOL, message));
            }
        }
        Ok(())
    }

    /// Answers are sent as far as the socket takes them; a peer that reads none must not make them pile up.
    fn check_answers(&mut self) -> Result<(), Failure> {
        let max = ANSWERS_MAX;
        if self.wire.get_ref().unsent() <= max {
            return Ok(());
        }
        self.send()?;
        let unsent = self.wire.get_ref().unsent();
        if unsent <= max || self.peer_gone {
            return Ok(());
        }
        let message = format!(
            "answers are not read: unsent_bytes={unsent} max={max}; read the socket before asking for more"
        );
        Err(Failure::Violation(LinkErrorCode::PROTOCOL, message))
    }

    fn pass_on(&mut self, notice: Notice) -> Result<(), Failure> {
        match notice {
            Notice::Shutdown { deadline, reason } => {
                let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
                let reason = InlineString::truncated(&reason);
                let shutdown = Shutdown {
                    deadline_ms,
                    reason,
                };
                match self.wire.get_ref().pump() {
                    Some(pump) => self.shutdown = Some((pump.published(), shutdown)),
                    None => self.wire.get_mut().queue_message(&shutdown),
                }
            }
            Notice::Rejected {
                topic_id,
                code,
                reason,
            } => {
                let reply = topics::dropped(topic_id, code, &reason);
                self.wire.get_mut().queue_message(&reply);
            }
            Notice::Missed => self.owes_gaps = self.takes_gaps,
            Notice::Succeeded => {
                self.is_succeeded = true;
                if let Some(pump) = self.wire.get_mut().pump_mut() {
                    pump.expect_end();
                }
            }
            Notice::Condemned { code, message } => return Err(Failure::Violation(code, message)),
        }
        Ok(())
    }

    /// Tells the peer what it did, as far as its socket takes it, and ends the session.
    fn condemn(&mut self, code: LinkErrorCode, message: String) -> SessionEnd {
        let text = InlineString::truncated(&message);
        let error = LinkError {
            code,
            message: text,
        };
        self.wire.get_mut().queue_message(&error);
        // The peer is at fault; if it does not even read, that is its loss.
        let _ = self.wire.get_mut().send();
        SessionEnd::Violation { message }
    }
}

pub(super) fn watch<T: AsRawFd>(io: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `register_with_interest` asks that the descriptor stays open and the same until the `AsyncFd` is dropped.
    // The types that come here, `Wire`, `FrameStream` and `Doorbell`, own their descriptor for their whole life, and the
    // `AsyncFd` owns them.
    Ok(unsafe { AsyncFd::register_with_interest(io, interest) }?)
}

/// Waits for the stream.
async fn socket_ready(wire: &AsyncFd<Wire>, interest: Option<Interest>) -> io::Result<()> {
    let Some(interest) = interest else {
        return std::future::pending().await;
    };
    let mut guard = wire.ready(interest).await?;
    // The caller sends; the readiness comes back if the stream is full again. That for reading stays until a read finds
    // nothing.
    guard.clear_ready_matching(tokio::io::Ready::WRITABLE);
    Ok(())
}

async fn ring(doorbell: Option<&AsyncFd<Doorbell>>) -> io::Result<()> {
    match doorbell {
        Some(doorbell) => {
            doorbell.readable().await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}
