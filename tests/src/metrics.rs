//! What a scrape has, against what `docs/reference/metrics.md` says of it, which is made of the declarations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};

/// The page.
#[derive(Debug)]
pub struct Reference {
    rows: BTreeMap<String, Row>,
    /// Labels that the rows call `ends`.
    ends: Vec<String>,
}

#[derive(Debug)]
struct Row {
    kind: String,
    has_ends: bool,
    own: Vec<String>,
}

/// Words in code.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

impl Reference {
    /// Reads the page.
    pub fn read() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Self::of(&fs::read_to_string(root.join("docs/reference/metrics.md"))?)
    }

    fn of(page: &str) -> Result<Self> {
        let ends = page.split_once("# Ends\n").context("nothing about ends")?.1.trim_start();
        let ends = quoted(ends.split("\n\n").next().unwrap_or_default());
        let mut rows = BTreeMap::new();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix("| `") else { continue };
            let Some((name, rest)) = rest.split_once("` | ") else { continue };
            let mut cells = rest.split('|').map(str::trim);
            let kind = cells.next().unwrap_or_default();
            if !["counter", "gauge", "histogram", "info"].contains(&kind) {
                continue;
            }
            let labels = cells.next().unwrap_or_default();
            let has_ends = labels.starts_with("[ends](#ends)");
            let row = Row { kind: kind.to_owned(), has_ends, own: quoted(labels) };
            ensure!(rows.insert(name.to_owned(), row).is_none(), "{name} has two rows");
        }
        Ok(Self { rows, ends })
    }

    /// How many metrics there are whose names begin so.
    pub fn count(&self, prefix: &str) -> usize {
        self.rows.keys().filter(|name| name.starts_with(prefix)).count()
    }

    /// The labels of the metric that has samples of this name, if there is one.
    pub fn labels(&self, sample: &str) -> Option<BTreeSet<&str>> {
        let row = self.rows.get(sample).or_else(|| {
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| sample.strip_suffix(end))?;
            self.rows.get(family).filter(|row| row.kind == "histogram")
        })?;
        Some(self.labels_of(row).into_iter().collect())
    }

    fn labels_of<'a>(&'a self, row: &'a Row) -> Vec<&'a str> {
        let ends = self.ends.iter().filter(|_| row.has_ends);
        ends.chain(&row.own).map(String::as_str).collect()
    }

    /// The metrics that a scrape has samples of. Fails where one is not as the page says: its name, type, or
    /// labels and their order.
    pub fn check(&self, scrape: &str) -> Result<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        let mut family = ("", "");
        for line in scrape.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                family = described.split_once(' ').context("no type")?;
            }
            let Some((name, mut labels)) = sample(line).filter(|_| !line.starts_with('#')) else {
                continue;
            };
            let (described, kind) = family;
            let documented = if kind == "histogram" { described } else { name };
            let row = self.rows.get(documented).with_context(|| format!("no row for {name}"))?;
            ensure!(row.kind == kind, "{name} is a {kind}, and called a {}", row.kind);
            if kind == "histogram" {
                labels.retain(|label| *label != "le");
            }
            let wanted = self.labels_of(row);
            ensure!(labels == wanted, "{name} has the labels {labels:?}, not {wanted:?}");
            seen.insert(documented.to_owned());
        }
        Ok(seen)
    }
}

/// Name and labels of a sample.
fn sample(line: &str) -> Option<(&str, Vec<&str>)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    let mut rest = rest.strip_prefix('{').unwrap_or_default();
    while let Some((label, value)) = rest.split_once("=\"") {
        labels.push(label.trim_start_matches(','));
        let end = value
            .char_indices()
            .scan(false, |escaped, (at, c)| {
                let end = c == '"' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some(end.then_some(at))
            })
            .flatten()
            .next()?;
        rest = &value[end + 1..];
    }
    Some((name, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "### Ends\n\nThey are `x`,\n`y`.\n\nOf the others `z`.\n\n\
        | `a_total` | counter | `l`, `m` | x `n` |\n| `h` | histogram | [ends](#ends), `c` | x |\n\
        | `g` | gauge | | x |\n| `response_code` | the answer's status |\n";

    #[test]
    fn a_scrape_is_as_the_page_has_it_or_it_is_not() {
        let reference = Reference::of(PAGE).unwrap();
        let check = |text: &str| {
            reference.check(text).map(|seen| seen.into_iter().collect::<Vec<_>>().join(" "))
        };
        let good = "# TYPE a counter\na_total{l=\"\\\",z=\\\"\",m=\"\"} 1\n\
                    # TYPE h histogram\nh_bucket{le=\"1\",x=\"\",y=\"\",c=\"\"} 1\n# TYPE g gauge\ng 1\n";
        assert_eq!(check(good).unwrap(), "a_total g h");
        for (bad, why) in [
            ("# TYPE b gauge\nb 1\n", "no row for b"),
            ("# TYPE a_total gauge\na_total 1\n", "is a gauge, and called a counter"),
            ("# TYPE a counter\na_total{m=\"\",l=\"\"} 1\n", "[\"m\", \"l\"], not [\"l\", \"m\"]"),
            ("# TYPE h histogram\nh_sum{c=\"\"} 1\n", "not [\"x\", \"y\", \"c\"]"),
        ] {
            assert!(check(bad).unwrap_err().to_string().contains(why), "{bad}");
        }
        assert_eq!(reference.labels("h_sum").unwrap().len(), 3);
        assert!(reference.labels("g_sum").is_none());
        assert_eq!(reference.count("a"), 1);
    }
}
