//! Metrics of the node: verdicts, maps, pods, certificates, and the machine itself, read when they are scraped.

mod host;
mod node;
mod snapshot;
mod source;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use undermesh_datapath::Datapath;
use undermesh_identity::IdentityStore;
use undermesh_proxy::Proxy;
use undermesh_snapshot::Snapshot;
use undermesh_telemetry::{
    Metric,
    prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeCounterValue, EncodeMetric},
        metrics::{counter::ConstCounter, gauge::ConstGauge},
    },
};

use crate::{
    agent::Warnings,
    enrolment::EnrolmentView,
    policies::{self, PolicyState},
    status::PodState,
};

pub(crate) use snapshot::{Sink, SnapshotMetrics};
pub(crate) use source::SourceCollector;

static KERNEL_VERDICTS: Metric =
    Metric::counter("undermesh_kernel_verdicts", &["reason"], "verdicts of the eBPF programs");
static MAP_ENTRIES: Metric =
    Metric::gauge("undermesh_map_entries", &["map"], "entries in the BPF maps");
static MAP_MAX_ENTRIES: Metric =
    Metric::gauge("undermesh_map_max_entries", &["map"], "entries that fit");
static PODS: Metric = Metric::gauge(
    "undermesh_pods",
    &["state"],
    "pods of this node that should be in the mesh: `enrolled`, `pending`, `waiting`, \
     `impossible` ([what that is](../guide/kubernetes.md#how-pods-are-found))",
);
static GATE_HELD_PODS: Metric = Metric::gauge(
    "undermesh_gate_held_pods",
    &[],
    "pods that should be in the mesh, are not programmed, and are held by the startup gate",
);
static GATE_UNKNOWN_CGROUPS: Metric = Metric::gauge(
    "undermesh_gate_unknown_cgroups",
    &[],
    "cgroups that the gate holds until somebody says whose they are",
);
static POLICIES: Metric = Metric::gauge(
    "undermesh_policies",
    &["state"],
    "policies about pods of this node: `enforced`, `dry-run`, `fails-closed`, `fails-open`, \
     as [`undermesh status`](status.md) shows them",
);
static POLICY_FAILING: Metric = Metric::gauge(
    "undermesh_policy_failing",
    &["kind", "policy_namespace", "policy", "state", "cause"],
    "1 for each policy that does not do what is written, and each cause: `unknown-field` (of \
     a rule, which then allows nothing or denies more), `unknown-provider`, `no-answer` (of \
     its provider, the last time), `no-keys` (for tokens), `too-many-ports`. \
     `max(undermesh_policy_failing{state=\"fails-closed\"}) > 0` is worth an alert",
);
static CONFIGURATION_REJECTED: Metric = Metric::gauge(
    "undermesh_configuration_rejected",
    &[],
    "1 while a newer configuration is not in force because of mistakes in it, else 0",
);
static CERTIFICATE_EXPIRES_IN_SECONDS: Metric = Metric::gauge(
    "undermesh_certificate_expires_in_seconds",
    &["identity"],
    "time until a workload certificate expires; 0 while there is none",
);
static CERTIFICATES_OVERDUE: Metric = Metric::gauge(
    "undermesh_certificates_overdue",
    &["life_percent"],
    "certificates that cannot be renewed and have come to `50` or `80` per cent of their life",
);

/// Everything that the node's metrics are read from.
pub(crate) struct NodeCollector {
    pub(crate) datapath: Arc<Mutex<Datapath>>,
    pub(crate) enrolment: Arc<EnrolmentView>,
    pub(crate) identities: Arc<IdentityStore>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) warnings: Warnings,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_verdicts(&mut encoder)?;
        self.encode_maps(&mut encoder)?;
        node::encode_runs(&self.lock().program_runs(), &mut encoder)?;
        node::encode_traffic(&mut encoder)?;
        host::encode(&mut encoder)?;
        self.encode_pods(&mut encoder)?;
        self.encode_gate(&mut encoder)?;
        self.encode_policies(&mut encoder)?;
        self.encode_certificates(&mut encoder)
    }
}

