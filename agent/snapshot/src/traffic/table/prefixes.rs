//! Which of many prefixes a path begins with.

use std::{cmp::Ordering, collections::BTreeMap};

/// Prefixes in alphabetical order; each knows the longest other one that it begins with itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    nodes: Vec<Node>,
    /// The prefixes are in lower case, and case is disregarded.
    folded: bool,
}

/// A prefix, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    prefix: Box<[u8]>,
    /// Positions of those who have it, in rising order.
    pub(super) entries: Vec<usize>,
    /// The lowest position here and at all shorter prefixes.
    pub(super) least: usize,
    shorter: Option<usize>,
}

impl Prefixes {
    pub(super) fn new(all: Vec<(&str, usize)>, folded: bool) -> Self {
        let mut by_prefix: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (prefix, index) in all {
            by_prefix.entry(prefix).or_default().push(index);
        }
        let mut nodes: Vec<Node> = Vec::with_capacity(by_prefix.len());
        // The chain of prefixes that the last node begins with, itself included.
        let mut open: Vec<usize> = Vec::new();
        for (prefix, entries) in by_prefix {
            while open.pop_if(|last| !prefix.as_bytes().starts_with(&nodes[*last].prefix)).is_some()
            {
            }
            let shorter = open.last().copied();
            let above = shorter.map_or(usize::MAX, |shorter| nodes[shorter].least);
            let least = entries.first().copied().unwrap_or(usize::MAX).min(above);
            open.push(nodes.len());
            nodes.push(Node { prefix: prefix.as_bytes().into(), entries, least, shorter });
        }
        Self { nodes, folded }
    }

    /// The prefixes that a path begins with, from the longest to the shortest.
    pub(super) fn of(&self, path: &[u8]) -> impl Iterator<Item = &Node> {
        // Between a prefix of the path and the path itself there are only texts that begin with that
        // prefix. So all that are wanted are in the chain of the last one that is not behind the path.
        let behind = self.nodes.partition_point(|node| self.compare(&node.prefix, path).is_le());
        let last = behind.checked_sub(1).map(|index| &self.nodes[index]);
        let common = last.map_or(0, |node| self.common(&node.prefix, path));
        let chain = std::iter::successors(last, |node| Some(&self.nodes[node.shorter?]));
        chain.skip_while(move |node| node.prefix.len() > common)
    }

    fn compare(&self, prefix: &[u8], path: &[u8]) -> Ordering {
        prefix.iter().copied().cmp(path.iter().map(|byte| self.fold(*byte)))
    }

    /// How many bytes both begin with.
    fn common(&self, prefix: &[u8], path: &[u8]) -> usize {
        prefix.iter().zip(path).take_while(|(a, b)| **a == self.fold(**b)).count()
    }

    fn fold(&self, byte: u8) -> u8 {
        if self.folded { byte.to_ascii_lowercase() } else { byte }
    }
}
