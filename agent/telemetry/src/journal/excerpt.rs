//! Records that somebody reads.

use std::{mem, ops::Range, sync::Arc};

use crate::{alike::Written, line::Lines, page::Page};

/// The records, in pages. Those that come meanwhile do not change them.
#[derive(Debug)]
pub(crate) struct Excerpt {
    pages: Vec<Arc<Page>>,
    numbers: Range<u64>,
}

impl Excerpt {
    pub(super) fn new(pages: Vec<Arc<Page>>, numbers: Range<u64>) -> Self {
        Self { pages, numbers }
    }

    /// Their numbers.
    pub(crate) fn numbers(&self) -> &Range<u64> {
        &self.numbers
    }

    /// Writes the line of one after the other to the end of `text`, in the order in which they were told, and shows
    /// it.
    pub(crate) fn each(
        &self,
        lines: &mut Lines,
        text: &mut String,
        mut see: impl FnMut(&mut String),
    ) {
        // Several threads have filled pages at the same time.
        let mut order = Vec::new();
        for (place, page) in self.pages.iter().enumerate() {
            let wanted = page.times().filter(|(number, _)| self.numbers.contains(number));
            order.extend(wanted.map(|(number, at)| (at, place, number)));
        }
        if !order.is_sorted() {
            order.sort_unstable();
        }
        let mut alike: Vec<_> = self.pages.iter().map(|page| Written::of(page.alike())).collect();
        for (_, place, number) in order {
            self.pages[place].write(number, &mut alike[place], lines, text);
            see(text);
        }
    }

    /// The line of each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.each(&mut Lines::default(), &mut String::new(), |text| all.push(mem::take(text)));
        all
    }
}
