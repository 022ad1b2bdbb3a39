//! Bytes received from a stream, cut into frames.

use std::ptr::NonNull;

use crate::frame::FrameHeader;
use crate::layout::FRAME_HEADER_LEN;
use crate::ring::Frame;

/// Bytes that are read at once from a socket that carries only control frames.
const CONTROL_CHUNK_LEN: usize = 8 * 1024;
/// Bytes that are read at once from a socket that carries application frames.
const DATA_CHUNK_LEN: usize = 256 * 1024;

/// A receive buffer. Its length is bounded by one chunk plus the longest frame that was announced.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    bytes: Vec<u8>,
    /// Received bytes not yet passed: `start..end`.
    start: usize,
    end: usize,
    max_payload: usize,
    chunk_len: usize,
}

/// A frame whose header says more than the stream allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverLong {
    pub(crate) payload_len: usize,
    pub(crate) max_payload: usize,
}

impl ReceiveBuffer {
    pub(crate) fn new(max_payload: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            max_payload,
            chunk_len: CONTROL_CHUNK_LEN,
        }
    }

    /// Prepares for application frames of up to `max_payload` bytes.
    pub(crate) fn expect_data(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
        self.chunk_len = DATA_CHUNK_LEN;
    }

    /// Changes the longest payload that is accepted.
    pub(crate) fn limit(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }

    /// The oldest complete frame; `None` if it has not arrived whole.
    pub(crate) fn peek(&self) -> Result<Option<Frame<'_>>, OverLong> {
        let Some(header) = self.header_at(self.start)? else {
            return Ok(None);
        };
        let payload = &self.bytes[self.start + FRAME_HEADER_LEN..self.end];
        // SAFETY: `header_at` found the whole record, so `payload_len` bytes from there are readable while `self` is
        // borrowed.
        Ok(Some(unsafe {
            Frame::from_raw(header, NonNull::from(payload).cast())
        }))
    }

    /// The header of the frame at `start`, if the frame has arrived whole.
    fn header_at(&self, start: usize) -> Result<Option<FrameHeader>, OverLong> {
        let received = &self.bytes[start..self.end];
        let Some(header) = received.first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let header = FrameHeader::from_bytes(*header);
        let payload_len = header.payload_len as usize;
        if payload_len > self.max_payload {
            return Err(OverLong {
                payload_len,
                max_payload: self.max_payload,
            });
        }
        Ok((received.len() >= header.record_len()).then_some(header))
    }

    /// Moves the control frames out and closes the gaps, in front of an over-long frame, too: what is left is frames.
    pub(crate) fn take_control_frames(&mut self) -> Result<Vec<(FrameHeader, Vec<u8>)>, OverLong> {
        let mut taken = Vec::new();
        let (mut from, mut to) = (self.start, self.start);
        let outcome = loop {
            let header = match self.header_at(from) {
                Ok(Some(header)) => header,
                Ok(None) => break Ok(()),
                Err(over) => break Err(over),
            };
            let next = from + header.record_len();
            if header.is_control() {
                let payload = from + FRAME_HEADER_LEN;
                taken.push((
                    header,
                    self.bytes[payload..payload + header.payload_len as usize].to_vec(),
                ));
            } else {
                self.bytes.copy_within(from..next, to);
                to += header.record_len();
            }
            from = next;
        };
        self.bytes.copy_within(from..self.end, to);
        self.end = to + (self.end - from);
        outcome.map(|()| taken)
    }

    /// Passes a frame of `record_len` bytes.
    pub(crate) fn advance(&mut self, record_len: usize) {
        self.start += record_len;
        debug_assert!(self.start <= self.end);
    }

    /// Bytes that have arrived and were not passed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Bytes that are missing of the frame at the front; 0 if there is none or it is whole.
    pub(crate) fn missing(&self) -> usize {
        let received = self.bytes();
        match received.first_chunk() {
            None if received.is_empty() => 0,
            None => FRAME_HEADER_LEN - received.len(),
            Some(header) => FrameHeader::from_bytes(*header)
                .record_len()
                .saturating_sub(received.len()),
        }
    }

    /// Room for the next read, at least half a chunk. A frame that is longer than a chunk gets room as a whole, so that
    /// its bytes are moved once and not with every read.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() - self.end < self.chunk_len / 2 {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let missing = match self.header_at(0) {
                Ok(_) => self.missing(),
                Err(_) => 0,
            };
            let wanted = self.end + missing.max(self.chunk_len);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_front_of_an_over_long_frame_stays_as_it_came() {
        let mut buffer = ReceiveBuffer::new(64);
        let mut bytes = Vec::new();
        for (topic_id, payload) in [(7, [1; 16]), (1001, [2; 16]), (7, [3; 16]), (1001, [4; 16])] {
            bytes.extend_from_slice(&FrameHeader::new(topic_id, 16).to_bytes());
            bytes.extend_from_slice(&payload);
        }
        bytes.extend_from_slice(&FrameHeader::new(1001, 65).to_bytes());
        buffer.room()[..bytes.len()].copy_from_slice(&bytes);
        buffer.filled(bytes.len());
        let over = buffer.take_control_frames().expect_err("over-long");
        assert_eq!((over.payload_len, over.max_payload), (65, 64));
        for expected in [[2; 16], [4; 16]] {
            let frame = buffer.peek().expect("sound").expect("a frame");
            assert_eq!(
                (frame.topic_id(), frame.to_vec()),
                (1001, expected.to_vec())
            );
            let record_len = frame.header().record_len();
            buffer.advance(record_len);
        }
        assert!(buffer.peek().is_err());
    }
}
