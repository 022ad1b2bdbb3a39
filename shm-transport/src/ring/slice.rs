//! Stretches of ring memory for vectored system calls.

use std::marker::PhantomData;

use nix::libc;

/// Bytes that a stream may send, most often straight out of a ring. A peer that shares the ring and breaks its rules may
/// change them at any time, so there is no reference to them; they are copied, or read by the kernel.
///
/// ```
/// use shm_transport::ring::{RingSlice, RingSliceMut};
///
/// let mut target = [0_u8; 4];
/// assert_eq!(RingSliceMut::new(&mut target).copy_from(b"ring"), 4);
/// let mut copy = Vec::new();
/// assert_eq!(RingSlice::new(&target).append_to(&mut copy, 3), 3);
/// assert_eq!(copy, b"rin");
/// ```
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct RingSlice<'a> {
    iovec: libc::iovec,
    _borrow: PhantomData<&'a [u8]>,
}

/// Bytes that a stream may fill, most often room in a ring. There is no reference to them for the same reason.
#[repr(transparent)]
pub struct RingSliceMut<'a> {
    iovec: libc::iovec,
    _borrow: PhantomData<&'a mut [u8]>,
}

impl<'a> RingSlice<'a> {
    /// # Safety
    ///
    /// `len` bytes from `start` are readable for `'a`.
    pub(super) unsafe fn from_raw(start: *const u8, len: usize) -> Self {
        let iovec = libc::iovec {
            iov_base: start.cast_mut().cast(),
            iov_len: len,
        };
        let _borrow = PhantomData;
        Self { iovec, _borrow }
    }

    /// Bytes of this process.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        // SAFETY: a slice is readable for as long as it is borrowed.
        unsafe { Self::from_raw(bytes.as_ptr(), bytes.len()) }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iovec.iov_len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the first bytes, at most `max`, to `target`; says how many.
    pub fn append_to(&self, target: &mut Vec<u8>, max: usize) -> usize {
        let count = self.len().min(max);
        target.reserve(count);
        // SAFETY: source: `count <= len` readable bytes by the contract of `from_raw`. Destination: `reserve` made room
        // for `count` bytes behind the initialised ones. `target` is exclusively borrowed, so they do not overlap.
        unsafe {
            let end = target.as_mut_ptr().add(target.len());
            std::ptr::copy_nonoverlapping(self.iovec.iov_base.cast::<u8>(), end, count);
            target.set_len(target.len() + count);
        }
        count
    }
}

impl<'a> RingSliceMut<'a> {
    /// # Safety
    ///
    /// `len` bytes from `start` are initialised, writable for `'a`, and nobody else uses them meanwhile but a peer that
    /// breaks the rules.
    pub(super) unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        let iovec = libc::iovec {
            iov_base: start.cast(),
            iov_len: len,
        };
        let _borrow = PhantomData;
        Self { iovec, _borrow }
    }

    /// Bytes of this process.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        // SAFETY: an exclusively borrowed slice is writable and nobody else uses it.
        unsafe { Self::from_raw(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iovec.iov_len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills the first bytes from `source`, as far as both reach; says how many.
    pub fn copy_from(&mut self, source: &[u8]) -> usize {
        let count = self.len().min(source.len());
        // SAFETY: destination: `count <= len` writable bytes by the contract of `from_raw`, which nobody else uses;
        // source: as many readable ones, of a borrow that cannot overlap with them.
        unsafe {
            let start = self.iovec.iov_base.cast::<u8>();
            std::ptr::copy_nonoverlapping(source.as_ptr(), start, count);
        }
        count
    }
}

impl std::fmt::Debug for RingSlice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSlice")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RingSliceMut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSliceMut")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
