//! One peer's stay on a link, after the handshake: control frames, and with a [`Pump`] all other frames too.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mycelium_contracts::Contracts;
use mycelium_messages::control::{
    Ack, Advertise, Goodbye, LinkError, LinkErrorCode, Shutdown, Subscribe, TopicReply,
    TopicReplyCode, Unsubscribe,
};
use mycelium_messages::{InlineString, Message};
use shm_transport::channel::ContractDifference;
use shm_transport::error::DecodeError;
use shm_transport::frame::FrameHeader;
use shm_transport::ring::Frame;
use shm_transport::socket::{FillOutcome, FrameStream, StreamError};
use shm_transport::wakeup::Doorbell;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::contracts::Verdict;
use super::handshake::hex;
use super::pump::{Pump, PumpError};
use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::routes::LinkId;

/// Bytes of answers that may wait in the send queue, besides application frames.
const ANSWERS_MAX: usize = 256 * 1024;

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
    /// The peer broke a rule; the session ends with this.
    Condemned {
        code: LinkErrorCode,
        message: String,
    },
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The peer said goodbye.
    Goodbye { reason: String },
    /// The peer hung up without a word: it crashed.
    HangUp,
    /// The peer broke a rule and was told so.
    Violation { message: String },
    /// The data plane has stopped or the socket failed.
    Failed { message: String },
}

/// What happens to be ready.
enum Ready {
    Socket,
    Doorbell,
    Notice(Notice),
}

/// What a session needs of the rest of the bridge.
pub(crate) struct Surroundings {
    pub(crate) link: LinkId,
    pub(crate) plane: DataPlaneHandle,
    pub(crate) contracts: Arc<Contracts>,
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    /// Counts the sends and receives of the pump, across the sessions of a link.
    pub(crate) socket_calls: Arc<AtomicU64>,
}

pub(crate) struct Session {
    link: LinkId,
    plane: DataPlaneHandle,
    contracts: Arc<Contracts>,
    verdict: Arc<Verdict>,
    notices: mpsc::UnboundedReceiver<Notice>,
    socket_calls: Arc<AtomicU64>,
    /// What of the stream's traffic is in `socket_calls` already.
    counted: u64,
    socket: AsyncFd<FrameStream>,
    pump: Option<Pump>,
    /// Another handle on the pump's doorbell, for the event loop.
    pump_doorbell: Option<AsyncFd<Doorbell>>,
    /// Payload length of a received frame that found no room in the ring.
    blocked: Option<usize>,
    /// The word of the bridge's end, and how much of the ring goes ahead of it: on a socket a peer takes what comes
    /// behind that word for nothing.
    shutdown: Option<(u64, Shutdown)>,
    /// The socket takes nothing more; what the peer sent before is still to be read.
    peer_gone: bool,
}

