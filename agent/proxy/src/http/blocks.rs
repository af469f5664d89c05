//! Where the frames of a client's HTTP/2 connection begin and end, so that nobody can hold one back for
//! ever: between HEADERS and the last CONTINUATION the connection does nothing else, and a client that
//! owes the rest answers no PING either. The frames themselves are read by h2. Pure and total.

/// What comes before the first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Bytes that come before the next frame.
    skip: usize,
    /// Some of those belong to the preface or to a frame that is no DATA.
    owed: bool,
    head: [u8; FRAME_HEAD],
    /// How much of the next frame's head was seen.
    seen: usize,
    /// A header block has begun that has not ended.
    block: bool,
    /// Nothing but the preface has come.
    fresh: bool,
    /// What has come after it are no settings.
    wrong: bool,
}

impl Default for Blocks {
    fn default() -> Self {
        let head = [0; FRAME_HEAD];
        Self { skip: PREFACE, owed: true, head, seen: 0, block: false, fresh: true, wrong: false }
    }
}

impl Blocks {
    /// Whether the client owes the rest of something that it has begun; a body may take as long as it
    /// likes.
    pub(super) fn is_owing(&self) -> bool {
        self.fresh || self.block || self.seen > 0 || (self.skip > 0 && self.owed)
    }

    /// Whether the connection has not begun as it has to (RFC 9113, section 3.4).
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// Looks at bytes; says whether anything that was owed has come to its end.
    pub(super) fn passed(&mut self, mut bytes: &[u8]) -> bool {
        let (mut settled, mut owed) = (false, self.is_owing());
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            settled |= owed && !self.is_owing();
            if bytes.is_empty() {
                return settled;
            }
            // The rest of a frame's head.
            owed = true;
            let part = (FRAME_HEAD - self.seen).min(bytes.len());
            self.head[self.seen..self.seen + part].copy_from_slice(&bytes[..part]);
            self.seen += part;
            bytes = &bytes[part..];
            if self.seen == FRAME_HEAD {
                self.begun();
            }
        }
    }

    /// The head of a frame is known.
    fn begun(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.owed = kind != DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = flags & END_HEADERS == 0;
        }
        self.wrong |= self.fresh && kind != SETTINGS;
        self.seen = 0;
        self.fresh = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + usize::from(length), 0);
        frame
    }

    fn started() -> Blocks {
        let mut blocks = Blocks::default();
        assert!(blocks.is_owing());
        blocks.passed(&[0; PREFACE]);
        assert!(blocks.is_owing(), "settings have to follow");
        assert!(blocks.passed(&frame(SETTINGS, 0, 6)));
        assert!(!blocks.is_owing() && !blocks.is_wrong());
        blocks
    }

    #[test]
    fn a_block_is_owed_until_its_last_frame_has_come() {
        let mut blocks = started();
        assert!(!blocks.passed(&frame(HEADERS, 0, 3)));
        assert!(blocks.is_owing());
        assert!(!blocks.passed(&frame(CONTINUATION, 0, 0)));
        assert!(blocks.is_owing());
        assert!(blocks.passed(&frame(CONTINUATION, END_HEADERS, 3)));
        assert!(!blocks.is_owing());
    }

    #[test]
    fn settings_come_first() {
        let mut blocks = Blocks::default();
        blocks.passed(&[0; PREFACE]);
        blocks.passed(&frame(HEADERS, END_HEADERS, 3));
        assert!(blocks.is_wrong());
    }

    #[test]
    fn a_body_is_not_owed_and_everything_else_is() {
        let mut blocks = started();
        blocks.passed(&frame(DATA, 0, 9)[..12]);
        assert!(!blocks.is_owing());
        blocks.passed(&[0; 6]);
        blocks.passed(&frame(6, 0, 8)[..12]);
        assert!(blocks.is_owing());
        assert!(blocks.passed(&[0; 5]));
        assert!(!blocks.is_owing());
        blocks.passed(&[0; 4]);
        assert!(blocks.is_owing(), "not even the head of a frame");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_arrive(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0usize..200,
        ) {
            let (mut whole, mut parts) = (Blocks::default(), Blocks::default());
            whole.passed(&bytes);
            let (one, two) = bytes.split_at(at.min(bytes.len()));
            parts.passed(one);
            parts.passed(two);
            prop_assert_eq!(format!("{whole:?}"), format!("{parts:?}"));
        }
    }
}
