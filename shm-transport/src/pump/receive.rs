//! From the stream to the ring.

use std::collections::VecDeque;
use std::io::ErrorKind;

use mycelium_messages::Message as _;
use mycelium_messages::control::{Ack, Advertise, Subscribe, TopicReply, Unsubscribe};

use super::{AHEAD_MAX, PumpError, Received, UNPLACED_MAX};
use crate::frame::FrameHeader;
use crate::layout::FRAME_HEADER_LEN;
use crate::ring::{Producer, RingSliceMut};
use crate::socket::{ByteStream, Traffic};

/// Bytes that one call on the stream is asked for.
const CALL_MAX: usize = 256 * 1024;

/// The beginning of a frame, the *front*, lies at the producer's position as far as it has come: its header in `header`,
/// the rest in the ring. Bytes that came before there was room for them are in `ahead`, and those in the stream follow them.
#[derive(Debug)]
pub(super) struct Inflow {
    pub(super) producer: Producer,
    max_control: usize,
    header: [u8; FRAME_HEADER_LEN],
    /// Bytes of the header that have come.
    header_len: usize,
    /// Bytes behind the header that have come.
    body: usize,
    pub(super) ahead: Vec<u8>,
    /// Bytes that `ahead` may hold while the front waits for room.
    ahead_max: usize,
    /// Bytes of `ahead`, behind the front's, that were looked through.
    looked: usize,
    pub(super) control: VecDeque<(FrameHeader, Vec<u8>)>,
    ended: bool,
}

/// What one look at the stream brought.
enum Read {
    Some(usize),
    Nothing,
    End,
}

impl Inflow {
    pub(super) fn new(producer: Producer, max_control: usize) -> Self {
        Self {
            producer,
            max_control,
            header: [0; FRAME_HEADER_LEN],
            header_len: 0,
            body: 0,
            ahead: Vec::new(),
            ahead_max: AHEAD_MAX,
            looked: 0,
            control: VecDeque::new(),
            ended: false,
        }
    }

