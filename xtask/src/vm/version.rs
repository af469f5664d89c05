//! Versions of Debian's packages, and the kernel series that they name.

use std::{cmp::Ordering, fmt};

/// A package's version, ordered as `dpkg --compare-versions` orders (Debian Policy 5.6.12).
#[derive(Clone, Debug)]
pub(crate) struct Version(String);

impl Version {
    /// Takes a version as a package index has it.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As the package index has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The kernel series of a kernel package: `6.12` of `6.12.117-1`, `7.3` of `7.3~rc7-1~exp1`.
    pub(crate) fn series(&self) -> Option<Series> {
        let mut numbers = self.0.split(|c: char| !c.is_ascii_digit());
        Some(Series(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// Whether this is a release candidate of the kernel.
    pub(crate) fn is_candidate(&self) -> bool {
        self.0.contains("~rc")
    }

    /// Epoch, upstream version, Debian revision.
    fn parts(&self) -> (u64, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((epoch_a, upstream_a, revision_a), (epoch_b, upstream_b, revision_b)) =
            (self.parts(), other.parts());
        epoch_a
            .cmp(&epoch_b)
            .then_with(|| compare(upstream_a, upstream_b))
            .then_with(|| compare(revision_a, revision_b))
    }
}

/// Compares alternating runs of other characters and of digits.
fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (word_a, word_b);
        (word_a, a) = split(a, |c| !c.is_ascii_digit());
        (word_b, b) = split(b, |c| !c.is_ascii_digit());
        let (number_a, number_b);
        (number_a, a) = split(a, |c| c.is_ascii_digit());
        (number_b, b) = split(b, |c| c.is_ascii_digit());
        let number = |digits: &str| digits.parse::<u64>().unwrap_or(0);
        let order =
            weights(word_a).cmp(weights(word_b)).then(number(number_a).cmp(&number(number_b)));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A tilde sorts before the end of a word, and letters before everything else.
fn weights(word: &str) -> impl Iterator<Item = i32> {
    let weight = |c: char| match c {
        '~' => -1,
        c if c.is_ascii_alphabetic() => c as i32,
        c => c as i32 + 256,
    };
    word.chars().map(weight).chain([0])
}

/// A series of kernels: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.0, self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "5.10.251-1",
            "5.10.262-1",
            "6.1.9-1",
            "6.1.10-1",
            "6.12.115-1~deb12u1",
            "6.12.115-1",
            "6.12.115-1+deb13u1",
            "7.3~rc7-1~exp1",
            "7.3.4-1~bpo13+1",
            "7.3.4-1",
            "1:0.1-1",
        ];
        for pair in ascending.windows(2) {
            assert!(Version::new(pair[0]) < Version::new(pair[1]), "{pair:?}");
            assert!(Version::new(pair[1]) > Version::new(pair[0]), "{pair:?}");
        }
    }

    #[test]
    fn a_series_is_the_first_two_numbers_and_ordered_by_them() {
        let series = |text: &str| Version::new(text).series();
        assert_eq!(series("6.12.117-1"), Some(Series(6, 12)));
        assert_eq!(series("7.3~rc7-1~exp1"), Some(Series(7, 3)));
        assert_eq!(series("meta"), None);
        assert!(Series(6, 9) < Series(6, 12));
    }

    #[test]
    fn a_release_candidate_is_told_from_a_release() {
        assert!(Version::new("7.3~rc7-1~exp1").is_candidate());
        assert!(!Version::new("7.3.4-1~bpo13+1").is_candidate());
    }
}
