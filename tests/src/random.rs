//! Random numbers that follow from a seed, so that a run can be had again.
//!
//! Written here, so that a seed means the same run whatever the version of a package is.

/// SplitMix64: one word of state, and every seed is as good as any other.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True once in `many` times.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One of several.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.index(among.len())]
    }

    /// A length from `min` to `max`, with both ends often.
    pub fn length(&mut self, min: usize, max: usize) -> usize {
        match self.below(4) {
            0 => min,
            1 => max,
            _ => min + self.index(max - min + 1),
        }
    }

    /// Bytes; all zero and all ones often.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        match self.below(6) {
            0 => vec![0; len],
            1 => vec![0xFF; len],
            _ => (0..len).map(|_| self.bits().to_le_bytes()[0]).collect(),
        }
    }

    /// A number of up to 128 bits, of any magnitude.
    pub fn wide(&mut self) -> u128 {
        let bits = u128::from(self.bits()) << 64 | u128::from(self.bits());
        bits >> self.below(128)
    }
}
