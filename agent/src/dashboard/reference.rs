//! What codes of findings and reasons of flows mean: the tables of the reference, so that the page need not ask elsewhere.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Serialize;

const ANALYZE: &str = include_str!("../../../docs/reference/analyze.md");
const ACCESS_LOG: &str = include_str!("../../../docs/reference/access-log.md");

#[derive(Serialize)]
struct Reference {
    codes: BTreeMap<String, String>,
    reasons: BTreeMap<String, String>,
}

/// All of it.
pub(super) fn json() -> &'static str {
    static JSON: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string(&reference()).unwrap_or_else(|_| "{}".to_owned()));
    &JSON
}

fn reference() -> Reference {
    Reference {
        codes: rows(ANALYZE, |heading| heading == "Codes"),
        reasons: rows(ACCESS_LOG, |heading| heading.starts_with("Reasons")),
    }
}

/// Rows of the tables below some headings: words of the first cell, and the last cell.
fn rows(page: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let (mut found, mut below) = (BTreeMap::new(), false);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            below = wanted(heading);
        }
        let Some(row) = line.strip_prefix("| `").filter(|_| below) else { continue };
        let row = row.trim_end_matches('|');
        let (Some((first, _)), Some((_, last))) = (row.split_once('|'), row.rsplit_once("| "))
        else {
            continue;
        };
        let words = first.split(',').map(|word| word.trim().trim_matches('`').to_owned());
        let text = plain(last.trim());
        found.extend(words.map(|word| (word, text.clone())));
    }
    found
}

/// Without what marks up: links are their words.
fn plain(markdown: &str) -> String {
    let (mut text, mut rest) = (String::new(), markdown);
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(words, to)| Some((words, to.split_once(')')?.1))) {
            Some((words, after)) => {
                text.push_str(words);
                rest = after;
            }
            None => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_reason_of_the_reference_is_there_in_plain_words() {
        let found = reference();
        assert!(found.codes.len() > 80, "{}", found.codes.len());
        assert_eq!(found.codes["backend-not-found"], "a route names a backend that does not exist");
        assert_eq!(found.reasons["strict_plaintext"], "plaintext to a STRICT pod or port");
        assert_eq!(found.reasons["client_timeout"], "the client's end broke");
        let all = found.codes.values().chain(found.reasons.values());
        let marked: Vec<_> = all.filter(|text| text.contains("](") || text.contains('`')).collect();
        assert!(marked.is_empty(), "{marked:?}");
    }

    #[test]
    fn links_become_their_words() {
        assert_eq!(plain("see [`a`](b.md#c), and a[0] (so)"), "see a, and a[0] (so)");
    }
}
