//! What a header word in a ring may say, and the frame that it describes.

use std::ptr::NonNull;

use bytes::Bytes;
use mycelium_messages::Message;

use super::backing::Payload;
use crate::error::{Corrupt, DecodeError};
use crate::frame::{Encoding, FrameHeader};
use crate::layout;

/// What the header word at some index turned out to be.
pub(super) enum Record {
    /// Nothing is committed there.
    Empty,
    /// A padding record that fills the room to the end of the data area.
    Padding { len: usize },
    /// A frame.
    Frame(FrameHeader),
}

/// Checks a header word that was loaded from `index` of a ring.
///
/// The word is the peer's data: nothing in it is used before it is checked here.
#[inline]
pub(super) fn check(
    word: u64,
    index: usize,
    capacity: usize,
    position: u64,
) -> Result<Record, Corrupt> {
    if word == 0 {
        return Ok(Record::Empty);
    }
    let header = FrameHeader::from_word(word);
    if !header.is_pad()
        && header.topic_id != 0
        && header.payload_len as usize <= payload_max(index, capacity)
    {
        return Ok(Record::Frame(header));
    }
    check_rare(word, index, capacity, position)
}

/// Longest payload of a record that starts at `index`.
#[inline]
fn payload_max(index: usize, capacity: usize) -> usize {
    (capacity / layout::RING_RECORD_DIVISOR).min(capacity - index) - layout::FRAME_HEADER_LEN
}

/// What is neither empty nor a frame: padding, or something that no producer writes.
#[cold]
fn check_rare(word: u64, index: usize, capacity: usize, position: u64) -> Result<Record, Corrupt> {
    let header = FrameHeader::from_word(word);
    let corrupt = |field, value: u64, legal: std::ops::RangeInclusive<u64>| {
        Err(Corrupt {
            field,
            value,
            legal: (*legal.start(), *legal.end()),
            position,
            word,
        })
    };
    let payload_len = header.payload_len as usize;
    if !header.is_pad() {
        if header.topic_id == 0 {
            return corrupt("topic_id", 0, 1..=u16::MAX.into());
        }
        let payload_max = payload_max(index, capacity) as u64;
        return corrupt("payload_len", payload_len as u64, 0..=payload_max);
    }
    let room = capacity - index;
    let record_max = capacity / layout::RING_RECORD_DIVISOR;
    if header.topic_id != 0 {
        return corrupt("padding topic_id", header.topic_id.into(), 0..=0);
    }
    // A producer pads only when a record did not fit, so the padding is shorter than the longest record and never
    // starts at index 0, where every record fits.
    if room > record_max {
        return corrupt("padding room", room as u64, 8..=record_max as u64);
    }
    if layout::FRAME_HEADER_LEN + payload_len != room {
        let expected = (room - layout::FRAME_HEADER_LEN) as u64;
        return corrupt(
            "padding payload_len",
            payload_len as u64,
            expected..=expected,
        );
    }
    Ok(Record::Padding { len: room })
}

/// A frame in a ring or in a receive buffer, valid as long as it is borrowed.
///
/// The header is a checked local copy. The payload may still be changed by a peer that breaks the rules, so it is
/// copied out; no copy ever reads outside the record.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    header: FrameHeader,
    payload: Payload<'a>,
}

// SAFETY: a frame only reads the bytes behind its pointer, and those stay readable for `'a` whichever thread holds the
// frame; it stands for a `&'a [u8]`, which is Send.
unsafe impl Send for Frame<'_> {}
// SAFETY: as above; `&'a [u8]` is Sync.
unsafe impl Sync for Frame<'_> {}

impl<'a> Frame<'a> {
    /// # Safety
    ///
    /// `payload` points to `header.payload_len` bytes that stay readable for `'a`.
    #[inline]
    #[cfg(not(loom))]
    pub(crate) unsafe fn from_raw(header: FrameHeader, payload: NonNull<u8>) -> Self {
        let payload = Payload::at(payload);
        Self { header, payload }
    }

    /// # Safety
    ///
    /// `header.payload_len` bytes of `payload` stay readable for `'a`.
    #[inline]
    pub(super) unsafe fn from_payload(header: FrameHeader, payload: Payload<'a>) -> Self {
        Self { header, payload }
    }

