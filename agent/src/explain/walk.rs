//! The way of a connection or request from its client, up to the kernel's decision: from there, `routes` goes on with what
//! the proxy does, and where it leads, `arrive`.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use undermesh_ebpf_common::{Action, Addr, Outbound, Pod, Reason, decide_outbound};
use undermesh_model::Workload;
use undermesh_proxy::explain::{Asked, Refused};
use undermesh_snapshot::{OutgoingView, Snapshot, WorkloadInfo, addr, socket};

use super::{
    arrive::Coming,
    ends::Dialled,
    kernel::Seen,
    mesh::Mesh,
    question::RequestLine,
    report::{Explanation, Lookup, Rule, Step, Way, gathered},
    trail::Trail,
};
use crate::pod::flags_of;

/// Slots of a service that are looked at.
const MAX_SLOTS: u32 = 4_096;
/// Endpoints that are followed; those beyond are like them, most likely.
pub(super) const MAX_ENDPOINTS: usize = 64;

/// One question while it is answered.
pub(super) struct Walk<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) source: &'a Workload,
    /// The address that it dials from.
    pub(super) from: IpAddr,
    /// What the agent of its node has in force.
    pub(super) snapshot: Arc<Snapshot>,
    /// Who it is, where it is in the mesh.
    pub(super) client: Option<Arc<WorkloadInfo>>,
    pub(super) dialled: &'a Dialled,
    pub(super) request: Option<Asked>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(mesh: &'a Mesh, source: &'a Workload, dialled: &'a Dialled) -> Self {
        let snapshot = mesh.snapshot(source.node.as_deref().unwrap_or_default());
        let of_family = |own: &&IpAddr| own.is_ipv4() == dialled.address.is_ipv4();
        let mut own = source.addresses.iter();
        let from = own.find(of_family).or(source.addresses.first()).copied();
        let from = from.unwrap_or(dialled.address.ip());
        let client = snapshot.local.iter().find(|local| local.name == source.name).cloned();
        Self { mesh, source, from, snapshot, client, dialled, request: None }
    }

    /// Answers the question.
    pub(super) fn explain(mut self, request: Option<&RequestLine>) -> Result<Explanation> {
        let mut common = Trail { percent: 100.0, ..Trail::default() };
        if let Some(assumption) = &self.dialled.assumption {
            common.assume(assumption.clone());
        }
        let host = match self.dialled.address.port() {
            80 => self.dialled.host.clone(),
            _ if self.dialled.host.contains(':') => self.dialled.host.clone(),
            port => format!("{}:{port}", self.dialled.host),
        };
        let parsed = request.map(|request| request.parsed(&host)).transpose()?;
        let mut unreadable = None;
        if let Some((method, target, headers)) = parsed {
            match Asked::new(method, target, headers, self.dialled.address) {
                Ok(asked) => self.request = Some(asked),
                Err(refused) => unreadable = Some(refused),
            }
        }
        let ways = match unreadable {
            Some(refused) => vec![common.clone().refused(None, refused)],
            None => self.connect(&common),
        };
        Ok(self.report(request, common, gathered(ways)))
    }

    /// The client's `connect`, for all that chance may choose.
    fn connect(&self, common: &Trail) -> Vec<Way> {
        let dialled = self.dialled.address;
        let Some(client) = &self.client else {
            let trail = self.decided(common, Reason::NotEnrolled, Vec::new());
            return self.without_mesh(trail);
        };
        let (to, port_be) = (addr(dialled.ip()), dialled.port().to_be());
        let pod = self.pod(client);
        let mut outcomes: Vec<(Outbound, Vec<Lookup>, usize)> = Vec::new();
        let mut slot = 0;
        let whole = loop {
            let view = Seen::outbound(OutgoingView::new(&self.snapshot.tables, slot));
            let outbound = decide_outbound(&view, &pod, &to, port_be);
            let drawn = view.has_drawn();
            match outcomes.iter_mut().find(|(known, ..)| *known == outbound) {
                Some((.., cases)) => *cases += 1,
                None => outcomes.push((outbound, view.lookups(), 1)),
            }
            slot += 1;
            if !drawn || slot >= self.slots().min(MAX_SLOTS) {
                break slot;
            }
        };
        let mut ways = Vec::new();
        for (outbound, lookups, cases) in outcomes {
            let mut part = common.part(cases, whole as usize);
            if outbound.action != Action::Pass {
                part.assume(format!("the agent of node {} runs", self.node()));
            }
            let trail = self.decided(&part, outbound.reason, lookups);
            ways.extend(self.follow(trail, &outbound));
        }
        ways
    }

    fn follow(&self, trail: Trail, outbound: &Outbound) -> Vec<Way> {
        match outbound.action {
            Action::Refuse => {
                let (reason, detail) = (outbound.reason.as_str(), String::new());
                vec![trail.refused(None, Refused { reason, detail, status: None, policy: None })]
            }
            Action::Pass => self.without_mesh(trail),
            Action::Local => {
                let to = socket(outbound.to, outbound.to_port_be);
                self.arrive(trail, to, Coming::Local)
            }
            Action::Proxy => self.by_proxy(trail),
        }
    }

    /// What the programs know of the client's pod.
    fn pod(&self, client: &WorkloadInfo) -> Pod {
        let of = |ipv4: bool| client.addresses.iter().find(|own| own.is_ipv4() == ipv4).copied();
        let known = |own: Option<IpAddr>| own.map_or(Addr::UNSPECIFIED, addr);
        Pod {
            addr4: known(of(true)),
            addr6: known(of(false)),
            outbound_port_be: 15001_u16.to_be(),
            pad: 0,
            flags: flags_of(client, self.snapshot.options.outbound_policy),
        }
    }

    fn slots(&self) -> u32 {
        let dialled = self.dialled.address;
        let key = undermesh_ebpf_common::ServiceKey {
            addr: addr(dialled.ip()),
            port_be: dialled.port().to_be(),
            pad: 0,
        };
        self.snapshot.tables.services.get(&key).map_or(0, |service| service.backends)
    }

    fn decided(&self, trail: &Trail, reason: Reason, lookups: Vec<Lookup>) -> Trail {
        let mut trail = trail.clone();
        trail.reason = reason.as_str();
        let mut won = Vec::new();
        if let Some(route) = self.snapshot.services.get(&self.dialled.address) {
            won.push(Rule::new(&route.origin, route.port_name.clone(), "has the address"));
        }
        trail.step(Step {
            step: "connect".to_owned(),
            at: format!("the kernel of node {}", self.node()),
            outcome: reason.as_str().to_owned(),
            won,
            lookups,
            ..Step::default()
        });
        trail
    }

    /// The connection is left alone: behind a virtual address, the cluster chooses.
    fn without_mesh(&self, trail: Trail) -> Vec<Way> {
        let endpoints = &self.dialled.endpoints;
        if endpoints.is_empty() {
            return self.arrive(trail, self.dialled.address, Coming::Plain);
        }
        let each = endpoints.iter().take(MAX_ENDPOINTS);
        let ways =
            each.flat_map(|to| self.arrive(trail.part(1, endpoints.len()), *to, Coming::Plain));
        ways.collect()
    }

    /// A step of the agent of the client's node.
    pub(super) fn by_agent(&self, name: &str) -> Step {
        let at = format!("the agent of node {}", self.node());
        Step { step: name.to_owned(), at, ..Step::default() }
    }

    pub(super) fn node(&self) -> &str {
        self.source.node.as_deref().unwrap_or_default()
    }
}
