//! A page of the journal: records that have come one after the other, stand together, and go together.

use std::sync::Arc;

use crate::{
    alike::Alike,
    ends::Connection,
    line::Lines,
    packed::Packed,
    told::{self, Told},
};

/// Records on a page.
pub(crate) const TOGETHER: usize = 64;
/// Room for texts that a page is used again with, in bytes.
const MAX_TEXTS: usize = 64 << 10;

/// The page. Records have numbers; these follow each other.
#[derive(Debug, Default)]
pub(crate) struct Page {
    first: u64,
    /// Each, and where it ends.
    records: Vec<(Packed, End)>,
    texts: String,
    alike: Alike,
}

/// Bytes up to the end of a record.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    texts: usize,
    alike: usize,
}

impl Page {
    /// Makes this page, which is empty, that of the records from a number on.
    pub(crate) fn from(self, first: u64) -> Self {
        Self { first, ..self }
    }

    /// Whether there is room for another record.
    pub(crate) fn has_room(&self) -> bool {
        self.records.len() < TOGETHER
    }

    /// Adds a record of what has just happened. Says how many bytes of text it has taken.
    pub(crate) fn add(&mut self, connection: &Arc<Connection>, told: &Told<'_>) -> usize {
        let before = self.bytes();
        let packed = Packed::new(connection, told::now(), told, &mut self.texts, &mut self.alike);
        let end = End { texts: self.texts.len(), alike: self.alike.bytes() };
        self.records.push((packed, end));
        self.bytes() - before
    }

    /// Number of the record after the last.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Bytes of text that the records from a number on have taken.
    pub(crate) fn bytes_from(&self, number: u64) -> usize {
        let before = number.saturating_sub(self.first).checked_sub(1);
        let before = before.and_then(|index| self.records.get(index as usize));
        self.bytes() - before.map_or(0, |(_, end)| end.texts + end.alike)
    }

    /// Writes the line of one record after the other to the end of `text`, and shows it with the record's number.
    pub(crate) fn each(
        &self,
        lines: &mut Lines,
        text: &mut String,
        mut is_wanted: impl FnMut(u64) -> bool,
        mut see: impl FnMut(&mut String),
    ) {
        let mut begin = 0;
        for ((packed, end), number) in self.records.iter().zip(self.first..) {
            if is_wanted(number) {
                packed.write(&self.texts[begin..end.texts], &self.alike, lines, text);
                see(text);
            }
            begin = end.texts;
        }
    }

    /// The same room, unless long records have made it large.
    pub(crate) fn emptied(mut self) -> Option<Self> {
        self.records.clear();
        self.texts.clear();
        self.alike.clear();
        (self.texts.capacity() + self.alike.room() <= MAX_TEXTS).then_some(self)
    }

    fn bytes(&self) -> usize {
        self.texts.len() + self.alike.bytes()
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        self.records[0].0.connection()
    }

    #[cfg(test)]
    pub(crate) fn is_to_be_filled(&self) -> bool {
        self.records.is_empty() && self.records.capacity() >= TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RequestInfo, told::samples};

    #[test]
    fn it_is_used_again_unless_long_records_have_made_it_large() {
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        for (bytes, again) in [(100, true), (MAX_TEXTS / 2 + 1, false)] {
            let mut page = Page::default();
            let name = "x".repeat(bytes);
            for status in [200, 503] {
                let status = Some(status);
                let request = RequestInfo { route_name: &name, status, ..Default::default() };
                page.add(&connection, &Told::Request(&request));
            }
            let emptied = page.emptied();
            assert_eq!(emptied.is_some(), again);
            assert!(emptied.is_none_or(|page| page.end() == 0 && page.bytes() == 0));
        }
    }

    #[test]
    fn bytes_of_what_is_alike_are_those_of_the_first() {
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        let mut page = Page::default().from(7);
        let request = RequestInfo { route_name: "canary", path: "/a", ..Default::default() };
        let mut add = |request| page.add(&connection, &Told::Request(request));
        assert_eq!(add(&request), 8);
        assert_eq!(add(&request), 2);
        assert_eq!(add(&RequestInfo { route_name: "other", ..request }), 7);
        assert_eq!([0, 7, 8, 9, 10].map(|number| page.bytes_from(number)), [17, 17, 9, 7, 0]);
    }
}
