//! A page of the journal: records that have come one after the other, stand together, and go together.

use std::sync::Arc;

use crate::{
    alike::{Alike, Written},
    ends::Connection,
    line::Lines,
    packed::Packed,
    told::{self, Told},
};

/// Records on a page.
pub(crate) const TOGETHER: usize = 64;
/// Bytes of text on a page, but for those of its last record; and room for texts that it is used again with.
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

    /// Adds a record of what has just happened.
    pub(crate) fn add(&mut self, connection: &Arc<Connection>, told: &Told<'_>) {
        let packed = Packed::new(connection, told::now(), told, &mut self.texts, &mut self.alike);
        self.push(packed);
    }

    /// Adds the records of another one, and leaves that one empty.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let mut begin = 0;
        for (mut packed, end) in other.records.drain(..) {
            self.texts.push_str(other.texts.get(begin..end.texts).unwrap_or_default());
            packed.change_alike(&other.alike, &mut self.alike);
            self.push(packed);
            begin = end.texts;
        }
        other.texts.clear();
        other.alike.clear();
    }

    /// Whether it is to be followed by another.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= TOGETHER || self.bytes() >= MAX_TEXTS
    }

    /// Whether there is room for the records of another one.
    pub(crate) fn has_room_for(&self, other: &Self) -> bool {
        let records = self.records.len() + other.records.len();
        records <= TOGETHER && self.bytes() + other.bytes() <= MAX_TEXTS
    }

    /// Whether it has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of records.
    pub(crate) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Number of the record after the last.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.len()
    }

    /// Bytes of text.
    pub(crate) fn bytes(&self) -> usize {
        self.texts.len() + self.alike.bytes()
    }

    /// Bytes of text that the records from a number on have taken.
    pub(crate) fn bytes_from(&self, number: u64) -> usize {
        let End { texts, alike } = self.begin(number);
        self.bytes() - texts - alike
    }

    /// The records' numbers, and when each was told, in nanoseconds since 1970.
    pub(crate) fn times(&self) -> impl Iterator<Item = (u64, u64)> {
        (self.first..).zip(self.records.iter().map(|(packed, _)| packed.at()))
    }

    /// What records on it have in common.
    pub(crate) fn alike(&self) -> &Alike {
        &self.alike
    }

    /// Writes the line of a record to the end of `text`.
    pub(crate) fn write(
        &self,
        number: u64,
        alike: &mut Written<'_>,
        lines: &mut Lines,
        text: &mut String,
    ) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some((packed, end)) = index.and_then(|index| self.records.get(index)) else { return };
        let texts = self.texts.get(self.begin(number).texts..end.texts).unwrap_or_default();
        packed.write(texts, alike, lines, text);
    }

    /// The same room, unless long records have made it large.
    pub(crate) fn emptied(mut self) -> Option<Self> {
        self.records.clear();
        self.texts.clear();
        self.alike.clear();
        (self.texts.capacity() + self.alike.room() <= MAX_TEXTS).then_some(self)
    }

    fn push(&mut self, packed: Packed) {
        let end = End { texts: self.texts.len(), alike: self.alike.bytes() };
        self.records.push((packed, end));
    }

    /// Where what a record has taken begins.
    fn begin(&self, number: u64) -> End {
        let before = number.saturating_sub(self.first).checked_sub(1);
        let before = before.and_then(|index| self.records.get(usize::try_from(index).ok()?));
        before.map_or(End::default(), |(_, end)| *end)
    }

    #[cfg(test)]
    pub(crate) fn is_to_be_filled(&self) -> bool {
        self.records.is_empty() && self.records.capacity() >= TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use undermesh_model::ObjectName;

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
                let policy = Some(ObjectName { kind: "", namespace: "", name: &name });
                let request = RequestInfo { policy, status, ..Default::default() };
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
        let (canary, other) = ("canary".into(), "other".into());
        let route_name = Some(&canary);
        let request = RequestInfo { route_name, path: "/a", ..Default::default() };
        let mut add = |request| {
            let before = page.bytes();
            page.add(&connection, &Told::Request(request));
            page.bytes() - before
        };
        assert_eq!(add(&request), 8);
        assert_eq!(add(&request), 2);
        assert_eq!(add(&RequestInfo { route_name: Some(&other), ..request }), 7);
        assert_eq!([0, 7, 8, 9, 10].map(|number| page.bytes_from(number)), [17, 17, 9, 7, 0]);
    }

    #[test]
    fn lines_of_what_is_alike_are_as_if_each_stood_alone() {
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        let all = samples::request();
        let (bare, other) = (RequestInfo::default(), RequestInfo { path: "/b", sent: 2, ..all });
        let (mut page, mut lines, mut alone) = (Page::default(), Lines::default(), Vec::new());
        for request in [&all, &bare, &other, &bare, &all] {
            let told = Told::Request(request);
            page.add(&connection, &told);
            let mut line = String::new();
            lines.write(&mut line, 0, &connection, &told);
            alone.push(without_time(&line));
        }
        assert_eq!(written(&page), alone);
    }

    #[test]
    fn what_is_added_to_another_page_says_the_same_there() {
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        let all = samples::request();
        let other = RequestInfo { path: "/b", authority: "other", ..all };
        let filled = |requests: &[&RequestInfo<'_>]| {
            let mut page = Page::default();
            requests.iter().for_each(|request| page.add(&connection, &Told::Request(request)));
            page
        };
        let (mut first, mut second) = (filled(&[&all]), filled(&[&other, &all, &other]));
        let lines = [written(&first), written(&second)].concat();
        let once = first.alike.bytes() + second.alike.bytes();
        assert!(first.has_room_for(&second));
        first.append(&mut second);
        assert_eq!(written(&first), lines);
        assert!(first.alike.bytes() < once, "what is alike is kept once");
        assert_eq!((second.len(), second.bytes()), (0, 0));
        let mut full = filled(&[&all; TOGETHER]);
        assert!(full.is_full() && !first.has_room_for(&full));
        second.append(&mut full);
        assert_eq!(second.len(), TOGETHER as u64);
    }

    fn written(page: &Page) -> Vec<String> {
        let (mut lines, mut alike) = (Lines::default(), Written::of(&page.alike));
        let line = |number| {
            let mut line = String::new();
            page.write(number, &mut alike, &mut lines, &mut line);
            without_time(&line)
        };
        (page.first..page.end()).map(line).collect()
    }

    fn without_time(line: &str) -> String {
        let mut line: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        assert!(line.remove("time").is_some());
        serde_json::to_string(&line).unwrap()
    }
}
