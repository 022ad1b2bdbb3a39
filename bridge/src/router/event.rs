//! What the router tells the control plane, and what it counts.

use mycelium_messages::control::Cause;
use shm_transport::error::Corrupt;
use shm_transport::frame::Encoding;

use crate::routes::LinkId;

/// Something that the control plane has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterEvent {
    /// A link broke the rules of its rings. It is not served any more; the control plane has to close it.
    Violation {
        /// The link.
        link: LinkId,
        /// The field, its value and the legal range.
        corrupt: Corrupt,
    },
    /// A link published a frame that was dropped. Told once per link and topic; all are counted.
    Rejected {
        /// The link.
        link: LinkId,
        /// Topic of the frame.
        topic_id: u16,
        /// Why.
        why: Rejection,
    },
    /// Frames that a link wants did not reach it. Told at intervals, and always once it has ceased.
    Gap {
        /// The link.
        link: LinkId,
        /// Topic of the frames.
        topic_id: u16,
        /// How many since the last time.
        missed: u64,
        /// What became of the last of them.
        cause: Cause,
    },
}

/// Why a published frame was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The contracts have no such topic.
    UnknownTopic,
    /// The payload has a length that the contract rules out.
    WrongSize {
        /// Name of the message.
        message: String,
        /// The legal lengths, in bytes.
        expected: std::ops::RangeInclusive<usize>,
        /// The length that came.
        actual: usize,
    },
    /// The frame's flags name another encoding than the contract.
    WrongEncoding {
        /// Name of the message.
        message: String,
        /// The encoding of the contract.
        expected: Encoding,
        /// The encoding that came.
        actual: Encoding,
    },
    /// The layout of the publisher is another than that of the bridge, as was found in the handshake.
    LayoutMismatch,
    /// The payload does not fit into the ring of a subscriber.
    TooLarge {
        /// The subscriber.
        subscriber: LinkId,
        /// Bytes of the payload.
        payload_len: usize,
        /// Bytes that the subscriber's ring takes.
        max_payload: usize,
    },
}

/// Frames, and the bytes of their payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Flow {
    #[inline]
    pub(super) fn count(&mut self, payload_len: usize) {
        self.frames += 1;
        self.bytes += payload_len as u64;
    }
}

/// What one link counted since it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that the link published.
    pub frames_in: u64,
    /// Bytes of their payloads.
    pub bytes_in: u64,
    /// Frames that were delivered to the link.
    pub frames_out: u64,
    /// Bytes of their payloads.
    pub bytes_out: u64,
    /// Published frames that nobody wanted.
    pub unrouted: u64,
    /// Published frames that were dropped because of their topic, layout, encoding or size, or because a subscriber's
    /// link is broken.
    pub dropped: u64,
    /// Frames that the link wants and did not get: dropped by the policy of its subscription, or moved aside because they kept
    /// killing their worker.
    pub missed: u64,
    /// Frames that wait for the link in front of its ring at this moment.
    pub waiting: u64,
    /// Times that the link was found full and its publisher had to wait.
    pub stalls: u64,
    /// Doorbell notifications sent to the link.
    pub wakeups_out: u64,
}
