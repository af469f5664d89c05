//! Names that somebody may have meant.

/// How many are suggested.
const MOST: usize = 5;

/// Of these names those that are closest to what was written, the closest first: `; is it A, B?`, or nothing.
pub(super) fn suggestion(written: &str, names: impl IntoIterator<Item = String>) -> String {
    let written = written.to_ascii_lowercase();
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| Some((distance(&written, &name.to_ascii_lowercase())?, name)))
        .collect();
    near.sort();
    near.dedup();
    near.truncate(MOST);
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<String> = near.into_iter().map(|(_, name)| name).collect();
    format!("; is it {}?", names.join(", "))
}

/// How far a name is from what was written; `None` where nobody would take one for the other. One that has the other in
/// it is close.
fn distance(written: &str, name: &str) -> Option<usize> {
    let edits = edits(written.as_bytes(), name.as_bytes());
    let contains = written.len() >= 3 && name.contains(written);
    let most = (written.len() / 3).max(2);
    (contains || edits <= most).then_some(if contains { 1 } else { edits })
}

/// Levenshtein's distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(written: &str) -> String {
        let names = ["shop/client", "shop/cart-0", "shop/cart-1", "bank/ledger"];
        suggestion(written, names.map(str::to_owned))
    }

    #[test]
    fn close_names_are_suggested_and_others_are_not() {
        assert_eq!(of("shop/clinet"), "; is it shop/client?");
        assert_eq!(of("shop/cart"), "; is it shop/cart-0, shop/cart-1?");
        assert_eq!(of("nowhere/nobody"), "");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), expected);
        }
    }
}