    /// A frame over bytes of this process.
    ///
    /// # Panics
    ///
    /// If `payload` is longer than a `u32` counts.
    #[inline]
    #[must_use]
    pub fn new(topic_id: u16, payload: &'a [u8]) -> Self {
        let payload_len = u32::try_from(payload.len()).expect("a payload is shorter than 4 GiB");
        // SAFETY: the slice is readable for 'a and as long as the header says.
        unsafe {
            Self::from_payload(
                FrameHeader::new(topic_id, payload_len),
                Payload::at(NonNull::from(payload).cast()),
            )
        }
    }

    /// The same frame, marked as written in another encoding than the contract's layout.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.header = self.header.with_encoding(encoding);
        self
    }

    /// The checked header.
    #[inline]
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        self.header
    }

    /// The topic.
    #[inline]
    #[must_use]
    pub fn topic_id(&self) -> u16 {
        self.header.topic_id
    }

    /// Bytes of payload.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.header.payload_len as usize
    }

    #[inline]
    pub(super) fn payload(&self) -> Payload<'a> {
        self.payload
    }

    /// Where the payload lies, for calls that take raw pointers, such as a vectored write. [`Frame::payload_len`] bytes
    /// from there are readable as long as the frame is borrowed. Where the ring is shared, the peer may change them at
    /// any time, so make no reference to them.
    #[must_use]
    #[cfg(not(loom))]
    pub fn payload_ptr(&self) -> NonNull<u8> {
        self.payload.as_ptr()
    }

    /// Appends the payload to `buffer`.
    #[inline]
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        let len = self.payload_len();
        buffer.reserve(len);
        // SAFETY: source: `len` readable bytes by the contract of `from_raw`. Destination: `reserve` made room for
        // `len` bytes behind the initialised ones. They do not overlap, as `buffer` is exclusively borrowed. Bytes that
        // a peer changes meanwhile are still bytes.
        unsafe {
            self.payload
                .read_to(buffer.as_mut_ptr().add(buffer.len()), len);
            buffer.set_len(buffer.len() + len);
        }
    }

    /// Appends `len` bytes of the payload from `offset` on to `buffer`, as far as the payload has them.
    #[inline]
    pub fn append_part_to(&self, offset: usize, len: usize, buffer: &mut Vec<u8>) {
        let offset = offset.min(self.payload_len());
        let len = len.min(self.payload_len() - offset);
        buffer.reserve(len);
        // SAFETY: source: `offset + len` is at most the payload's length, whose bytes are readable by the contract of
        // `from_raw`. Destination: `reserve` made room for `len` bytes behind the initialised ones. They do not overlap,
        // as `buffer` is exclusively borrowed. Bytes that a peer changes meanwhile are still bytes.
        unsafe {
            self.payload
                .behind(offset)
                .read_to(buffer.as_mut_ptr().add(buffer.len()), len);
            buffer.set_len(buffer.len() + len);
        }
    }

    /// A copy of the payload.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// A copy of the payload that can be shared and sliced without copying it again. Costs one copy and one
    /// allocation of `payload_len` bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_vec())
    }

    /// A copy of the payload as a message. Costs one copy of `size_of::<M>()` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the frame is of another topic or encoding, or its payload has another length.
    #[inline]
    pub fn read<M: Message>(&self) -> Result<M, DecodeError> {
        if self.header.topic_id != M::TOPIC_ID {
            return Err(DecodeError::Topic {
                message: M::NAME,
                expected: M::TOPIC_ID,
                actual: self.header.topic_id,
            });
        }
        let encoding = self.header.encoding();
        if encoding != Encoding::Contract {
            return Err(DecodeError::Encoding {
                message: M::NAME,
                expected: Encoding::Contract.name(),
                actual: encoding.name(),
            });
        }
        if self.payload_len() != size_of::<M>() {
            return Err(DecodeError::Length {
                message: M::NAME,
                expected: size_of::<M>(),
                actual: self.payload_len(),
            });
        }
        let mut message = M::new_zeroed();
        // SAFETY: source: `payload_len == size_of::<M>()` readable bytes. Destination: a local of that size. `M:
        // FromBytes + IntoBytes` allows any bytes in it and has no padding.
        unsafe {
            self.payload.read_to(
                std::ptr::from_mut(&mut message).cast::<u8>(),
                size_of::<M>(),
            );
        }
        Ok(message)
    }
}
