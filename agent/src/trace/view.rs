//! What is known of a connection that is traced, put together from who knows it: the pinned maps, the proxy, flow records,
//! and the probe.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use serde_json::Value;
use undermesh_datapath::{MapReader, Netns};
use undermesh_ebpf_common::{
    Action, Inbound, Outbound, OutboundView as _, Pod, ServiceKey, decide_inbound, decide_outbound,
};
use undermesh_model::NamespacedName;
use undermesh_proxy::Proxy;
use undermesh_snapshot::{addr, ip, socket};
use undermesh_telemetry::Telemetry;

use super::{
    question::Asked,
    report::{ProxyStep, State, Trace},
    sessions::{Session, Sessions},
};
use crate::{
    enrolment::EnrolmentView,
    explain::{
        Mesh, explained,
        kernel::Seen,
        report::{Lookup, Rule, Step},
    },
};

/// Slots of a service that are looked at for the one that was chosen.
const MAX_SLOTS: u32 = 4_096;

/// Who knows of connections.
pub(crate) struct Tracing {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) mesh: Mesh,
    pub(crate) reader: MapReader,
    pub(crate) enrolment: Arc<EnrolmentView>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Tracing {
    /// Where the network namespace of an enrolled pod is.
    pub(super) fn netns(&self, pod: &NamespacedName) -> Result<PathBuf> {
        let mut namespaces = self.enrolment.namespaces();
        namespaces.remove(pod).with_context(|| {
            let known: Vec<String> = namespaces.keys().map(ToString::to_string).collect();
            format!("{pod} is no enrolled pod of this node; there are {}", known.join(", "))
        })
    }

    /// The address that is dialled, and the name that a request would have.
    pub(super) fn dialled(&self, asked: &Asked) -> Result<Option<(SocketAddr, String)>> {
        if asked.to.is_empty() {
            return Ok(None);
        }
        crate::explain::dialled(&self.mesh, &asked.pod, &asked.to).map(Some)
    }

    /// What is known of a trace now.
    pub(super) fn look(&self, session: &Session) -> Result<Trace> {
        let (namespace, name) = session.asked.pod.split_once('/').context("no pod")?;
        let pod = NamespacedName::new(namespace, name);
        let netns_cookie = Netns::open(&self.netns(&pod)?)?.cookie();
        let probed = session.probed();
        let followed = session.follower.steps();
        let mut source = probed.as_ref().map(|probed| probed.source.clone()).unwrap_or_default();
        if let Some((followed, _)) = &followed {
            source = followed.to_string();
        }
        let records = self.records(session, &pod, &mut source);
        let dialled = session.to.or_else(|| dialled_in(&records));
        let (mut kernel, mut left_alone) = (Vec::new(), false);
        if let Some(dialled) = dialled.filter(|_| !source.is_empty() || !records.is_empty()) {
            (kernel, left_alone) = self.kernel(netns_cookie, dialled, &records);
        }
        let ended = |record: &Value| matches!(record["event"].as_str(), Some("close" | "denied"));
        let request = |record: &Value| record["event"] == "request";
        let refused = |record: &Value| {
            record["event"] == "denied" || record["status"].as_u64().is_some_and(|it| it >= 400)
        };
        let asked = session.asked.request.is_some();
        let over = records.iter().any(|record| ended(record) || request(record));
        let done = if session.asked.send { probed.is_some() && (over || !asked) } else { over };
        // What the programs leave alone leaves no record.
        let done = done && (over || left_alone || followed.is_none() && !records.is_empty());
        let failed = probed.as_ref().is_some_and(|probed| !probed.error.is_empty());
        let refused = records.iter().any(refused);
        let state = match (done, session.is_over()) {
            (true, _) => State::Ended,
            (false, true) => State::TimedOut,
            (false, false) if records.is_empty() && followed.is_none() => State::Waiting,
            (false, false) => State::Open,
        };
        let steps = followed.map(|(_, steps)| steps).unwrap_or_default();
        let steps = steps.into_iter().map(|step| ProxyStep {
            at_us: step.at_us,
            step: step.step.to_owned(),
            detail: step.detail,
            stream: step.stream,
        });
        let proxy: Vec<ProxyStep> = steps.collect();
        let seen = !records.is_empty() || !proxy.is_empty() || left_alone;
        let carried = !refused && !failed && seen;
        Ok(Trace {
            state,
            carried,
            pod: pod.to_string(),
            netns_cookie,
            dialled: dialled.map(|dialled| dialled.to_string()).unwrap_or_default(),
            source,
            kernel,
            proxy,
            rules: self.rules(session, dialled),
            probe: probed,
            records,
            far: None,
        })
    }

    /// The flow records of the connection, the first of which may tell which one it is.
    fn records(&self, session: &Session, pod: &NamespacedName, source: &mut String) -> Vec<Value> {
        let page = self.telemetry.flows().after(Some(session.after));
        let mut found: Vec<Value> = Vec::new();
        for line in page.lines() {
            let Ok(record) = serde_json::from_str::<Value>(&line) else { continue };
            let from = &record["source"];
            let is_pods = from["namespace"] == *pod.namespace && from["pod"] == *pod.name;
            let to = session.to.map(|to| to.to_string());
            let meant = to.as_ref().is_none_or(|to| match record["dialled"].as_str() {
                Some(dialled) => dialled == to,
                // Dropped where it arrived: the kernel knows the source by its port there.
                None => from["address"] == *source.as_str(),
            });
            let address = from["address"].as_str().unwrap_or_default();
            // Refused before it had a port.
            let portless = address.ends_with(":0");
            if !is_pods || !meant || !(source.is_empty() || portless || address == source.as_str())
            {
                continue;
            }
            if source.is_empty() && !portless {
                *source = address.to_owned();
            }
            found.push(record);
            if portless {
                break;
            }
        }
        found
    }

    /// The decisions of the programs, as the pinned maps are now; and whether they leave the connection alone.
    fn kernel(&self, cookie: u64, dialled: SocketAddr, records: &[Value]) -> (Vec<Step>, bool) {
        let mut connect = Step {
            step: "connect".to_owned(),
            at: "the kernel, in the pod".to_owned(),
            ..Step::default()
        };
        let found = self.reader.pod(cookie);
        connect.lookups.push(Lookup {
            map: "PODS".to_owned(),
            key: cookie.to_string(),
            value: found.map_or_else(|| "none".to_owned(), |pod| described(&pod)),
        });
        let Some(pod) = found else {
            connect.outcome = "not_enrolled".to_owned();
            return (vec![connect], true);
        };
        let upstream = records.iter().find_map(|record| {
            record["destination"]["address"].as_str()?.parse::<SocketAddr>().ok()
        });
        let (outbound, lookups) = self.outbound(&pod, dialled, upstream);
        connect.outcome = outbound.reason.as_str().to_owned();
        connect.lookups.extend(lookups);
        let mut steps = vec![connect];
        if outbound.action == Action::Local {
            let to = socket(outbound.to, outbound.to_port_be);
            let from = records.iter().find_map(|record| {
                record["source"]["address"].as_str()?.parse::<SocketAddr>().ok()
            });
            let from = from.unwrap_or(SocketAddr::new(ip(pod.source_for(&outbound.to)), 0));
            steps.push(self.inbound(&pod, from, to));
        }
        (steps, outbound.action == Action::Pass)
    }

    /// The verdict of `connect`: of all that chance may choose, the one that was.
    fn outbound(
        &self,
        pod: &Pod,
        dialled: SocketAddr,
        upstream: Option<SocketAddr>,
    ) -> (Outbound, Vec<Lookup>) {
        let (to, port_be) = (addr(dialled.ip()), dialled.port().to_be());
        let decide = |slot: u32| {
            let view = Seen::outbound(self.reader.outgoing(slot));
            let outbound = decide_outbound(&view, pod, &to, port_be);
            (outbound, view.lookups())
        };
        let chosen = |outbound: &Outbound| {
            let to = socket(outbound.to, outbound.to_port_be);
            outbound.action != Action::Local || upstream == Some(to)
        };
        let key = ServiceKey { addr: to, port_be, pad: 0 };
        let slots = self.reader.outgoing(0).service(&key).map_or(1, |service| service.backends);
        let mut each = (0..slots.clamp(1, MAX_SLOTS)).map(decide);
        let found = each.find(|(outbound, _)| chosen(outbound));
        found.unwrap_or_else(|| decide(0))
    }

    /// The verdict at a pod of this node. The record of the connection is gone once it has ended; who it was is known.
    fn inbound(&self, client: &Pod, from: SocketAddr, to: SocketAddr) -> Step {
        let view = Seen::inbound(self.reader.arriving(from, to).published_by(client), from, to);
        let inbound = decide_inbound(&view, &addr(to.ip()), to.port(), &addr(from.ip()));
        let (Inbound::Pass(reason) | Inbound::Steer(reason) | Inbound::Drop(reason)) = inbound;
        Step {
            step: "arrive".to_owned(),
            at: format!("the kernel, at {to}"),
            outcome: reason.as_str().to_owned(),
            lookups: view.lookups(),
            ..Step::default()
        }
    }

    /// Rules that have a say in such a connection, as an explanation names them.
    fn rules(&self, session: &Session, dialled: Option<SocketAddr>) -> Vec<Rule> {
        let Some(dialled) = dialled else { return Vec::new() };
        session.rules.get_or_init(|| self.explained(session, dialled)).clone()
    }

    fn explained(&self, session: &Session, dialled: SocketAddr) -> Vec<Rule> {
        let request = session.asked.request.clone();
        let told = explained(&self.mesh, &session.asked.pod, &dialled.to_string(), request);
        let Ok(told) = told else { return Vec::new() };
        let mut rules = Vec::new();
        for rule in told.ways.iter().flat_map(|way| &way.steps).flat_map(|step| &step.won) {
            if !rules.contains(rule) && rule.kind != "endpoint" {
                rules.push(rule.clone());
            }
        }
        rules
    }
}

fn dialled_in(records: &[Value]) -> Option<SocketAddr> {
    records.iter().find_map(|record| record["dialled"].as_str()?.parse().ok())
}

fn described(pod: &Pod) -> String {
    format!(
        "{} {}, outbound port {}, flags {}",
        ip(pod.addr4),
        ip(pod.addr6),
        u16::from_be(pod.outbound_port_be),
        pod.flags
    )
}