    /// Bytes that were received before the pump took the stream over.
    pub(super) fn put_ahead(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    /// Frames that go in front of everything of this stream. As much of the stream can be read ahead as without them.
    pub(super) fn put_unplaced(&mut self, frames: Vec<u8>) {
        self.ahead_max += frames.len();
        self.ahead.splice(0..0, frames);
    }

    /// Reads more ahead than from a peer that may go on for ever.
    pub(super) fn expect_end(&mut self) {
        self.ahead_max = self.ahead_max.max(UNPLACED_MAX);
    }

    /// Takes the whole application frames out that have come and have no room, and leaves the control frames among them in
    /// `control`; says how many bytes are missing of a frame that was cut off.
    pub(super) fn take_unplaced(&mut self) -> Option<(Vec<u8>, usize)> {
        let front = self.front().filter(|_| self.ended)?;
        let mut come = front.to_bytes().to_vec();
        come.extend(self.producer.filled(FRAME_HEADER_LEN, self.body));
        come.extend_from_slice(&self.ahead);
        let (mut rest, mut frames, mut control) = (&come[..], Vec::new(), Vec::new());
        let missing = loop {
            let Some(header) = header_of(rest) else {
                break match rest.len() {
                    0 => 0,
                    some => FRAME_HEADER_LEN - some,
                };
            };
            // What is wrong is told of when it comes to the front.
            self.check(header).ok()?;
            let Some((record, behind)) = rest.split_at_checked(header.record_len()) else {
                break header.record_len() - rest.len();
            };
            if header.is_control() {
                let payload = &record[FRAME_HEADER_LEN..][..header.payload_len as usize];
                control.push((header, payload.to_vec()));
            } else {
                frames.extend_from_slice(record);
            }
            rest = behind;
        };
        if frames.len() > UNPLACED_MAX {
            return None;
        }
        self.control.extend(control);
        (self.header_len, self.body, self.looked) = (0, 0, 0);
        self.ahead = Vec::new();
        Some((frames, missing))
    }

    pub(super) fn receive(
        &mut self,
        stream: &mut impl ByteStream,
        may_read: bool,
        traffic: &mut Traffic,
    ) -> Result<Received, PumpError> {
        let Some(room) = self.room()? else {
            return self.look_ahead(stream, may_read, traffic);
        };
        if self.front().is_some() && self.missing() == 0 {
            return self.sort(0);
        }
        if self.ahead.is_empty() {
            if !may_read && !self.ended {
                return Ok(Received::Nothing);
            }
            let (header, producer) = (&mut self.header[self.header_len..], &mut self.producer);
            let at = FRAME_HEADER_LEN + self.body;
            let mut slices = [RingSliceMut::new(header), producer.room(at, room)];
            return match read(stream, &mut slices, &mut self.ended, traffic)? {
                Read::Some(count) => self.sort(count),
                Read::Nothing => Ok(Received::Nothing),
                Read::End => Ok(Received::HangUp {
                    missing: self.missing(),
                }),
            };
        }
        if self.header_len == 0
            && let Some(header) = header_of(&self.ahead)
            && header.is_control()
        {
            return self.control_ahead(header, stream, may_read, traffic);
        }
        let count = self.take_from_ahead(room);
        self.sort(count)
    }

    /// Bytes of ring behind what has come of the front that can be filled now. `None`: the front has no room.
    fn room(&mut self) -> Result<Option<usize>, PumpError> {
        let from = FRAME_HEADER_LEN + self.body;
        let Some(front) = self.front() else {
            let piece = self.producer.piece(from + CALL_MAX)?;
            return Ok(Some(piece.saturating_sub(from).min(CALL_MAX)));
        };
        let record_len = front.record_len();
        if record_len > self.producer.to_end() && !self.producer.pad_to_start(self.body)? {
            return Ok(None);
        }
        let piece = self.producer.piece(from + CALL_MAX)?;
        if piece >= record_len && from >= record_len {
            // A frame without payload has come as a whole and waited for the room of its header alone.
            return Ok(Some(0));
        }
        Ok((piece > from).then(|| (piece - from).min(CALL_MAX)))
    }

    /// The header of the front, if all of it has come.
    fn front(&self) -> Option<FrameHeader> {
        (self.header_len == FRAME_HEADER_LEN).then(|| FrameHeader::from_bytes(self.header))
    }

    /// Bytes that are missing of the front; 0 if nothing of it has come.
    fn missing(&self) -> usize {
        match self.front() {
            Some(front) => front.record_len() - FRAME_HEADER_LEN - self.body,
            None if self.header_len == 0 => match header_of(&self.ahead) {
                Some(header) => header.record_len().saturating_sub(self.ahead.len()),
                None => 0,
            },
            None => FRAME_HEADER_LEN - self.header_len,
        }
    }

    /// Commits every whole frame of what has come, `count` bytes more than before, and takes the control frames out.
    fn sort(&mut self, count: usize) -> Result<Received, PumpError> {
        let of_header = count.min(FRAME_HEADER_LEN - self.header_len);
        self.header_len += of_header;
        self.body += count - of_header;
        let Some(mut header) = self.front() else {
            return Ok(Received::Data);
        };
        let come = FRAME_HEADER_LEN + self.body;
        // Offsets from the producer's position: what was looked at, and what of it are frames for the ring.
        let (mut from, mut to) = (0, 0);
        let mut first = header;
        let mut outcome = Ok(Received::Data);
        loop {
            if let Err(error) = self.check(header) {
                outcome = Err(error);
                break;
            }
            let (len, payload_len) = (header.record_len(), header.payload_len as usize);
            let has_room = header.is_control() || to + len <= self.producer.piece(to + len)?;
            if from + len > come || !has_room {
                break;
            }
            if header.is_control() {
                let payload = self.producer.filled(from + FRAME_HEADER_LEN, payload_len);
                self.control.push_back((header, payload));
            } else {
                if from != to {
                    let (source, target) = (from + FRAME_HEADER_LEN, to + FRAME_HEADER_LEN);
                    self.producer
                        .move_back(source, target, len - FRAME_HEADER_LEN);
                }
                match to {
                    0 => first = header,
                    _ if from != to => self.producer.set_header(to, header),
                    _ => {}
                }
                self.zero_padding(to + FRAME_HEADER_LEN + payload_len, to + len);
                to += len;
            }
            from += len;
            self.header_len = (come - from).min(FRAME_HEADER_LEN);
            if self.header_len < FRAME_HEADER_LEN {
                let rest = self.producer.filled(from, self.header_len);
                self.header[..rest.len()].copy_from_slice(&rest);
                break;
            }
            header = self.producer.header_at(from);
            self.header = header.to_bytes();
        }
        self.body = (come - from).saturating_sub(FRAME_HEADER_LEN);
        if self.body > 0 && from != to {
            let (source, target) = (from + FRAME_HEADER_LEN, to + FRAME_HEADER_LEN);
            self.producer.move_back(source, target, self.body);
        }
        if to > 0 {
            self.producer.commit_filled(first, to);
        }
        if outcome.is_err() {
            // Nothing behind a bad header can be told apart.
            (self.header_len, self.body, self.ended) = (0, 0, true);
            self.ahead = Vec::new();
        }
        self.divert_control();
        outcome
    }

    fn check(&self, header: FrameHeader) -> Result<(), PumpError> {
        let FrameHeader {
            payload_len,
            topic_id,
            flags,
        } = header;
        let max_payload = if header.is_control() {
            self.max_control
        } else {
            self.producer.max_payload()
        };
        let payload_len = payload_len as usize;
        if payload_len > max_payload {
            return Err(PumpError::TooLarge {
                topic_id,
                payload_len,
                max_payload,
            });
        }
        if topic_id == 0 || header.is_pad() {
            return Err(PumpError::Reserved { topic_id, flags });
        }
        Ok(())
    }

    /// What a peer puts between payload and next frame is of no use to anybody.
    fn zero_padding(&mut self, from: usize, to: usize) {
        if from < to {
            self.producer.room(from, to - from).copy_from(&[0; 8]);
        }
    }

    /// A control frame that has come in part may be longer than the ring has room: its beginning goes to `ahead`.
    fn divert_control(&mut self) {
        if !self.front().is_some_and(FrameHeader::is_control) {
            return;
        }
        let mut bytes = self.header.to_vec();
        bytes.extend(self.producer.filled(FRAME_HEADER_LEN, self.body));
        bytes.append(&mut self.ahead);
        self.ahead = bytes;
        (self.header_len, self.body) = (0, 0);
    }

    /// Fills header and ring from `ahead`; says with how many bytes.
    fn take_from_ahead(&mut self, room: usize) -> usize {
        let of_header = (FRAME_HEADER_LEN - self.header_len).min(self.ahead.len());
        let (header, rest) = self.ahead.split_at(of_header);
        self.header[self.header_len..][..of_header].copy_from_slice(header);
        let at = FRAME_HEADER_LEN + self.body;
        let of_body = self.producer.room(at, room).copy_from(rest);
        self.drop_ahead(0, of_header + of_body);
        of_header + of_body
    }

    fn drop_ahead(&mut self, at: usize, count: usize) {
        self.ahead.drain(at..at + count);
        self.looked = 0;
        if self.ahead.is_empty() {
            // It is needed only while something is blocked.
            self.ahead = Vec::new();
        }
    }

    /// Goes on with a control frame at the start of `ahead`, while nothing of a frame is in the ring.
    fn control_ahead(
        &mut self,
        header: FrameHeader,
        stream: &mut impl ByteStream,
        may_read: bool,
        traffic: &mut Traffic,
    ) -> Result<Received, PumpError> {
        if let Err(error) = self.check(header) {
            self.ended = true;
            self.ahead = Vec::new();
            return Err(error);
        }
        let missing = header.record_len().saturating_sub(self.ahead.len());
        if missing == 0 {
            self.take_control_ahead(0, header);
            return Ok(Received::Data);
        }
        if !may_read && !self.ended {
            return Ok(Received::Nothing);
        }
        match self.read_ahead(missing, stream, traffic)? {
            Read::Some(_) => Ok(Received::Data),
            Read::Nothing => Ok(Received::Nothing),
            Read::End => Ok(Received::HangUp { missing }),
        }
    }

    fn take_control_ahead(&mut self, at: usize, header: FrameHeader) {
        let payload = &self.ahead[at + FRAME_HEADER_LEN..][..header.payload_len as usize];
        self.control.push_back((header, payload.to_vec()));
        self.drop_ahead(at, header.record_len());
    }

    /// While the front waits for room: reads on, and takes out what may overtake application frames.
    fn look_ahead(
        &mut self,
        stream: &mut impl ByteStream,
        may_read: bool,
        traffic: &mut Traffic,
    ) -> Result<Received, PumpError> {
        let Some(front) = self.front() else {
            return Ok(Received::Nothing);
        };
        let room = self.ahead_max.saturating_sub(self.ahead.len());
        let read = match may_read && room > 0 && !self.ended {
            true => self.read_ahead(room, stream, traffic)?,
            false => Read::Nothing,
        };
        // What may overtake is taken out, and what stays is moved together, once for all of it: a peer that sends nothing but
        // control frames must not cost a move of everything for each.
        let mut at = self.looked.max(self.missing());
        let mut to = at;
        while let Some(header) = self.ahead.get(at..).and_then(header_of) {
            // A frame that is wrong is found when it comes to the front; what lies in front of it is delivered first.
            let len = header.record_len();
            let whole = self.ahead.len() - at >= len;
            let overtakes = header.is_control() && may_overtake(header.topic_id);
            if !whole || header.is_control() && !overtakes || self.check(header).is_err() {
                break;
            }
            if overtakes {
                let payload = &self.ahead[at + FRAME_HEADER_LEN..][..header.payload_len as usize];
                self.control.push_back((header, payload.to_vec()));
            } else {
                self.ahead.copy_within(at..at + len, to);
                to += len;
            }
            at += len;
        }
        if to < at {
            self.drop_ahead(to, at - to);
        }
        self.looked = to;
        if matches!(read, Read::Some(_)) {
            return Ok(Received::Data);
        }
        Ok(Received::Blocked {
            payload_len: front.payload_len as usize,
            wants_more: !self.ended && self.ahead.len() < self.ahead_max,
        })
    }

    fn read_ahead(
        &mut self,
        max: usize,
        stream: &mut impl ByteStream,
        traffic: &mut Traffic,
    ) -> Result<Read, PumpError> {
        let len = self.ahead.len();
        self.ahead.resize(len + max, 0);
        let mut slices = [RingSliceMut::new(&mut self.ahead[len..])];
        let outcome = read(stream, &mut slices, &mut self.ended, traffic);
        let count = match &outcome {
            Ok(Read::Some(count)) => *count,
            _ => 0,
        };
        self.ahead.truncate(len + count);
        outcome
    }
}

/// Control frames that mean the same in front of application frames as behind them. The others end something, and what came
/// before them is to be delivered first.
fn may_overtake(topic_id: u16) -> bool {
    matches!(
        topic_id,
        Ack::TOPIC_ID
            | Subscribe::TOPIC_ID
            | Unsubscribe::TOPIC_ID
            | Advertise::TOPIC_ID
            | TopicReply::TOPIC_ID
    )
}

fn header_of(bytes: &[u8]) -> Option<FrameHeader> {
    bytes.first_chunk().copied().map(FrameHeader::from_bytes)
}

/// One call on the stream, unless it is known to have ended.
fn read(
    stream: &mut impl ByteStream,
    slices: &mut [RingSliceMut<'_>],
    ended: &mut bool,
    traffic: &mut Traffic,
) -> Result<Read, PumpError> {
    let asked: usize = slices.iter().map(RingSliceMut::len).sum();
    if *ended {
        return Ok(Read::End);
    }
    let outcome = loop {
        match stream.read_vectored(slices) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(0) => {
            *ended = true;
            Ok(Read::End)
        }
        Ok(count) => {
            assert!(count <= asked, "stream brought more than it was asked for");
            traffic.receives += 1;
            Ok(Read::Some(count))
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(Read::Nothing),
            ErrorKind::ConnectionReset => {
                *ended = true;
                Ok(Read::End)
            }
            _ => Err(PumpError::Io {
                step: "receive",
                source: error,
            }),
        },
    }
}
