//! How a metric is declared: its name, kind, labels and meaning, once, next to what counts.
//!
//! What is registered is registered by its declaration, and `cargo xtask codegen` makes the tables of
//! `docs/reference/metrics.md` of the declarations that it finds in the sources. So a declaration is written with
//! literals: no name is put together.

use std::{
    fmt,
    sync::{LazyLock, OnceLock},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
    registry::{self, Registry, Unit},
};

/// Stands in a declaration for the labels of both ends of a connection, which Istio's metrics have.
pub const ENDS: &str = "ends";

/// What ends a name that has a unit, and the unit.
static UNITS: LazyLock<[(&str, Unit); 3]> = LazyLock::new(|| {
    [
        ("_seconds", Unit::Seconds),
        ("_milliseconds", Unit::Other("milliseconds".to_owned())),
        ("_bytes", Unit::Bytes),
    ]
});

/// A declaration.
pub struct Metric {
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    meaning: &'static str,
    /// The meaning as a scrape has it.
    help: OnceLock<String>,
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Metric {
    /// What only grows. All names are those of families: without the ends that an exposition adds, but with the
    /// unit, if there is one. The meaning is a cell of a table in `docs/reference/metrics.md`, links and all.
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self::new(name, MetricType::Counter, labels, meaning)
    }

    /// What rises and falls.
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self::new(name, MetricType::Gauge, labels, meaning)
    }

    /// How often what was observed.
    pub const fn histogram(
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self::new(name, MetricType::Histogram, labels, meaning)
    }

    /// What is told in labels.
    pub const fn info(
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self::new(name, MetricType::Info, labels, meaning)
    }

    const fn new(
        name: &'static str,
        kind: MetricType,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self { name, kind, labels, meaning, help: OnceLock::new() }
    }

    /// Lets what counts be scraped from now on.
    pub fn register(&self, registry: &mut Registry, metric: impl registry::Metric) {
        // The registry adds the full stop.
        let help = self.help().trim_end_matches('.');
        match self.unit() {
            Some((stem, unit)) => registry.register_with_unit(stem, help, unit.clone(), metric),
            None => registry.register(self.name, help, metric),
        }
    }

    /// Begins what a collector has to say about it.
    ///
    /// # Errors
    ///
    /// Where nothing can be written.
    pub fn describe<'a>(
        &'a self,
        encoder: &'a mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let (stem, unit) = self.unit().map_or((self.name, None), |(stem, unit)| (stem, Some(unit)));
        encoder.encode_descriptor(stem, self.help(), unit, self.kind)
    }

    /// The labels of one series, by the values in the order of the declaration.
    pub fn with<'a, const N: usize>(&self, values: [&'a str; N]) -> Vec<(&'static str, &'a str)> {
        debug_assert_eq!(N, self.labels.len(), "labels of {}", self.name);
        self.labels.iter().copied().zip(values).collect()
    }

    /// The name without its unit, and the unit. OpenMetrics wants the one to end with the other.
    fn unit(&self) -> Option<(&'static str, &'static Unit)> {
        let mut units = UNITS.iter();
        units.find_map(|(end, unit)| Some((self.name.strip_suffix(end)?, unit)))
    }

    fn help(&self) -> &str {
        self.help.get_or_init(|| sentence(self.meaning))
    }
}

/// A cell of a table as a sentence: without links and quotation marks, and with its ends.
fn sentence(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once("](") {
        let (before, linked) = before.rsplit_once('[').unwrap_or(("", before));
        text.push_str(before);
        text.push_str(linked);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.retain(|c| c != '`');
    let first = text.chars().next().map(char::len_utf8).unwrap_or_default();
    let (first, rest) = text.split_at(first);
    let text = first.to_uppercase() + rest;
    if text.ends_with('.') { text } else { text + "." }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, metrics::counter::Counter};

    use super::*;

    #[test]
    fn a_cell_is_a_sentence_without_its_links() {
        let cell = "names, see [*a*](b.md#c) or [x] [d](e.md), as `f [g]` has it";
        assert_eq!(sentence(cell), "Names, see *a* or [x] d, as f [g] has it.");
        assert_eq!(sentence("1 or `0`. Not 2."), "1 or 0. Not 2.");
        assert_eq!(sentence(""), ".");
    }

    #[test]
    fn a_unit_is_told_and_stays_in_the_name() {
        static SECONDS: Metric = Metric::counter("a_seconds", &[], "how long");
        static MORE: Metric = Metric::counter("b_milliseconds", &[], "how long");
        let mut registry = Registry::default();
        for metric in [&SECONDS, &MORE] {
            metric.register(&mut registry, Counter::<u64>::default());
        }
        let mut found = String::new();
        text::encode(&mut found, &registry).unwrap();
        assert_eq!(
            found,
            "# HELP a_seconds How long.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
             a_seconds_total 0\n\
             # HELP b_milliseconds How long.\n# TYPE b_milliseconds counter\n\
             # UNIT b_milliseconds milliseconds\nb_milliseconds_total 0\n# EOF\n"
        );
    }
}
