//! What both kinds of data path share: the control stream, and what the frames on it mean.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mycelium_messages::control::{Gap, LinkError, Shutdown, TopicReply};
use mycelium_messages::{InlineString, Message};

use super::{Rejected, Statistics};
use crate::error::{ChannelError, DecodeError};
use crate::ring::Frame;
use crate::socket::FrameStream;
use crate::wakeup::SpinBudget;

/// What both kinds of data path share: the control stream and what it brought.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) stream: FrameStream,
    pub(super) spin: SpinBudget,
    pub(super) replies: VecDeque<TopicReply>,
    /// Requests without an answer so far, oldest first: which, and about which topic. The bridge answers in this order.
    pub(super) unanswered: Vec<(u16, u16)>,
    /// What the program has not been told yet: one entry for each topic at most.
    pub(super) rejected: Vec<Rejected>,
    pub(super) end: Option<End>,
    /// The stream has ended; nothing is read from it any more.
    pub(super) hung_up: bool,
    pub(super) statistics: Statistics,
}

/// Why nothing will come any more, once everything before is read.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The bridge takes what is published until the deadline.
    Shutdown {
        reason: String,
        until: Instant,
    },
    PeerLost(String),
}

impl End {
    pub(super) fn to_error(&self) -> ChannelError {
        match self {
            Self::Shutdown { reason, .. } => ChannelError::Closed {
                reason: reason.clone(),
            },
            Self::PeerLost(detail) => ChannelError::PeerLost {
                detail: detail.clone(),
            },
        }
    }
}

impl Core {
    /// Queues a request about a topic. Answers that nobody has fetched belong to requests that were given up.
    pub(super) fn ask<R: Message>(&mut self, topic_id: u16, request: &R) {
        self.replies.clear();
        self.unanswered.push((R::TOPIC_ID, topic_id));
        self.stream.queue_message(request);
    }

    /// Keeps an answer, unless the same was asked again since: then it is one to a request that was given up.
    fn answered(&mut self, reply: TopicReply) {
        let asked = (reply.request, reply.topic_id);
        if let Some(at) = self.unanswered.iter().position(|it| *it == asked) {
            self.unanswered.remove(at);
        }
        if !self.unanswered.contains(&asked) {
            self.replies.push_back(reply);
        }
    }

    /// Handles one control frame.
    pub(super) fn on_control(&mut self, frame: &ControlFrame) -> Result<(), ChannelError> {
        let frame = Frame::new(frame.topic_id, &frame.payload);
        let protocol = |error: DecodeError| ChannelError::Protocol(error.to_string());
        match frame.topic_id() {
            TopicReply::TOPIC_ID => {
                let reply: TopicReply = frame.read().map_err(protocol)?;
                if reply.request == 0 {
                    self.statistics.dropped += 1;
                    let reason = text(&reply.reason);
                    tracing::warn!(topic = reply.topic_id, %reason, "the bridge dropped a published frame");
                    self.rejected.retain(|it| it.topic_id != reply.topic_id);
                    self.rejected.push(Rejected {
                        topic_id: reply.topic_id,
                        code: reply.code.0,
                        name: reply.code.name().unwrap_or("UNKNOWN"),
                        reason,
                    });
                } else {
                    self.answered(reply);
                }
            }
            Gap::TOPIC_ID => {
                let gap: Gap = frame.read().map_err(protocol)?;
                if self.statistics.missed == 0 {
                    tracing::warn!(
                        topic = gap.topic_id,
                        missed = gap.missed,
                        total = gap.total,
                        "the bridge dropped frames for this link; further ones are only counted"
                    );
                }
                self.statistics.missed = self.statistics.missed.saturating_add(gap.missed);
            }
            Shutdown::TOPIC_ID => {
                let shutdown: Shutdown = frame.read().map_err(protocol)?;
                let deadline = Duration::from_millis(shutdown.deadline_ms.into());
                self.end = Some(End::Shutdown {
                    reason: text(&shutdown.reason),
                    until: Instant::now() + deadline,
                });
            }
            LinkError::TOPIC_ID => {
                let error: LinkError = frame.read().map_err(protocol)?;
                let name = error.code.name().unwrap_or("UNKNOWN");
                self.end = Some(End::PeerLost(format!("{} ({name})", text(&error.message))));
            }
            other => {
                return Err(ChannelError::Protocol(format!(
                    "unexpected control frame: topic_id={other}"
                )));
            }
        }
        Ok(())
    }

    /// The end, unless the bridge still takes what this side publishes.
    pub(super) fn end_of_publishing(&self) -> Option<&End> {
        match &self.end {
            Some(End::Shutdown { until, .. }) if !self.hung_up && Instant::now() < *until => None,
            end => end.as_ref(),
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        let missing = self.stream.missing();
        self.end.get_or_insert_with(|| {
            End::PeerLost(match missing {
                0 => "end of stream on the control socket".into(),
                missing => format!("end of stream inside a frame: missing_bytes={missing}"),
            })
        });
    }
}

/// A control frame that was copied out of the receive buffer.
pub(super) struct ControlFrame {
    pub(super) topic_id: u16,
    pub(super) payload: Vec<u8>,
}

/// The text in a field of a control frame, for people.
pub(super) fn text<const CAPACITY: usize>(field: &InlineString<CAPACITY>) -> String {
    field.as_str().unwrap_or("(not valid UTF-8)").to_owned()
}
