//! Inputs for tests: the seeds of a target and what becomes of them, always the same for the same
//! number.

use crate::Target;

/// Longest input that is made.
const LONGEST: usize = 2048;

/// Makes inputs.
pub struct Generator {
    seeds: Vec<Vec<u8>>,
    dictionary: &'static [&'static [u8]],
    state: u64,
}

impl Generator {
    /// For a target.
    pub fn new(target: &Target) -> Self {
        let seeds = (target.seeds)();
        Self { seeds, dictionary: target.dictionary, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn below(&mut self, limit: usize) -> usize {
        // Marsaglia's xorshift.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 16).unwrap_or_default() % limit.max(1)
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.seeds.len());
        self.seeds.get(index).cloned().unwrap_or_default()
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or_default()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(7) {
            0 => bytes.insert(at, self.seed_byte()),
            1 => {
                let end = (at + 1 + self.below(8)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            2 => {
                let word = self.word();
                bytes.splice(at..at, word);
            }
            3 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 => {
                let end = (at + self.below(32)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let byte = self.byte();
                let shift = self.below(8);
                if let Some(old) = bytes.get_mut(at) {
                    *old = if byte < 128 { byte } else { *old ^ (1 << shift) };
                }
            }
        }
    }

    fn seed_byte(&mut self) -> u8 {
        let seed = self.seed();
        let at = self.below(seed.len());
        seed.get(at).copied().unwrap_or_default()
    }

    fn word(&mut self) -> Vec<u8> {
        let index = self.below(self.dictionary.len());
        self.dictionary.get(index).map_or_else(|| vec![0], |word| word.to_vec())
    }
}

impl Iterator for Generator {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = if self.below(16) == 0 { self.noise() } else { self.seed() };
        for _ in 0..self.below(6) {
            self.change(&mut bytes);
        }
        bytes.truncate(LONGEST);
        Some(bytes)
    }
}
