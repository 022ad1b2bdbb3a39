//! The stream format of a Mycelium bus, as bytes in memory: no socket, no ring.
//!
//! ```text
//! handshake   u16 LE 32, then the SHA-256 of the contracts file's bytes; never answered
//! frame       u16 LE type id, u32 LE payload_len, payload; back to back, both ways
//! ```

use shm_transport::ring::Frame;

/// Bytes of a frame's header.
pub(super) const HEADER_LEN: usize = 6;
/// Bytes of the handshake.
pub(super) const HANDSHAKE_LEN: usize = 2 + 32;
/// Bytes of frames that are gathered for one call on the socket, unless a single frame is longer.
const GATHER_MAX: usize = 64 * 1024;

/// What a client says first.
pub(super) fn handshake(digest: &[u8; 32]) -> [u8; HANDSHAKE_LEN] {
    let mut bytes = [0; HANDSHAKE_LEN];
    bytes[..2].copy_from_slice(&32_u16.to_le_bytes());
    bytes[2..].copy_from_slice(digest);
    bytes
}

/// Frames on their way to the bus. Keeps those that a connection did not take whole for the next connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Whether there is room for another frame in this round.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < GATHER_MAX
    }

    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        self.bytes
            .extend_from_slice(&frame.topic_id().to_le_bytes());
        // A ring holds no payload that a u32 cannot say.
        let len = u32::try_from(frame.payload_len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        frame.append_to(&mut self.bytes);
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the socket took so many bytes.
    pub(super) fn took(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Goes back to the beginning of the first frame that the last connection did not take whole.
    pub(super) fn rewind(&mut self) {
        let mut start = 0;
        while let Some(header) = header(&self.bytes[start..]) {
            let end = start + HEADER_LEN + header.1;
            if end > self.sent {
                break;
            }
            start = end;
        }
        self.bytes.drain(..start);
        self.sent = 0;
    }

    /// Frames that no connection took whole.
    pub(super) fn frames(&self) -> usize {
        let (mut count, mut start) = (0, 0);
        while let Some((_, len)) = header(&self.bytes[start..]) {
            start += HEADER_LEN + len;
            count += usize::from(start > self.sent);
        }
        count
    }
}

/// Type id and payload length of a frame, if its header is there.
fn header(bytes: &[u8]) -> Option<(u16, usize)> {
    let bytes = bytes.get(..HEADER_LEN)?;
    let len = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    Some((u16::from_le_bytes([bytes[0], bytes[1]]), len as usize))
}

/// What the oldest bytes from the bus are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'b> {
    /// Not a whole frame.
    Incomplete,
    /// The header of a frame whose payload is not there yet, with the length of that.
    Header(u16, usize),
    /// A whole frame.
    Frame(u16, &'b [u8]),
}

/// Bytes from the bus that were not handled yet. Bounded: a frame whose payload exceeds the bound has to be skipped.
#[derive(Debug)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that are dropped as they come.
    skip: usize,
}

impl Incoming {
    /// Room for frames of so many bytes of payload.
    pub(super) fn new(payload_max: usize) -> Self {
        Self {
            bytes: vec![0; (HEADER_LEN + payload_max).max(GATHER_MAX)],
            start: 0,
            end: 0,
            skip: 0,
        }
    }

    /// Forgets what came on a connection that has ended; says how many bytes of a frame there were.
    pub(super) fn clear(&mut self) -> usize {
        let left = self.end - self.start;
        (self.start, self.end, self.skip) = (0, 0, 0);
        left
    }

