//! Metrics of an API server as a source: how complete and how recent what it says is.

use std::{collections::BTreeMap, fmt};

use undermesh_control::{Health, ListReport};
use undermesh_telemetry::{
    Metric,
    prometheus_client::{collector::Collector, encoding::DescriptorEncoder},
};

use super::{counters, gauge, gauges};

static COMPLETE: Metric = Metric::gauge(
    "undermesh_kubernetes_complete",
    &[],
    "1 where every list has been read and is in force, 0 before (in force is nothing, or the \
     cache)",
);
static OBJECTS: Metric =
    Metric::gauge("undermesh_kubernetes_objects", &["list"], "objects in the list");
static FAILING_LISTS: Metric = Metric::gauge(
    "undermesh_kubernetes_failing_lists",
    &["list"],
    "lists that cannot be kept up to date",
);
static SILENT_SECONDS: Metric = Metric::gauge(
    "undermesh_kubernetes_silent_seconds",
    &["list"],
    "time since the server was last heard; bookmarks come about once a minute",
);
static WATCH_RESTARTS: Metric = Metric::counter(
    "undermesh_kubernetes_watch_restarts",
    &["list"],
    "watches that were opened again; some come every five minutes",
);
static RELISTS: Metric =
    Metric::counter("undermesh_kubernetes_relists", &["list"], "lists that were read again");

/// Reads how the source is.
pub(crate) struct SourceCollector(pub(crate) Health);

impl fmt::Debug for SourceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceCollector")
    }
}

/// Lists of one name; those that are kept because something names their object count as one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    objects: u64,
    failing: u64,
    restarts: u64,
    relists: u64,
    silent: u64,
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let report = self.0.report();
        gauge(&COMPLETE, &mut encoder, Some(i64::from(report.complete)))?;
        let sums = sums(&report.lists);
        type Read = fn(&Sum) -> u64;
        let gauge_families: [(&'static Metric, Read); 3] = [
            (&OBJECTS, |sum| sum.objects),
            (&FAILING_LISTS, |sum| sum.failing),
            (&SILENT_SECONDS, |sum| sum.silent),
        ];
        for (metric, read) in gauge_families {
            let series = sums.iter().map(|(list, sum)| ([list.as_str()], read(sum).cast_signed()));
            gauges(metric, &mut encoder, series)?;
        }
        let counter_families: [(&'static Metric, Read); 2] =
            [(&WATCH_RESTARTS, |sum| sum.restarts), (&RELISTS, |sum| sum.relists)];
        for (metric, read) in counter_families {
            let series = sums.iter().map(|(list, sum)| ([list.as_str()], read(sum)));
            counters(metric, &mut encoder, series)?;
        }
        Ok(())
    }
}

fn sums(lists: &[ListReport]) -> BTreeMap<String, Sum> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for list in lists {
        let name = match list.name.split_once('/') {
            Some((kind @ ("secret" | "configmap"), _)) => kind,
            _ => &list.name,
        };
        let sum = sums.entry(name.to_owned()).or_default();
        sum.objects += list.objects as u64;
        sum.failing += u64::from(list.problem.is_some());
        sum.restarts += list.restarts;
        sum.relists += list.relists;
        sum.silent = sum.silent.max(list.silent_for.unwrap_or_default().as_secs());
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_kept_by_name_has_no_series_of_its_own() {
        let list = |name: &str, seconds| ListReport {
            name: name.to_owned(),
            objects: 2,
            complete: true,
            silent_for: Some(Duration::from_secs(seconds)),
            restarts: 1,
            relists: 0,
            problem: (seconds > 5).then(|| "lost".to_owned()),
        };
        let lists = [list("pod/here", 1), list("secret/a", 3), list("secret/b", 9)];
        let sums = sums(&lists);
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["pod/here", "secret"]);
        let expected = Sum { objects: 4, failing: 1, restarts: 2, relists: 0, silent: 9 };
        assert_eq!(sums["secret"], expected);
    }
}
