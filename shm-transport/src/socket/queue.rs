//! Frames that wait to be sent.

use mycelium_messages::Message;

use crate::frame::FrameHeader;
use crate::ring::Frame;

/// Whole frames, back to back, of which the first `sent` bytes have gone out.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendQueue {
    pub(crate) fn push(&mut self, header: FrameHeader, payload: &[u8]) {
        assert_eq!(
            payload.len(),
            header.payload_len as usize,
            "payload has not the announced length"
        );
        let end = self.bytes.len() + header.record_len();
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end, 0);
    }

    pub(crate) fn push_frame(&mut self, frame: &Frame<'_>) {
        let header = frame.header();
        let end = self.bytes.len() + header.record_len();
        self.bytes.extend_from_slice(&header.to_bytes());
        frame.append_to(&mut self.bytes);
        self.bytes.resize(end, 0);
    }

    pub(crate) fn push_message<M: Message>(&mut self, message: &M) {
        let header = FrameHeader::new(M::TOPIC_ID, size_of::<M>() as u32);
        self.push(header, message.as_bytes());
    }

    /// What has not gone out.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the first `count` bytes of [`SendQueue::unsent`] have gone out.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.bytes.len());
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent > self.unsent().len() {
            // A queue that is refilled all the time never runs empty, so what is sent is dropped once it is the larger
            // part.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Takes the frame that was pushed last back, given its length in the stream; false if a part of it is sent.
    pub(crate) fn take_back(&mut self, record_len: usize) -> bool {
        let whole = self.unsent().len() >= record_len;
        if whole {
            self.bytes.truncate(self.bytes.len() - record_len);
        }
        whole
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
