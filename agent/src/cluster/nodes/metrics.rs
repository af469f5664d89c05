//! A page of metrics, read back: OpenMetrics' text, as far as agents write it.

/// Samples in the order of the page.
pub(crate) struct Metrics(Vec<Sample>);

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads what it can; what is no sample is passed over.
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::read).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    pub(super) fn sum(&self, name: &str) -> f64 {
        self.all(name).map(|sample| sample.value).sum()
    }

    /// A label of the first sample.
    pub(super) fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.0.iter().find(|sample| sample.name == name)?.label(label)
    }

    /// Some labels of every sample.
    pub(crate) fn labels<const N: usize>(&self, name: &str, labels: [&str; N]) -> Vec<[&str; N]> {
        let samples = self.0.iter().filter(|sample| sample.name == name);
        samples.map(|it| labels.map(|label| it.label(label).unwrap_or_default())).collect()
    }

    /// Values by a label; of samples without it, by nothing.
    pub(crate) fn by_label(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        let samples = self.0.iter().filter(|sample| sample.name == name);
        samples.map(|it| (it.label(label).unwrap_or_default(), it.value)).collect()
    }
}

impl Sample {
    fn read(line: &str) -> Option<Self> {
        let (name, rest) = match line.find(['{', ' ']) {
            Some(at) => line.split_at(at),
            None => return None,
        };
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// `a="b",c="d"}`, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((found, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        found.push((name.trim_start_matches(',').to_owned(), value));
        text = rest.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let metrics = Metrics::read(
            "# HELP a b\na 1\nb{x=\"1\",y=\"a,\\\"}\\n\"} 2.5\nb{x=\"2\"} 1\nbroken{x=\"\nnothing\n",
        );
        assert_eq!((metrics.sum("a"), metrics.sum("b"), metrics.sum("c")), (1.0, 3.5, 0.0));
        assert_eq!(metrics.by_label("b", "x"), [("1", 2.5), ("2", 1.0)]);
        assert_eq!(metrics.labels("b", ["y", "x"]), [["a,\"}\n", "1"], ["", "2"]]);
        assert_eq!(metrics.label("b", "y"), Some("a,\"}\n"));
        assert_eq!(metrics.0.len(), 3);
    }
}