impl Session {
    pub(crate) fn new(
        surroundings: Surroundings,
        stream: FrameStream,
        pump: Option<Pump>,
    ) -> io::Result<Self> {
        let Surroundings {
            link,
            plane,
            contracts,
            verdict,
            notices,
            socket_calls,
        } = surroundings;
        let pump_doorbell = pump
            .as_ref()
            .map(|pump| watch(pump.doorbell().try_clone()?, Interest::READABLE))
            .transpose()?;
        let socket = watch(stream, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            link,
            plane,
            contracts,
            verdict,
            notices,
            socket_calls,
            counted: 0,
            socket,
            pump,
            pump_doorbell,
            blocked: None,
            shutdown: None,
            peer_gone: false,
        })
    }

    /// Serves the peer until it leaves, crashes or breaks a rule.
    pub(crate) async fn run(mut self) -> SessionEnd {
        match self.serve().await {
            Ok(end) => end,
            Err(Failure::End(end)) => end,
            Err(Failure::Violation(code, message)) => self.condemn(code, message),
        }
    }

    async fn serve(&mut self) -> Result<SessionEnd, Failure> {
        loop {
            self.handle_received().await?;
            if let Some(pump) = &mut self.pump
                && !self.peer_gone
            {
                pump.fill_send_queue(self.socket.get_mut())?;
                if let Some((_, shutdown)) = self
                    .shutdown
                    .take_if(|(position, _)| pump.has_queued(*position))
                {
                    self.socket.get_mut().queue_message(&shutdown);
                }
            }
            self.flush()?;
            let unsent = self.socket.get_ref().unsent() > 0 && !self.peer_gone;
            self.count_calls();
            if let Some(pump) = &mut self.pump {
                pump.flush_wakeups();
                // A socket that takes no more asks for frames again when it is writable.
                let wants_frames = !unsent && !self.peer_gone;
                if !pump.park(wants_frames, self.blocked)? {
                    pump.unpark();
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            let ready = self.wait(unsent).await?;
            if let Some(pump) = &self.pump {
                pump.unpark();
            }
            match ready {
                Ready::Socket | Ready::Doorbell => {}
                Ready::Notice(notice) => self.pass_on(notice)?,
            }
        }
    }

    fn count_calls(&mut self) {
        if self.pump.is_some() {
            let traffic = self.socket.get_ref().traffic();
            let calls = traffic.sends + traffic.receives;
            self.socket_calls
                .fetch_add(calls - self.counted, Ordering::Relaxed);
            self.counted = calls;
        }
    }

    async fn wait(&mut self, unsent: bool) -> Result<Ready, Failure> {
        let interest = match (self.blocked.is_none(), unsent) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            // Nothing can be read before there is room in the ring, which the doorbell tells.
            (false, false) => None,
        };
        tokio::select! {
            biased;
            Some(notice) = self.notices.recv() => Ok(Ready::Notice(notice)),
            rung = ring(self.pump_doorbell.as_ref()) => {
                rung.map_err(failed)?;
                if let Some(pump) = &self.pump {
                    pump.doorbell().drain().map_err(failed)?;
                }
                Ok(Ready::Doorbell)
            }
            ready = socket_ready(&mut self.socket, interest) => {
                if ready.map_err(failed)? {
                    return Err(Failure::End(SessionEnd::HangUp));
                }
                Ok(Ready::Socket)
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.peer_gone {
            return Ok(());
        }
        match self.socket.get_mut().flush() {
            Ok(_) => Ok(()),
            Err(StreamError::HangUp) => {
                self.peer_gone = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Handles every frame that has arrived whole, as far as the ring has room.
    async fn handle_received(&mut self) -> Result<(), Failure> {
        self.blocked = None;
        loop {
            let stream = self.socket.get_ref();
            let Some(frame) = stream.peek()? else {
                return Ok(());
            };
            let header = frame.header();
            if header.is_control() {
                let payload = frame.to_vec();
                self.socket.get_mut().advance(header.record_len());
                self.on_control(header, &payload).await?;
                self.check_answers()?;
                continue;
            }
            let Some(pump) = &mut self.pump else {
                let FrameHeader {
                    topic_id,
                    payload_len,
                    ..
                } = header;
                let message = format!(
                    "application frame on the control socket of a shared memory link: topic_id={topic_id} \
                     payload_len={payload_len}; write it to the ring"
                );
                return Err(Failure::Violation(LinkErrorCode::PROTOCOL, message));
            };
            if !pump.push(&frame)? {
                self.blocked = Some(header.payload_len as usize);
                return Ok(());
            }
            self.socket.get_mut().advance(header.record_len());
        }
    }

    async fn on_control(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Failure> {
        let frame = Frame::new(header.topic_id, payload);
        match header.topic_id {
            Subscribe::TOPIC_ID => {
                let request: Subscribe = frame.read()?;
                let mut outcome = self.check_topic(request.topic_id, &request.layout_digest);
                if outcome.is_ok() && !self.plane.subscribe(self.link, request.topic_id).await? {
                    outcome = Err(unknown_topic(request.topic_id, &self.contracts));
                }
                self.reply(Subscribe::TOPIC_ID, request.topic_id, outcome);
            }
            Unsubscribe::TOPIC_ID => {
                let request: Unsubscribe = frame.read()?;
                let known = self.plane.unsubscribe(self.link, request.topic_id).await?;
                let outcome = if known {
                    Ok(())
                } else {
                    Err(unknown_topic(request.topic_id, &self.contracts))
                };
                self.reply(Unsubscribe::TOPIC_ID, request.topic_id, outcome);
            }
            Advertise::TOPIC_ID => {
                let request: Advertise = frame.read()?;
                let outcome = self.check_topic(request.topic_id, &request.layout_digest);
                self.reply(Advertise::TOPIC_ID, request.topic_id, outcome);
            }
            Ack::TOPIC_ID if self.pump.is_some() => {
                let ack: Ack = frame.read()?;
                if let Some(pump) = &mut self.pump {
                    pump.acknowledge(ack.bytes)?;
                }
            }
            Goodbye::TOPIC_ID => {
                let goodbye: Goodbye = frame.read()?;
                let reason = goodbye.reason.as_str().unwrap_or_default().to_owned();
                if let Some(pump) = &mut self.pump {
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

    fn check_topic(
        &self,
        topic_id: u16,
        layout_digest: &[u8; 32],
    ) -> Result<(), (TopicReplyCode, String)> {
        let Some(message) = self.contracts.by_id(topic_id) else {
            return Err(unknown_topic(topic_id, &self.contracts));
        };
        if let Some(difference) = self.verdict.refusal(topic_id) {
            return Err((TopicReplyCode::LAYOUT_MISMATCH, mismatch(difference)));
        }
        let ours = message.layout_digest;
        if *layout_digest != ours && !self.verdict.accepts(topic_id, layout_digest) {
            let reason = format!(
                "layout of {} differs: bridge={} peer={}; generate both sides from the same contracts file",
                message.name,
                hex(&ours[..8]),
                hex(&layout_digest[..8])
            );
            return Err((TopicReplyCode::LAYOUT_MISMATCH, reason));
        }
        Ok(())
    }

    fn reply(
        &mut self,
        request: u16,
        topic_id: u16,
        outcome: Result<(), (TopicReplyCode, String)>,
    ) {
        let (code, reason) =
            outcome.map_or_else(|refusal| refusal, |()| (TopicReplyCode::OK, String::new()));
        if code != TopicReplyCode::OK {
            tracing::warn!(link = %self.link, topic = topic_id, %reason, "request for a topic refused");
        }
        let reason = InlineString::truncated(&reason);
        let reply = TopicReply {
            request,
            topic_id,
            code,
            reason,
        };
        self.socket.get_mut().queue_message(&reply);
    }

    /// Answers are sent as far as the socket takes them; a peer that reads none must not make them pile up.
    fn check_answers(&mut self) -> Result<(), Failure> {
        let max = ANSWERS_MAX + self.pump.as_ref().map_or(0, Pump::send_queue_max);
        if self.socket.get_ref().unsent() <= max {
            return Ok(());
        }
        self.flush()?;
        let unsent = self.socket.get_ref().unsent();
        if unsent <= max {
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
                match &self.pump {
                    Some(pump) => self.shutdown = Some((pump.published(), shutdown)),
                    None => self.socket.get_mut().queue_message(&shutdown),
                }
            }
            Notice::Rejected {
                topic_id,
                code,
                reason,
            } => self.reply_dropped(topic_id, code, &reason),
            Notice::Condemned { code, message } => return Err(Failure::Violation(code, message)),
        }
        Ok(())
    }

    fn reply_dropped(&mut self, topic_id: u16, code: TopicReplyCode, reason: &str) {
        let reason = InlineString::truncated(reason);
        let reply = TopicReply {
            request: 0,
            topic_id,
            code,
            reason,
        };
        self.socket.get_mut().queue_message(&reply);
    }

    /// Tells the peer what it did, as far as its socket takes it, and ends the session.
    fn condemn(&mut self, code: LinkErrorCode, message: String) -> SessionEnd {
        let text = InlineString::truncated(&message);
        let error = LinkError {
            code,
            message: text,
        };
        let stream = self.socket.get_mut();
        stream.queue_message(&error);
        // The peer is at fault; if it does not even read, that is its loss.
        let _ = stream.flush();
        SessionEnd::Violation { message }
    }
}

fn watch<T: AsRawFd>(io: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `register_with_interest` asks that the descriptor stays open and the same until the `AsyncFd` is dropped.
    // The two types that come here, `FrameStream` and `Doorbell`, own their descriptor for their whole life, and the
    // `AsyncFd` owns them.
    Ok(unsafe { AsyncFd::register_with_interest(io, interest) }?)
}

/// Waits for the socket and reads what is there. True if the peer has hung up.
async fn socket_ready(
    socket: &mut AsyncFd<FrameStream>,
    interest: Option<Interest>,
) -> io::Result<bool> {
    let Some(interest) = interest else {
        return std::future::pending().await;
    };
    let mut guard = socket.ready_mut(interest).await?;
    let ready = guard.ready();
    if ready.is_writable() {
        // The caller flushes; the readiness comes back if the socket is full again.
        guard.clear_ready_matching(tokio::io::Ready::WRITABLE);
    }
    if ready.is_readable() || ready.is_read_closed() {
        match guard.get_inner_mut().fill() {
            Ok(FillOutcome::Data(_)) => {}
            Ok(FillOutcome::WouldBlock) => guard.clear_ready_matching(tokio::io::Ready::READABLE),
            Ok(FillOutcome::HangUp) => return Ok(true),
            Err(StreamError::Io { source, .. }) => return Err(source),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(false)
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

/// What a peer is told of a topic whose layouts differ.
pub(super) fn mismatch(difference: &ContractDifference) -> String {
    format!("layouts differ (bridge -> peer): {difference}")
}

fn unknown_topic(topic_id: u16, contracts: &Contracts) -> (TopicReplyCode, String) {
    let file = contracts.file().display();
    let reason = format!("no message with topic_id={topic_id} in the bridge's contracts {file}");
    (TopicReplyCode::UNKNOWN_TOPIC, reason)
}

/// Why a session cannot go on.
enum Failure {
    End(SessionEnd),
    Violation(LinkErrorCode, String),
}

fn failed(error: io::Error) -> Failure {
    Failure::End(SessionEnd::Failed {
        message: error.to_string(),
    })
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::HangUp => Self::End(SessionEnd::HangUp),
            StreamError::TooLarge { .. } => {
                Self::Violation(LinkErrorCode::FRAME_TOO_LARGE, error.to_string())
            }
            StreamError::Io { .. } | StreamError::TimedOut => Self::End(SessionEnd::Failed {
                message: error.to_string(),
            }),
        }
    }
}

impl From<PumpError> for Failure {
    fn from(error: PumpError) -> Self {
        let code = match error {
            PumpError::Corrupt(_) => LinkErrorCode::CORRUPT_RECORD,
            PumpError::TooLarge { .. } => LinkErrorCode::FRAME_TOO_LARGE,
            PumpError::Reserved { .. } | PumpError::Acknowledgement { .. } => {
                LinkErrorCode::PROTOCOL
            }
        };
        Self::Violation(code, error.to_string())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Violation(LinkErrorCode::PROTOCOL, error.to_string())
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::End(SessionEnd::Failed {
            message: stopped.to_string(),
        })
    }
}
