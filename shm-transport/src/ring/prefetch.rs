//! Hints to the processor that a cache line will be needed. They change nothing but the time that passes.

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// The line at `address` will be read.
#[inline]
pub(super) fn to_read(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction is part of every x86-64 processor. It reads nothing that the program can see and never
    // faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// The line at `address` will be written.
#[inline]
pub(super) fn to_write(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction changes no register, no flag and no byte, and never faults, whatever the address.
    // Processors that do not have it treat it as no operation: all of those that run a 64-bit kernel.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
