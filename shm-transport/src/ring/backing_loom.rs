//! The bytes of a ring under the model checker: words of its own kind instead of memory behind pointers.
//!
//! Each word is an atomic of the checker. Payload bytes are read and written as relaxed words, so that a reader who is
//! not ordered behind the writer gets stale ones, and every such access is also noted in a cell that the checker
//! watches, so that two accesses without order between them fail the model even if the values happen to be right.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::error::CreateError;
use crate::layout;
use crate::sync::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();
/// Distance of two control words.
const CONTROL_STEP: usize = layout::RING_TAIL_OFFSET;

#[derive(Clone)]
pub(super) struct Backing {
    words: Arc<Words>,
}

struct Words {
    control: [AtomicU64; 4],
    data: Vec<Word>,
}

struct Word {
    value: AtomicU64,
    payload: UnsafeCell<()>,
}

// SAFETY: the cells hold nothing; the checker watches who touches them when, which is what they are for.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Backing {
    pub(super) fn heap(capacity: usize) -> Result<Self, CreateError> {
        let word = || Word {
            value: AtomicU64::new(0),
            payload: UnsafeCell::new(()),
        };
        let words = Words {
            control: std::array::from_fn(|_| AtomicU64::new(0)),
            data: (0..capacity / WORD).map(|_| word()).collect(),
        };
        Ok(Self {
            words: Arc::new(words),
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.words.data.len() * WORD
    }

    pub(super) fn control_word(&self, offset: usize) -> &AtomicU64 {
        &self.words.control[offset / CONTROL_STEP]
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index.is_multiple_of(WORD), "index={index}");
        &self.words.data[index / WORD].value
    }

    /// A hint is nothing to the model checker.
    pub(super) fn prefetch_behind(&self, _index: usize) {}

    /// A hint is nothing to the model checker.
    pub(super) fn prefetch_to_write(&self, _index: usize, _len: usize) {}

    pub(super) fn payload(&self, index: usize, len: usize) -> Payload<'_> {
        assert!(index + len <= self.capacity(), "index={index} len={len}");
        Payload::Ring {
            backing: self,
            index,
        }
    }
}

impl std::fmt::Debug for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backing").finish_non_exhaustive()
    }
}

/// Payload bytes in a ring, or in memory of this process.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Ring {
        backing: &'a Backing,
        index: usize,
    },
    Local {
        start: NonNull<u8>,
        borrow: PhantomData<&'a [u8]>,
    },
}

impl Payload<'_> {
    pub(super) fn at(start: NonNull<u8>) -> Self {
        let borrow = PhantomData;
        Self::Local { start, borrow }
    }

    /// # Safety
    ///
    /// `offset` is at most the number of readable bytes.
    pub(super) unsafe fn behind(self, offset: usize) -> Self {
        match self {
            // SAFETY: by the contract of this function.
            Self::Local { start, .. } => Self::at(unsafe { start.add(offset) }),
            Self::Ring { backing, index } => Self::Ring {
                backing,
                index: index + offset,
            },
        }
    }

    /// # Safety
    ///
    /// `len` bytes of this payload are readable and `len` bytes at `target` writable; the two do not overlap.
    pub(super) unsafe fn read_to(self, target: *mut u8, len: usize) {
        match self {
            // SAFETY: by the contract of this function.
            Self::Local { start, .. } => unsafe {
                std::ptr::copy_nonoverlapping(start.as_ptr(), target, len);
            },
            Self::Ring { backing, index } => {
                for offset in 0..len {
                    let at = index + offset;
                    let word = &backing.words.data[at / WORD];
                    if offset == 0 || at.is_multiple_of(WORD) {
                        word.payload.with(|_| ());
                    }
                    let byte = word.value.load(Ordering::Relaxed).to_le_bytes()[at % WORD];
                    // SAFETY: `target` has room for `len` bytes.
                    unsafe { target.add(offset).write(byte) };
                }
            }
        }
    }

    /// # Safety
    ///
    /// `len` bytes of `source` are readable.
    ///
    /// # Panics
    ///
    /// If a part of a word is written: the models write whole ones.
    pub(super) unsafe fn write_from(self, offset: usize, source: Payload<'_>, len: usize) {
        let Self::Ring { backing, index } = self else {
            panic!("a reservation lies in a ring");
        };
        assert!(
            (offset % WORD, len % WORD) == (0, 0),
            "models write whole words"
        );
        let mut bytes = vec![0_u8; len];
        // SAFETY: by the contract of this function; the buffer has the length.
        unsafe { source.read_to(bytes.as_mut_ptr(), len) };
        let first = (index + offset) / WORD;
        for (word, bytes) in backing.words.data[first..]
            .iter()
            .zip(bytes.chunks_exact(WORD))
        {
            word.payload.with_mut(|_| ());
            let value = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            word.value.store(value, Ordering::Relaxed);
        }
    }
}