    /// Where the next bytes go; never empty unless a whole frame is waiting.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.bytes[self.end..]
    }

    /// Notes that so many bytes were put there.
    pub(super) fn received(&mut self, count: usize) {
        self.end += count;
        self.drop_skipped();
    }

    fn drop_skipped(&mut self) {
        let dropped = self.skip.min(self.end - self.start);
        self.start += dropped;
        self.skip -= dropped;
    }

    /// What comes next; nothing of it is taken.
    pub(super) fn peek(&self) -> Next<'_> {
        let bytes = &self.bytes[self.start..self.end];
        match header(bytes) {
            Some((type_id, len)) => match bytes.get(HEADER_LEN..HEADER_LEN + len) {
                Some(payload) => Next::Frame(type_id, payload),
                None => Next::Header(type_id, len),
            },
            None => Next::Incomplete,
        }
    }

    /// Drops the frame that comes next, also the part of it that is still to come.
    pub(super) fn skip(&mut self) {
        if let Some((_, len)) = header(&self.bytes[self.start..self.end]) {
            self.skip = HEADER_LEN + len;
            self.drop_skipped();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the format: type 1200, two numbers of eight bytes.
    const EXAMPLE: [u8; 22] = [
        0xB0, 0x04, 0x10, 0, 0, 0, 0x7C, 0x8C, 0x01, 0, 0, 0, 0, 0, 0xC4, 0x09, 0, 0, 0, 0, 0, 0,
    ];

    fn payload() -> Vec<u8> {
        [101_500_u64, 2_500].map(u64::to_le_bytes).concat()
    }

    fn feed(incoming: &mut Incoming, bytes: &[u8]) {
        incoming.room()[..bytes.len()].copy_from_slice(bytes);
        incoming.received(bytes.len());
    }

    #[test]
    fn a_frame_has_the_bytes_of_the_format() {
        let mut outgoing = Outgoing::default();
        outgoing.push(&Frame::new(1200, &payload()));
        assert_eq!(outgoing.unsent(), EXAMPLE);
    }

    #[test]
    fn the_handshake_has_the_bytes_of_the_format() {
        let bytes = handshake(&[7; 32]);
        assert_eq!(bytes[..2], [32, 0]);
        assert_eq!(bytes[2..], [7; 32]);
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        for piece in 1..EXAMPLE.len() {
            let mut incoming = Incoming::new(16);
            let stream = EXAMPLE.repeat(3);
            let mut found = 0;
            for bytes in stream.chunks(piece) {
                feed(&mut incoming, bytes);
                while let Next::Frame(type_id, bytes) = incoming.peek() {
                    assert_eq!((type_id, bytes), (1200, &payload()[..]));
                    incoming.skip();
                    found += 1;
                }
            }
            assert_eq!((found, incoming.peek()), (3, Next::Incomplete));
        }
    }

    #[test]
    fn a_frame_can_be_dropped_before_it_is_there() {
        let mut incoming = Incoming::new(16);
        let long = GATHER_MAX * 3;
        let mut header = vec![0x01, 0x10];
        header.extend_from_slice(&u32::try_from(long).expect("fits").to_le_bytes());
        feed(&mut incoming, &header);
        assert_eq!(incoming.peek(), Next::Header(0x1001, long));
        incoming.skip();
        let rest = [vec![9; long], EXAMPLE.to_vec()].concat();
        for bytes in rest.chunks(1000) {
            assert_eq!(incoming.peek(), Next::Incomplete);
            feed(&mut incoming, bytes);
        }
        assert_eq!(incoming.peek(), Next::Frame(1200, &payload()));
    }

    #[test]
    fn what_a_connection_took_in_part_is_sent_whole_on_the_next() {
        for taken in 0..=EXAMPLE.len() * 3 {
            let mut outgoing = Outgoing::default();
            for _ in 0..3 {
                outgoing.push(&Frame::new(1200, &payload()));
            }
            outgoing.took(taken);
            let whole = taken / EXAMPLE.len();
            assert_eq!(outgoing.frames(), 3 - whole, "taken={taken}");
            outgoing.rewind();
            assert_eq!(
                outgoing.unsent(),
                EXAMPLE.repeat(3 - whole),
                "taken={taken}"
            );
        }
    }
}
