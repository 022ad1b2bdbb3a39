//! Records that come from a stream straight into the ring, in pieces of any length.
//!
//! What lies behind the producer's position is invisible as long as the header word there is 0. So a read may fill the
//! room behind that word with whatever has arrived; the first header is kept outside until there is a whole record.
//! Offsets count from the producer's position.

use super::producer::Producer;
use super::slice::RingSliceMut;
use crate::error::Corrupt;
use crate::frame::FrameHeader;
use crate::layout::{FRAME_ALIGN, FRAME_HEADER_LEN, RING_RECORD_DIVISOR};
use crate::sync::Ordering;

impl Producer {
    /// Bytes from the producer's position on that may be filled now, in one piece, the first header word included. Eight
    /// more are free behind them, for the word that ends what is committed.
    pub(crate) fn piece(&mut self, wanted: usize) -> Result<usize, Corrupt> {
        let to_end = self.capacity() - self.index(self.position);
        if self.spare() < wanted.min(to_end) {
            self.refresh_head()?;
        }
        Ok(self.spare().min(to_end))
    }

    /// Bytes to the end of the data area.
    pub(crate) fn to_end(&self) -> usize {
        self.capacity() - self.index(self.position)
    }

    fn spare(&self) -> usize {
        self.free(self.position).saturating_sub(FRAME_HEADER_LEN)
    }

    /// Room to fill: `len` bytes at `offset`, behind the first header word.
    ///
    /// # Panics
    ///
    /// If that is not inside [`Producer::piece`].
    pub(crate) fn room(&mut self, offset: usize, len: usize) -> RingSliceMut<'_> {
        self.check_piece(offset, len);
        let bytes = self
            .memory
            .bytes(self.index(self.position) + offset, len)
            .as_ptr();
        // SAFETY: `check_piece` found the bytes inside the free part of the data area, in one piece, and behind the first
        // header word; the consumer looks at nothing there before that word is stored. `&mut self` keeps this end from
        // using them otherwise. The memory outlives the borrow.
        unsafe { RingSliceMut::from_raw(bytes.as_ptr(), len) }
    }

    /// The header at `offset`, which was filled before.
    pub(crate) fn header_at(&self, offset: usize) -> FrameHeader {
        FrameHeader::from_word(self.free_word(offset).load(Ordering::Relaxed))
    }

    /// Puts a header at `offset`, which is not the first.
    pub(crate) fn set_header(&mut self, offset: usize, header: FrameHeader) {
        debug_assert!(offset > 0);
        self.free_word(offset)
            .store(header.to_word(), Ordering::Relaxed);
    }

    /// Moves `len` bytes that were filled from one offset to a lower one.
    ///
    /// # Panics
    ///
    /// If either is not inside [`Producer::piece`].
    pub(crate) fn move_back(&mut self, from: usize, to: usize, len: usize) {
        self.check_piece(from, len);
        self.check_piece(to, len);
        let index = self.index(self.position);
        let source = self.memory.bytes(index + from, len).as_ptr();
        let target = self.memory.bytes(index + to, len).as_ptr();
        // SAFETY: both are `len` bytes inside the free part of the data area, by `check_piece`; they may overlap.
        unsafe { std::ptr::copy(source.as_ptr(), target.as_ptr(), len) }
    }

    /// A copy of `len` bytes that were filled at `offset`.
    ///
    /// # Panics
    ///
    /// As [`Producer::room`].
    pub(crate) fn filled(&self, offset: usize, len: usize) -> Vec<u8> {
        self.check_piece(offset, len);
        let mut copy = Vec::with_capacity(len);
        let source = self.memory.bytes(self.index(self.position) + offset, len);
        // SAFETY: `check_piece` found `len` readable bytes; the vector has room for as many, and does not overlap.
        unsafe {
            source.read_to(copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        copy
    }

    /// Commits `len` bytes of whole records from the producer's position on, the first of which has this header. Their
    /// other headers are in place. What was filled behind them loses its first eight bytes.
    ///
    /// # Panics
    ///
    /// If that is not inside [`Producer::piece`].
    pub(crate) fn commit_filled(&mut self, first: FrameHeader, len: usize) {
        assert!(
            len >= FRAME_HEADER_LEN && len.is_multiple_of(FRAME_ALIGN),
            "no records: len={len}"
        );
        self.check_piece(FRAME_HEADER_LEN, len - FRAME_HEADER_LEN);
        let (index, end) = (self.index(self.position), self.position + len as u64);
        self.publish(index, first.to_word(), end);
    }

    /// Commits padding up to the end of the data area, so that the record whose `filled` bytes behind the header lie at
    /// the producer's position goes on at index 0, where it has room in one piece. False if there is not room enough yet.
    ///
    /// The record must not fit before the end.
    pub(crate) fn pad_to_start(&mut self, filled: usize) -> Result<bool, Corrupt> {
        let pad = self.to_end();
        debug_assert!(pad <= self.capacity() / RING_RECORD_DIVISOR);
        assert!(
            FRAME_HEADER_LEN + filled <= pad,
            "more was filled than there is room: filled={filled} pad={pad}"
        );
        let needed = pad + FRAME_HEADER_LEN + filled + FRAME_HEADER_LEN;
        if self.free(self.position) < needed {
            self.refresh_head()?;
            if self.free(self.position) < needed {
                return Ok(false);
            }
        }
        let index = self.index(self.position);
        let source = self.memory.bytes(index + FRAME_HEADER_LEN, filled).as_ptr();
        let target = self.memory.bytes(FRAME_HEADER_LEN, filled).as_ptr();
        // SAFETY: source: `filled` bytes up to the end of the data area at most, by the assertion. Destination: bytes at its
        // start that are free, because padding, header and they fit in what is. They may overlap.
        unsafe { std::ptr::copy(source.as_ptr(), target.as_ptr(), filled) }
        let end = self.position + pad as u64;
        self.publish(index, FrameHeader::padding(pad).to_word(), end);
        Ok(true)
    }

    fn free_word(&self, offset: usize) -> &crate::sync::AtomicU64 {
        self.check_piece(offset, FRAME_HEADER_LEN);
        self.memory.word(self.index(self.position) + offset)
    }

    /// `offset..offset + len` must be free and in one piece, by what is known of the head.
    fn check_piece(&self, offset: usize, len: usize) {
        let end = offset + len;
        assert!(
            end <= self.to_end() && (len == 0 || end <= self.spare()),
            "outside the free piece: offset={offset} len={len} free={} to_end={}",
            self.spare(),
            self.to_end()
        );
    }
}
