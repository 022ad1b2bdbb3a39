//! What is in the payloads, and the check of it.
//!
//! Two patterns. The *whole* one depends on the message's number in every byte, so writing and checking it touches every
//! byte: the content checks and the latency cases use it. The *stamp* is the number in the first and in the last eight
//! bytes: the throughput cases use it, where the bytes between are copied in and out but not computed.

use crate::Failure;

/// First word of the message that ends a run; no message has this number.
pub const END: u64 = u64::MAX;

/// Makes the words of neighbouring messages, and the words of one message, differ in many bits.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Writes the whole pattern of message `seq`. `payload.len()` is a multiple of 8 and not 0.
#[inline]
pub fn write(payload: &mut [u8], seq: u64) {
    let mut word = seq.wrapping_mul(MIX);
    for chunk in payload.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(MIX | 1);
    }
    stamp_first(payload, seq);
}

/// Checks every byte of message `seq`.
///
/// # Errors
///
/// [`Failure::Content`].
#[inline]
pub fn check(payload: &[u8], payload_len: usize, seq: u64) -> Result<(), Failure> {
    let mut word = seq.wrapping_mul(MIX);
    let mut differs = payload_len as u64 ^ payload.len() as u64 | first(payload) ^ seq;
    for (number, chunk) in payload.chunks_exact(8).enumerate() {
        let read = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        differs |= if number == 0 { 0 } else { read ^ word };
        word = word.wrapping_add(MIX | 1);
    }
    sound(differs, payload, payload_len, seq)
}

/// Stamps message `seq`.
#[inline]
pub fn stamp(payload: &mut [u8], seq: u64) {
    stamp_first(payload, seq);
    if let Some(last) = payload.last_chunk_mut::<8>() {
        *last = seq.to_le_bytes();
    }
}

/// Checks the stamp of message `seq`.
///
/// # Errors
///
/// [`Failure::Content`].
#[inline]
pub fn check_stamp(payload: &[u8], payload_len: usize, seq: u64) -> Result<(), Failure> {
    let last = payload
        .last_chunk()
        .map_or(0, |last| u64::from_le_bytes(*last));
    let differs = payload_len as u64 ^ payload.len() as u64 | first(payload) ^ seq | last ^ seq;
    sound(differs, payload, payload_len, seq)
}

/// The first word: the number of the message, or [`END`].
#[inline]
#[must_use]
pub fn first(payload: &[u8]) -> u64 {
    payload
        .first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}

#[inline]
fn stamp_first(payload: &mut [u8], seq: u64) {
    if let Some(first) = payload.first_chunk_mut::<8>() {
        *first = seq.to_le_bytes();
    }
}

#[inline]
fn sound(differs: u64, payload: &[u8], expected_len: usize, seq: u64) -> Result<(), Failure> {
    if differs == 0 {
        return Ok(());
    }
    Err(Failure::Content {
        seq,
        payload_len: payload.len(),
        expected_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_matches_itself_and_any_changed_byte_shows() {
        for payload_len in [8, 64, 1024] {
            let mut payload = vec![0; payload_len];
            write(&mut payload, 77);
            check(&payload, payload_len, 77).expect("the same message");
            check(&payload, payload_len, 78).expect_err("another number");
            check(&payload, payload_len + 8, 77).expect_err("another length");
            for at in 0..payload_len {
                payload[at] ^= 1;
                check(&payload, payload_len, 77).expect_err("a changed byte");
                payload[at] ^= 1;
            }
        }
    }

    #[test]
    fn a_stamp_is_at_both_ends() {
        let mut payload = [0; 24];
        stamp(&mut payload, 5);
        check_stamp(&payload, 24, 5).expect("stamped");
        payload[16] ^= 1;
        check_stamp(&payload, 24, 5).expect_err("torn");
    }
}
