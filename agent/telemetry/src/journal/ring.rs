//! The ring of pages, and how far its readers are.

use std::{collections::VecDeque, mem, ops::Range, sync::Arc};

use super::Excerpt;
use crate::page::Page;

/// Records that may wait for the writer.
pub(super) const MOST: u64 = 16_384;
/// Bytes of their texts, without what their connections have in common.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// Pages. Their records have numbers, from 0.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pages: VecDeque<Arc<Page>>,
    /// Number of the record that comes next.
    next: u64,
    /// The newest that are kept for whoever asks.
    kept: u64,
    writer: Option<Writer>,
    /// An old page, to be filled anew.
    spare: Option<Page>,
}

/// What the writer has before it.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The first record that it has not taken.
    from: u64,
    /// Bytes from there.
    pub(super) bytes: usize,
    /// Records that had to go before it took them.
    pub(super) lost: u64,
    /// It is not to wait for more records.
    pub(super) hurry: bool,
    /// Nobody tells anything any more.
    pub(super) closed: bool,
}

impl Ring {
    pub(super) fn new(written: bool) -> Self {
        Self { writer: written.then(Writer::default), ..Self::default() }
    }

    pub(super) fn keep(&mut self, records: u64) {
        self.kept = records;
    }

    /// Number of the record that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// What the writer has before it, where there is one.
    pub(super) fn writer(&mut self) -> Option<&mut Writer> {
        self.writer.as_mut()
    }

    /// Whether the writer has taken everything.
    pub(super) fn is_taken(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.from == self.next)
    }

    /// Adds a page, and leaves an empty one. Whether the writer has to be woken.
    pub(super) fn add(&mut self, page: &mut Page) -> bool {
        let full = mem::replace(page, self.spare.take().unwrap_or_default());
        let (records, bytes) = (full.len(), full.bytes());
        self.pages.push_back(Arc::new(full.from(self.next)));
        self.announce(records, bytes)
    }

    /// Adds the records of a page to those of the last, where they find room, and leaves it empty. Whether the writer
    /// has to be woken.
    pub(super) fn copy(&mut self, page: &mut Page) -> bool {
        // One that somebody reads is not written to any more.
        let last = self.pages.back_mut().and_then(Arc::get_mut);
        let Some(last) = last.filter(|last| last.has_room_for(page)) else { return self.add(page) };
        let (records, before) = (page.len(), last.bytes());
        last.append(page);
        let bytes = last.bytes() - before;
        self.announce(records, bytes)
    }

    /// Tells the writer of records, which have so many bytes; whether it has to be woken.
    fn announce(&mut self, records: u64, bytes: usize) -> bool {
        self.next += records;
        let Some(writer) = &mut self.writer else { return false };
        let is_half_full = |writer: &Writer, next: u64| {
            next - writer.from >= MOST / 2 || writer.bytes >= MOST_BYTES / 2
        };
        let was_half_full = is_half_full(writer, self.next - records);
        writer.bytes += bytes;
        let passed = !was_half_full && is_half_full(writer, self.next);
        writer.hurry |= passed;
        while self.next - writer.from > MOST || writer.bytes > MOST_BYTES {
            // The oldest go, a page of them, but never the newest.
            let oldest = self.pages.iter().find(|page| page.end() > writer.from);
            let Some(page) = oldest.filter(|page| page.end() < self.next) else { break };
            writer.lost += page.end() - writer.from;
            writer.bytes = writer.bytes.saturating_sub(page.bytes_from(writer.from));
            writer.from = page.end();
        }
        passed
    }

    /// Up to `most` of the oldest pages, as far as nobody is to see them any more.
    pub(super) fn evict(&mut self, most: usize) -> Vec<Arc<Page>> {
        let asked = self.next.saturating_sub(self.kept);
        let needed = self.writer.as_ref().map_or(asked, |writer| asked.min(writer.from));
        let old = self.pages.iter().take_while(|page| page.end() <= needed).take(most).count();
        self.pages.drain(..old).collect()
    }

    /// Keeps an empty page, to be filled anew.
    pub(super) fn spare(&mut self, page: Page) {
        self.spare = Some(page);
    }

    /// Of the records that are kept for whoever asks those that are chosen.
    pub(super) fn read(&self, choose: impl FnOnce(&Range<u64>) -> u64) -> Excerpt {
        let kept = self.next.saturating_sub(self.kept)..self.next;
        let from = choose(&kept).clamp(kept.start, kept.end);
        self.excerpt(from)
    }

    /// All that the writer has not taken.
    pub(super) fn take(&mut self) -> Option<Excerpt> {
        let writer = self.writer.as_mut()?;
        (writer.hurry, writer.bytes) = (false, 0);
        let from = mem::replace(&mut writer.from, self.next);
        Some(self.excerpt(from))
    }

    fn excerpt(&self, from: u64) -> Excerpt {
        let pages = self.pages.iter().filter(|page| page.end() > from).cloned().collect();
        Excerpt::new(pages, from..self.next)
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> &VecDeque<Arc<Page>> {
        &self.pages
    }

    #[cfg(test)]
    pub(super) fn has_spare(&self) -> bool {
        self.spare.as_ref().is_some_and(Page::is_to_be_filled)
    }
}
