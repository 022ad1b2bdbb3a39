//! Random numbers that a seed repeats, with a liking for edges.

/// SplitMix64: every seed gives another sequence, and the same one each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % u64::try_from(end).expect("64 bits")).expect("below end")
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// From `min` to `max`, with both ends often.
    pub(crate) fn length(&mut self, min: usize, max: usize) -> usize {
        match self.below(4) {
            0 => min,
            1 => max,
            _ => min + self.below(max - min + 1),
        }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Bytes; all zero and all ones often.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        match self.below(6) {
            0 => vec![0; len],
            1 => vec![0xFF; len],
            _ => (0..len).map(|_| self.bits().to_le_bytes()[0]).collect(),
        }
    }

    /// 128 random bits, of which only some low ones where `narrow`.
    pub(crate) fn wide(&mut self) -> u128 {
        let bits = u128::from(self.bits()) << 64 | u128::from(self.bits());
        bits >> self.below(128)
    }
}
