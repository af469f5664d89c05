//! Takes structure out of an input: whatever the bytes are, there is something to read. Where they
//! end, everything is zero.

/// Texts are no longer than that, or little: words may be long.
const LONGEST: usize = 200 << 10;

/// An input that is read from its beginning.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// At most so many bytes, as they are.
    pub(crate) fn raw(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Up to so many words of a list, joined.
    pub(crate) fn words(&mut self, list: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| self.pick(list)).collect()
    }

    /// The rest as a text of words: a byte stands for the word at its place in the list, and one
    /// without a word announces a byte that is meant as it is.
    pub(crate) fn spelled(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut text = Vec::new();
        while !self.is_empty() && text.len() < LONGEST {
            match words.get(usize::from(self.byte())) {
                Some(word) => text.extend_from_slice(word),
                None => text.push(self.byte()),
            }
        }
        text
    }
}

/// Lengths of the pieces in which bytes come: all at once, one by one, or as a number has it.
#[derive(Clone, Debug)]
pub(crate) struct Pieces(u32);

impl Pieces {
    pub(crate) fn new(seed: u8) -> Self {
        Self(u32::from(seed))
    }

    pub(crate) fn length(&mut self) -> usize {
        match self.0 {
            0 => return usize::MAX,
            1 => return 1,
            _ => {}
        }
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) | 2;
        // Mostly short, sometimes long.
        let most = if self.0 >> 28 == 0 { 4096 } else { 24 };
        1 + usize::try_from(self.0 >> 8).unwrap_or_default() % most
    }
}

/// Writes a text so that [`Source::spelled`] reads it back.
pub(crate) fn spell(text: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut spelled = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.first() {
        let fits = words.iter().enumerate().filter(|(_, word)| rest.starts_with(word));
        let longest = fits.max_by_key(|(_, word)| word.len());
        match longest.and_then(|(index, word)| Some((u8::try_from(index).ok()?, word))) {
            Some((index, word)) if !word.is_empty() => {
                spelled.push(index);
                rest = &rest[word.len()..];
            }
            _ => {
                spelled.extend([u8::MAX, *first]);
                rest = &rest[1..];
            }
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelled_is_read_back() {
        let words: [&[u8]; 3] = [b"GET ", b"\r\n", b"\r\n\r\n"];
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let spelled = spell(text, &words);
        assert!(spelled.contains(&2));
        assert_eq!(Source::new(&spelled).spelled(&words), text);
    }

    #[test]
    fn pieces_are_never_empty() {
        for seed in 0..=u8::MAX {
            let mut pieces = Pieces::new(seed);
            assert!((0..100).all(|_| pieces.length() > 0));
        }
    }
}
