//! Records of several nodes in the order of their times. So many bytes of them are held; what is older goes first, and
//! whose it was is said.

use std::{collections::BTreeMap, sync::Arc};

/// A line of a node's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) node: Arc<str>,
    pub(super) text: String,
    /// In which round it came.
    round: u64,
}

/// What is held, by time and, within a millisecond, as it came.
#[derive(Debug)]
pub(super) struct Merge {
    held: BTreeMap<(String, u64), Line>,
    bytes: usize,
    most: usize,
    came: u64,
}

impl Merge {
    /// Holds at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { held: BTreeMap::new(), bytes: 0, most, came: 0 }
    }

    /// Takes a line of a time (RFC 3339 with milliseconds, which sorts as text); returns what has to go for it.
    pub(super) fn push(
        &mut self,
        round: u64,
        node: &Arc<str>,
        time: &str,
        text: String,
    ) -> Vec<Line> {
        self.came += 1;
        self.bytes += text.len();
        let line = Line { node: Arc::clone(node), text, round };
        self.held.insert((time.to_owned(), self.came), line);
        let mut gone = Vec::new();
        while self.bytes > self.most {
            gone.extend(self.pop());
        }
        gone
    }

    /// Only the newest so many; the others are not asked for.
    pub(super) fn keep_newest(&mut self, count: usize) {
        while self.held.len() > count {
            self.pop();
        }
    }

    /// What is not waited for any longer: what happened before `until`, when this round began, since every node was asked
    /// later; and whatever has been held for a round, as of a node whose clock is ahead. In order.
    pub(super) fn due(&mut self, round: u64, until: &str) -> Vec<Line> {
        let waited = self.held.iter().rev().find(|(_, line)| line.round < round);
        let waited = waited.map(|((time, came), _)| (time.clone(), *came));
        let is_due = |key: &(String, u64)| {
            key.0.as_str() < until || waited.as_ref().is_some_and(|last| key <= last)
        };
        let mut due = Vec::new();
        while self.held.first_key_value().is_some_and(|(key, _)| is_due(key)) {
            due.extend(self.pop());
        }
        due
    }

    /// All of it, in order.
    pub(super) fn rest(&mut self) -> Vec<Line> {
        self.bytes = 0;
        std::mem::take(&mut self.held).into_values().collect()
    }

    fn pop(&mut self) -> Option<Line> {
        let (_, line) = self.held.pop_first()?;
        self.bytes -= line.text.len();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn two() -> (Arc<str>, Arc<str>) {
        ("a".into(), "b".into())
    }

    #[test]
    fn records_of_nodes_are_in_the_order_of_their_times() {
        let (a, b) = two();
        let mut merge = Merge::new(1000);
        for (node, time, text) in
            [(&a, "T1", "a1"), (&a, "T3", "a3"), (&b, "T2", "b2"), (&b, "T3", "b3")]
        {
            assert!(merge.push(1, node, time, text.to_owned()).is_empty());
        }
        let all = merge.rest();
        assert_eq!(texts(&all), ["a1", "b2", "a3", "b3"]);
        assert_eq!(all.iter().map(|line| &*line.node).collect::<String>(), "abab");
        assert_eq!(merge.bytes, 0);
    }

    #[test]
    fn what_another_node_may_still_be_before_waits_for_a_round_and_no_longer() {
        let (a, b) = two();
        let mut merge = Merge::new(1000);
        merge.push(1, &a, "T1", "a1".to_owned());
        merge.push(1, &a, "T9", "ahead".to_owned());
        assert_eq!(texts(&merge.due(1, "T2")), ["a1"]);
        // It came later and happened before.
        merge.push(2, &b, "T8", "b8".to_owned());
        merge.push(2, &b, "T9", "b9".to_owned());
        assert_eq!(texts(&merge.due(2, "T5")), ["b8", "ahead"]);
        assert_eq!(texts(&merge.due(3, "T5")), ["b9"]);
        assert!(merge.due(4, "T5").is_empty());
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room_and_whose_it_was_is_known() {
        let (a, b) = two();
        let mut merge = Merge::new(6);
        assert!(merge.push(1, &a, "T2", "aaa".to_owned()).is_empty());
        assert!(merge.push(1, &b, "T1", "bbb".to_owned()).is_empty());
        let gone = merge.push(1, &a, "T3", "cc".to_owned());
        assert_eq!((gone.len(), &*gone[0].node), (1, "b"));
        assert_eq!(texts(&merge.rest()), ["aaa", "cc"]);
        // One that is larger than everything does not stay either.
        assert_eq!(merge.push(1, &a, "T4", "1234567".to_owned()).len(), 1);
        assert!(merge.rest().is_empty());
    }

    #[test]
    fn the_newest_of_all_nodes_are_kept() {
        let (a, b) = two();
        let mut merge = Merge::new(1000);
        merge.push(1, &a, "T1", "a1".to_owned());
        merge.push(1, &b, "T2", "b2".to_owned());
        merge.push(1, &a, "T3", "a3".to_owned());
        merge.keep_newest(2);
        assert_eq!(texts(&merge.rest()), ["b2", "a3"]);
    }
}
