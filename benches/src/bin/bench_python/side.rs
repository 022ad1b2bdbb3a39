//! Rust's side of a link to Python.

use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use mycelium_benches::carriers::bridge::Accepted;
use mycelium_messages::control::{Advertise, Shutdown, Subscribe, TopicReply, TopicReplyCode};
use mycelium_messages::{InlineString, Message as _};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_transport::channel::LinkEnds;
use shm_transport::error::ReserveError;
use shm_transport::socket::{FillOutcome, FrameStream};

use crate::program::Watch;
use crate::tick::Tick;

/// Time for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// Milliseconds between two looks at whether Python still runs.
const LOOK_MS: u16 = 50;
/// In bulk a side that finds nothing, or no room, looks away for so many pause instructions.
const PAUSES: u32 = 256;

/// What a side does that polls rings in vain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Poll {
    /// It looks again at once.
    AtOnce,
    /// It looks away for a moment.
    LookAway,
}

/// Rust's side: both rings, or the socket.
pub(crate) enum Side {
    /// Shared memory, with the control stream beside it.
    Rings(Box<LinkEnds>, FrameStream),
    /// The socket; whether it is polled, or slept on.
    Stream(FrameStream, bool),
}

/// Waits for a connection while Python runs.
pub(crate) fn next_connection(
    listener: &UnixListener,
    watch: &Watch,
) -> Result<UnixStream, String> {
    listener.set_nonblocking(true).map_err(text)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                watch.look()?;
                let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(LOOK_MS)).map_err(text)?;
            }
            Err(error) => return Err(text(error)),
        }
    }
}

/// Grants the two requests that every program here makes: to subscribe and to publish.
pub(crate) fn grant_requests(stream: &mut FrameStream) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..2 {
        let (header, _) = stream.receive_until(deadline).map_err(text)?;
        let request = header.topic_id;
        if ![Subscribe::TOPIC_ID, Advertise::TOPIC_ID].contains(&request) {
            return Err(format!("a request was expected: topic_id={request}"));
        }
        stream.queue_message(&TopicReply {
            request,
            topic_id: Tick::TOPIC_ID,
            code: TopicReplyCode::OK,
            ..TopicReply::default()
        });
        stream.flush_until(deadline).map_err(text)?;
    }
    Ok(())
}

impl Side {
    pub(crate) fn new(accepted: Accepted, spins: bool) -> Self {
        match accepted {
            Accepted::Rings(ends, control) => Self::Rings(ends, control),
            Accepted::Stream(stream) => Self::Stream(stream, spins),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut FrameStream {
        match self {
            Self::Rings(_, stream) | Self::Stream(stream, _) => stream,
        }
    }

    /// Sends a message, waiting for room.
    #[inline]
    pub(crate) fn send(&mut self, tick: &Tick, watch: &mut Watch) -> Result<(), String> {
        match self {
            Self::Rings(ends, _) => loop {
                match ends.try_publish_message(tick) {
                    Ok(()) => return Ok(()),
                    Err(ReserveError::Full { .. }) => {
                        look_away();
                        watch.check()?;
                    }
                    Err(error) => return Err(text(error)),
                }
            },
            Self::Stream(stream, _) => {
                stream.queue_message(tick);
                stream.flush_until(Instant::now() + PATIENCE).map_err(text)
            }
        }
    }

    /// The next message.
    #[inline]
    pub(crate) fn receive(&mut self, poll_rings: Poll, watch: &mut Watch) -> Result<Tick, String> {
        match self {
            Self::Rings(ends, _) => loop {
                if let Some(frame) = ends.peek().map_err(text)? {
                    let tick = frame.read().map_err(text)?;
                    ends.advance();
                    return Ok(tick);
                }
                if poll_rings == Poll::LookAway {
                    look_away();
                }
                watch.check()?;
            },
            Self::Stream(stream, spins) => loop {
                if let Some(frame) = stream.peek().map_err(text)? {
                    let (header, tick) = (frame.header(), frame.read::<Tick>());
                    stream.advance(header.record_len());
                    // Acknowledgements travel between the messages.
                    if header.is_control() {
                        continue;
                    }
                    return tick.map_err(text);
                }
                match stream.fill().map_err(text)? {
                    FillOutcome::Data(_) => {}
                    FillOutcome::WouldBlock if *spins => watch.check()?,
                    FillOutcome::WouldBlock => {
                        watch.check()?;
                        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
                        poll(&mut fds, PollTimeout::from(LOOK_MS)).map_err(text)?;
                    }
                    FillOutcome::HangUp => return Err("Python hung up".to_owned()),
                }
            },
        }
    }

    /// Sleeps until the next message is there: for a side that is not to be in anybody's way.
    pub(crate) fn sleep_until_message(&mut self, watch: &Watch) -> Result<(), String> {
        let Self::Rings(ends, _) = self else {
            return Ok(());
        };
        let mut spin =
            shm_transport::wakeup::SpinBudget::new(shm_transport::wakeup::WaitStrategy::Park);
        let moment = Some(Duration::from_millis(LOOK_MS.into()));
        while ends.read(&mut spin, moment).map_err(text)?.is_none() {
            watch.look()?;
        }
        Ok(())
    }

    /// Tells Python that nothing more comes.
    pub(crate) fn shut_down(&mut self) -> Result<(), String> {
        let stream = self.stream();
        stream.queue_message(&Shutdown {
            deadline_ms: 20_000,
            reason: InlineString::default(),
        });
        stream.flush_until(Instant::now() + PATIENCE).map_err(text)
    }
}

fn look_away() {
    for _ in 0..PAUSES {
        std::hint::spin_loop();
    }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
