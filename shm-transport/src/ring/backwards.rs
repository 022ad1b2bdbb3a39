//! Payloads that are written from the end to the start.
//!
//! A consumer polls the line that the header will be in. Once the producer writes a byte there, the line has left the
//! consumer's cache, so the consumer asks for it back, and may get it before the header is in it: then the commit has to
//! take the line over a second time. Written last, with the header right behind, the line is there for too short a time to
//! be taken away.

use super::backing::Payload;
use crate::sync::{Ordering, compiler_fence};

/// Bytes that are written at once.
const CHUNK: usize = 16;
/// The longest payload that is written so. In a longer one the time of one line counts for little, and the quickest copy
/// runs forwards.
const LEN_MAX: usize = 64;

/// Writes `len` bytes of `source` to the start of `target`, the first ones last unless there are many.
///
/// # Safety
///
/// As [`Payload::write_from`].
#[inline(always)]
pub(super) unsafe fn write(target: Payload<'_>, source: Payload<'_>, len: usize) {
    if !(CHUNK..=LEN_MAX).contains(&len) {
        // SAFETY: by the contract of this function.
        unsafe { target.write_from(0, source, len) }
        return;
    }
    let mut at = len - CHUNK;
    loop {
        // SAFETY: `at + CHUNK <= len`, so it is a part of what the contract of this function allows.
        unsafe { target.write_from(at, source.behind(at), CHUNK) };
        if at == 0 {
            return;
        }
        // The order is a matter of time alone. Without this the compiler makes one copy of it, which starts at the front.
        compiler_fence(Ordering::SeqCst);
        // The foremost two chunks overlap where the length is no multiple of theirs.
        at = at.saturating_sub(CHUNK);
    }
}