impl NodeCollector {
    fn encode_verdicts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let verdicts = self.lock().verdicts().unwrap_or_default();
        let series = verdicts.iter().map(|(reason, count)| ([reason.as_str()], *count));
        counters(&KERNEL_VERDICTS, encoder, series)
    }

    fn encode_maps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let maps = self.lock().maps().unwrap_or_default();
        let entries = maps.iter().map(|map| ([map.name], map.entries as i64));
        gauges(&MAP_ENTRIES, encoder, entries)?;
        let most = maps.iter().map(|map| ([map.name], map.max_entries as i64));
        gauges(&MAP_MAX_ENTRIES, encoder, most)
    }

    fn encode_pods(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pods = self.enrolment.pods();
        let states = [
            (PodState::Enrolled, "enrolled"),
            (PodState::Pending, "pending"),
            (PodState::Waiting, "waiting"),
            (PodState::Impossible, "impossible"),
        ];
        let count = |state| pods.iter().filter(|pod| pod.state == state).count() as i64;
        gauges(&PODS, encoder, states.map(|(state, name)| ([name], count(state))))
    }

    fn encode_gate(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gate = self.enrolment.gate();
        gauge(&GATE_HELD_PODS, encoder, Some(gate.held_pods as i64))?;
        gauge(&GATE_UNKNOWN_CGROUPS, encoder, Some(gate.unknown_cgroups as i64))
    }

    /// As `undermesh status` shows them.
    fn encode_policies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (authorizers, keys) = self.proxy.asked();
        let snapshot = self.snapshot.load();
        let rows = policies::rows(&snapshot, (&authorizers, &keys), &self.warnings);
        let count = |state| rows.iter().filter(|row| row.state == state).count() as i64;
        let states = PolicyState::ALL.into_iter().map(|state| ([state.name()], count(state)));
        gauges(&POLICIES, encoder, states)?;
        let causes = rows.iter().flat_map(|row| row.causes.iter().map(move |cause| (row, cause)));
        let failing = causes.map(|(row, cause)| {
            let (state, cause) = (row.state.name(), cause.name());
            ([row.kind.as_str(), row.namespace.as_str(), row.name.as_str(), state, cause], 1)
        });
        gauges(&POLICY_FAILING, encoder, failing)?;
        let rejected = i64::from(self.warnings.is_rejected());
        gauge(&CONFIGURATION_REJECTED, encoder, Some(rejected))
    }

    fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let certificates = self.identities.certificates();
        let ids: Vec<String> = certificates.iter().map(|it| it.id.to_string()).collect();
        let ends = ids.iter().zip(&certificates);
        let ends = ends.map(|(id, it)| ([id.as_str()], it.expires_in_seconds));
        gauges(&CERTIFICATE_EXPIRES_IN_SECONDS, encoder, ends)?;
        let overdue = [("50", 50), ("80", 80)].map(|(share, percent)| {
            ([share], certificates.iter().filter(|it| it.is_overdue(percent)).count() as i64)
        });
        gauges(&CERTIFICATES_OVERDUE, encoder, overdue)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Datapath> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing where there is no value.
fn gauge(
    metric: &'static Metric,
    encoder: &mut DescriptorEncoder<'_>,
    value: Option<i64>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    ConstGauge::new(value).encode(metric.describe(encoder)?)
}

/// One series for each of the labels' values.
fn gauges<'a, const N: usize>(
    metric: &'static Metric,
    encoder: &mut DescriptorEncoder<'_>,
    series: impl IntoIterator<Item = ([&'a str; N], i64)>,
) -> fmt::Result {
    let mut family = metric.describe(encoder)?;
    for (values, value) in series {
        ConstGauge::new(value).encode(family.encode_family(&metric.with(values))?)?;
    }
    Ok(())
}

/// The same of what only grows.
fn counters<'a, const N: usize, V: EncodeCounterValue>(
    metric: &'static Metric,
    encoder: &mut DescriptorEncoder<'_>,
    series: impl IntoIterator<Item = ([&'a str; N], V)>,
) -> fmt::Result {
    let mut family = metric.describe(encoder)?;
    for (values, value) in series {
        ConstCounter::new(value).encode(family.encode_family(&metric.with(values))?)?;
    }
    Ok(())
}
