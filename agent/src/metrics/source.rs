//! Metrics of an API server as a source: how complete and how recent what it says is.

use std::{collections::BTreeMap, fmt};

use undermesh_control::{Health, ListReport};
use undermesh_telemetry::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

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
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let help = "1 where every list of the API server has been read and is in force";
        let complete =
            encoder.encode_descriptor("undermesh_kubernetes_complete", help, None, gauge)?;
        ConstGauge::new(i64::from(report.complete)).encode(complete)?;
        let sums = sums(&report.lists);
        type Read = fn(&Sum) -> u64;
        let families: [(&str, &str, MetricType, Read); 5] = [
            (
                "undermesh_kubernetes_objects",
                "Objects in each list of the API server",
                gauge,
                |sum| sum.objects,
            ),
            (
                "undermesh_kubernetes_failing_lists",
                "Lists that cannot be kept up to date",
                gauge,
                |sum| sum.failing,
            ),
            (
                "undermesh_kubernetes_silent_seconds",
                "Seconds since the API server was last heard about a list",
                gauge,
                |sum| sum.silent,
            ),
            (
                "undermesh_kubernetes_watch_restarts",
                "Watches that were opened again",
                counter,
                |sum| sum.restarts,
            ),
            ("undermesh_kubernetes_relists", "Lists that were read again", counter, |sum| {
                sum.relists
            }),
        ];
        for (name, help, kind, read) in families {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (list, sum) in &sums {
                let labels = [("list", list.as_str())];
                let encoder = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(read(sum)).encode(encoder)?,
                    _ => ConstGauge::new(read(sum).cast_signed()).encode(encoder)?,
                }
            }
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
