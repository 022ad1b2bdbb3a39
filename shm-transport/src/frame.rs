//! The frame: eight bytes of header, then the payload. Pure bytes in, value out.
//!
//! ```text
//! offset  size  field
//! 0       4     payload_len  u32 LE, bytes of payload without padding
//! 4       2     topic_id     u16 LE, never 0 for a message
//! 6       2     flags        u16 LE, bit 0 PAD, bits 1-2 encoding
//! 8       n     payload
//! 8+n     0..7  zero padding to a multiple of 8
//! ```
//!
//! Read as one little-endian `u64`, the header is the *header word*. It is never 0 for a frame, which is what lets it
//! double as the commit word of a ring record.

use crate::layout;

pub use mycelium_messages::message::Encoding;

/// The decoded header of a frame.
///
/// Aligned as the header word is, so that moving one around is one move of eight bytes: a load that finds parts of itself in
/// several stores on their way to the cache waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FrameHeader {
    /// Bytes of payload, padding excluded.
    pub payload_len: u32,
    /// The contract's `tlv_type`; 0 only in a padding record.
    pub topic_id: u16,
    /// Flag bits; see [`layout::FLAG_PAD`] and [`FrameHeader::encoding`].
    pub flags: u16,
}

impl FrameHeader {
    /// The header of a frame in the contract's binary layout.
    #[must_use]
    pub const fn new(topic_id: u16, payload_len: u32) -> Self {
        Self {
            payload_len,
            topic_id,
            flags: layout::ENCODING_CONTRACT << layout::FLAG_ENCODING_SHIFT,
        }
    }

    /// The same header with another encoding.
    #[must_use]
    pub const fn with_encoding(mut self, encoding: Encoding) -> Self {
        let bits = match encoding {
            Encoding::Contract => layout::ENCODING_CONTRACT,
            Encoding::MsgPack => layout::ENCODING_MSGPACK,
            Encoding::Json => layout::ENCODING_JSON,
            Encoding::Raw => layout::ENCODING_RAW,
        };
        self.flags =
            (self.flags & !layout::FLAG_ENCODING_MASK) | (bits << layout::FLAG_ENCODING_SHIFT);
        self
    }

    /// The header of a padding record that fills `room` bytes, header included.
    pub(crate) const fn padding(room: usize) -> Self {
        Self {
            payload_len: (room - layout::FRAME_HEADER_LEN) as u32,
            topic_id: 0,
            flags: layout::FLAG_PAD,
        }
    }

    /// The header word.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.payload_len as u64 | (self.topic_id as u64) << 32 | (self.flags as u64) << 48
    }

    /// The header in a header word. Any word decodes; whether it makes sense is for the caller to check.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            payload_len: word as u32,
            topic_id: (word >> 32) as u16,
            flags: (word >> 48) as u16,
        }
    }

    /// The header in the first eight bytes of a frame.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; layout::FRAME_HEADER_LEN]) -> Self {
        Self::from_word(u64::from_le_bytes(bytes))
    }

    /// The first eight bytes of the frame.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; layout::FRAME_HEADER_LEN] {
        self.to_word().to_le_bytes()
    }

    /// Bytes that the frame takes in its stream: header, payload and padding to a multiple of 8.
    #[must_use]
    pub const fn record_len(self) -> usize {
        record_len(self.payload_len as usize)
    }

    /// Whether this is a padding record, which exists in rings only.
    #[must_use]
    pub const fn is_pad(self) -> bool {
        self.flags & layout::FLAG_PAD != 0
    }

    /// Whether the topic is in the core range, which is reserved for control frames.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.topic_id >= layout::CORE_TOPIC_MIN && self.topic_id <= layout::CORE_TOPIC_MAX
    }

    /// How the payload is encoded.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        match (self.flags & layout::FLAG_ENCODING_MASK) >> layout::FLAG_ENCODING_SHIFT {
            layout::ENCODING_MSGPACK => Encoding::MsgPack,
            layout::ENCODING_JSON => Encoding::Json,
            layout::ENCODING_RAW => Encoding::Raw,
            _ => Encoding::Contract,
        }
    }
}

/// Bytes that a frame with `payload_len` bytes of payload takes in its stream.
#[must_use]
pub const fn record_len(payload_len: usize) -> usize {
    (layout::FRAME_HEADER_LEN + payload_len + layout::FRAME_ALIGN - 1) & !(layout::FRAME_ALIGN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_word_has_the_documented_bytes() {
        let header = FrameHeader {
            payload_len: 0x0403_0201,
            topic_id: 0x0605,
            flags: 0x0807,
        };
        assert_eq!(header.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(FrameHeader::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]), header);
    }

    #[test]
    fn record_len_is_a_multiple_of_eight_that_holds_header_and_payload() {
        for (payload_len, expected) in [(0, 8), (1, 16), (8, 16), (9, 24), (64, 72)] {
            assert_eq!(
                record_len(payload_len),
                expected,
                "payload_len={payload_len}"
            );
        }
    }

    #[test]
    fn every_encoding_survives_the_flags() {
        for encoding in [
            Encoding::Contract,
            Encoding::MsgPack,
            Encoding::Json,
            Encoding::Raw,
        ] {
            let header = FrameHeader::new(1000, 5).with_encoding(encoding);
            assert_eq!(
                FrameHeader::from_word(header.to_word()).encoding(),
                encoding
            );
            assert!(!header.is_pad());
        }
    }
}
