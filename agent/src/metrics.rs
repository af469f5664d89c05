//! Metrics of the node: verdicts, maps, pods and certificates, read when they are scraped.

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
use undermesh_telemetry::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    agent::Warnings,
    enrolment::EnrolmentView,
    policies::{self, PolicyState},
    status::PodState,
};

pub(crate) use snapshot::{Sink, SnapshotMetrics};
pub(crate) use source::SourceCollector;

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
        self.encode_pods(&mut encoder)?;
        self.encode_gate(&mut encoder)?;
        self.encode_policies(&mut encoder)?;
        self.encode_certificates(&mut encoder)
    }
}

impl NodeCollector {
    fn encode_verdicts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Verdicts of the eBPF programs, by reason";
        let kind = MetricType::Counter;
        let mut family =
            encoder.encode_descriptor("undermesh_kernel_verdicts", help, None, kind)?;
        for (reason, count) in self.lock().verdicts().unwrap_or_default() {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_maps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let maps = self.lock().maps().unwrap_or_default();
        let kind = MetricType::Gauge;
        let help = "Entries in the BPF maps";
        let mut family = encoder.encode_descriptor("undermesh_map_entries", help, None, kind)?;
        for map in &maps {
            gauge(&mut family, &[("map", map.name)], map.entries as i64)?;
        }
        let help = "Entries that fit into the BPF maps";
        let mut family =
            encoder.encode_descriptor("undermesh_map_max_entries", help, None, kind)?;
        for map in &maps {
            gauge(&mut family, &[("map", map.name)], map.max_entries as i64)?;
        }
        Ok(())
    }

    fn encode_pods(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pods = self.enrolment.pods();
        let help = "Pods of this node that should be in the mesh, by state";
        let mut family =
            encoder.encode_descriptor("undermesh_pods", help, None, MetricType::Gauge)?;
        for (state, name) in [
            (PodState::Enrolled, "enrolled"),
            (PodState::Pending, "pending"),
            (PodState::Waiting, "waiting"),
            (PodState::Impossible, "impossible"),
        ] {
            let count = pods.iter().filter(|pod| pod.state == state).count();
            gauge(&mut family, &[("state", name)], count as i64)?;
        }
        Ok(())
    }

    fn encode_gate(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gate = self.enrolment.gate();
        let kind = MetricType::Gauge;
        let help = "Pods that should be in the mesh, are not programmed, and are held";
        let held = encoder.encode_descriptor("undermesh_gate_held_pods", help, None, kind)?;
        ConstGauge::new(gate.held_pods as i64).encode(held)?;
        let help = "Cgroups that are held until somebody says whose they are";
        let name = "undermesh_gate_unknown_cgroups";
        let unknown = encoder.encode_descriptor(name, help, None, kind)?;
        ConstGauge::new(gate.unknown_cgroups as i64).encode(unknown)
    }

    /// As `undermesh status` shows them.
    fn encode_policies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (authorizers, keys) = self.proxy.asked();
        let snapshot = self.snapshot.load();
        let rows = policies::rows(&snapshot, (&authorizers, &keys), &self.warnings);
        let kind = MetricType::Gauge;
        let help = "Policies about pods of this node, by state";
        let mut family = encoder.encode_descriptor("undermesh_policies", help, None, kind)?;
        for state in PolicyState::ALL {
            let count = rows.iter().filter(|row| row.state == state).count();
            gauge(&mut family, &[("state", state.name())], count as i64)?;
        }
        let help = "Policies that do not do what is written, and why: 1 for each cause";
        let name = "undermesh_policy_failing";
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for row in &rows {
            for cause in &row.causes {
                let labels = [
                    ("kind", row.kind.as_str()),
                    ("policy_namespace", row.namespace.as_str()),
                    ("policy", row.name.as_str()),
                    ("state", row.state.name()),
                    ("cause", cause.name()),
                ];
                gauge(&mut family, &labels, 1)?;
            }
        }
        let help = "1 while a newer configuration is not in force because of mistakes in it";
        let name = "undermesh_configuration_rejected";
        let rejected = encoder.encode_descriptor(name, help, None, kind)?;
        ConstGauge::new(i64::from(self.warnings.is_rejected())).encode(rejected)
    }

    fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds until a workload certificate expires; 0 while there is none";
        let name = "undermesh_certificate_expires_in_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for certificate in self.identities.certificates() {
            let id = certificate.id.to_string();
            gauge(&mut family, &[("identity", id.as_str())], certificate.expires_in_seconds)?;
        }
        let help =
            "Certificates that could not be renewed in time, by how much of their life is over";
        let name = "undermesh_certificates_overdue";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let certificates = self.identities.certificates();
        for (share, percent) in [("50", 50), ("80", 80)] {
            let overdue = certificates.iter().filter(|it| it.is_overdue(percent)).count();
            gauge(&mut family, &[("life_percent", share)], overdue as i64)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Datapath> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: i64) -> fmt::Result {
    let labels = labels.to_vec();
    ConstGauge::new(value).encode(family.encode_family(&labels)?)
}
