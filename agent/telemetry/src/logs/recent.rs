//! The newest lines of the log, in memory.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most bytes that are kept.
const MAX_BYTES: usize = 256 << 10;

/// Lines, and what has become of older ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    forgotten: u64,
}

impl Recent {
    /// All of them, oldest first, and how many were before.
    pub(super) fn lines(&self) -> (String, u64) {
        let kept = self.lock();
        let mut text = String::with_capacity(kept.bytes);
        kept.lines.iter().for_each(|line| text.push_str(line));
        (text, kept.forgotten)
    }

    fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        // One line that is longer than all that is kept does not push everything else out.
        let line: Box<str> = match text.char_indices().nth(MAX_BYTES / 8) {
            Some((end, _)) => format!("{}...\n", &text[..end]).into(),
            None => text.into(),
        };
        let mut kept = self.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
            kept.forgotten += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer whose lines are kept as well. What writes a log writes a line at a time.
pub(super) struct Tee<W> {
    to: W,
    recent: Recent,
}

impl<W> Tee<W> {
    pub(super) fn new(to: W, recent: Recent) -> Self {
        Self { to, recent }
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.recent.push(line);
        // All of it: the rest would come again, as a line of its own.
        self.to.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_older_ones_are_counted() {
        let recent = Recent::default();
        let mut out = Vec::new();
        let mut tee = Tee::new(&mut out, recent.clone());
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            tee.write_all(line.as_bytes()).unwrap();
        }
        tee.write_all(b"last\n").unwrap();
        let (text, forgotten) = recent.lines();
        assert!(text.len() <= MAX_BYTES && text.ends_with("x\nlast\n"), "{}", text.len());
        assert_eq!(forgotten, 300 - 255);
        assert_eq!(out.len(), 300 * 1024 + 5);
    }

    #[test]
    fn a_line_without_end_does_not_push_out_the_others() {
        let recent = Recent::default();
        recent.push(b"before\n");
        recent.push("ä".repeat(MAX_BYTES).as_bytes());
        let (text, forgotten) = recent.lines();
        assert!(text.starts_with("before\nä") && text.ends_with("...\n"), "{}", text.len());
        assert_eq!(forgotten, 0);
    }
}
