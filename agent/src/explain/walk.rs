//! The way of a connection or request from its client: the kernel's decision, the proxy's plan, routes, destination,
//! endpoints. Where it leads, `arrive` goes on.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use undermesh_ebpf_common::{Action, Addr, Outbound, Pod, Reason, decide_outbound};
use undermesh_model::Workload;
use undermesh_proxy::explain::{self as proxy, Asked, Led, Refused};
use undermesh_snapshot::{
    OutgoingView, Snapshot, WorkloadInfo, addr, socket, traffic::PortTraffic,
};
use undermesh_telemetry::path_as_logged;

use super::{
    arrive::Coming,
    ends::Dialled,
    kernel::Seen,
    mesh::Mesh,
    question::RequestLine,
    report::{End, Explanation, Rule, Step, Verdict, Way, add, gathered},
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

/// Steps on a way, while it is followed.
#[derive(Clone, Default)]
pub(super) struct Trail {
    pub(super) steps: Vec<Step>,
    pub(super) assumptions: Vec<String>,
    /// What is so at the moment.
    pub(super) now: Vec<String>,
    /// In how many of a hundred cases.
    pub(super) percent: f64,
    /// What the client's kernel has said.
    pub(super) reason: &'static str,
}

/// How a way ends.
pub(super) struct Ending<'a> {
    pub(super) verdict: Verdict,
    pub(super) reason: &'a str,
    pub(super) detail: String,
    pub(super) status: Option<u16>,
}

impl Trail {
    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn assume(&mut self, what: impl Into<String>) {
        add(&mut self.assumptions, [what.into()]);
    }

    pub(super) fn now(&mut self, what: String) {
        add(&mut self.now, [what]);
    }

    /// The same way for a part of the cases.
    pub(super) fn part(&self, part: usize, whole: usize) -> Self {
        let percent = self.percent * part as f64 / whole.max(1) as f64;
        Self { percent, ..self.clone() }
    }

    pub(super) fn ends(self, endpoint: Option<SocketAddr>, end: Ending<'_>) -> Way {
        let decided_at = self.steps.last().map(|step| step.at.clone()).unwrap_or_default();
        Way {
            percent: self.percent,
            endpoints: endpoint.iter().map(ToString::to_string).collect(),
            verdict: end.verdict,
            reason: end.reason.to_owned(),
            detail: end.detail,
            status: end.status,
            decided_at,
            steps: self.steps,
            assumptions: self.assumptions,
            now: self.now,
        }
    }

    pub(super) fn refused(self, endpoint: Option<SocketAddr>, refused: Refused) -> Way {
        let Refused { reason, detail, status, .. } = refused;
        self.ends(endpoint, Ending { verdict: Verdict::Refused, reason, detail, status })
    }
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
        let mut outcomes: Vec<(Outbound, Vec<super::report::Lookup>, usize)> = Vec::new();
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

    fn decided(&self, trail: &Trail, reason: Reason, lookups: Vec<super::report::Lookup>) -> Trail {
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

    fn by_proxy(&self, mut trail: Trail) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let planned = proxy::outgoing(&self.snapshot, client, self.dialled.address);
        let mut step = self.by_agent("plan");
        if let Some(service) = &planned.service {
            step.won.push(Rule::new(&service.origin, service.port_name.clone(), "was dialled"));
        }
        if let Some(traffic) = &planned.traffic {
            step.outcome = format!("rules are about it; {}", speaks(traffic));
            trail.step(step);
            return self.by_rules(trail, traffic);
        }
        if let Some(refused) = planned.refused {
            step.outcome = refused.reason.to_owned();
            trail.step(step);
            return vec![trail.refused(None, refused)];
        }
        let whole: usize = planned.endpoints.iter().map(|(_, cases)| cases).sum();
        step.outcome = match planned.endpoints.len() {
            1 => "one endpoint".to_owned(),
            more => format!("one of {more} endpoints, by chance and weight"),
        };
        trail.step(step);
        let each = planned.endpoints.into_iter().take(MAX_ENDPOINTS);
        each.flat_map(|(to, cases)| self.reach(trail.part(cases, whole), to, false)).collect()
    }

    fn by_rules(&self, trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        match &self.request {
            Some(asked) if proxy::carries_requests(traffic) => self.by_route(trail, traffic, asked),
            None if proxy::carries_requests(traffic) && !traffic.http.is_empty() => {
                self.without_request(trail, traffic)
            }
            _ => self.by_connection(trail, traffic),
        }
    }

    /// Nobody has said what is asked for, and that decides.
    fn without_request(&self, mut trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        let mut step = self.by_agent("route");
        step.outcome = "depends on the request".to_owned();
        for (_, route) in traffic.http.entries() {
            let rule = Rule::new(&route.origin, route.name.clone(), "may be about the request");
            if !step.lost.contains(&rule) {
                step.lost.push(rule);
            }
        }
        trail.step(step);
        let detail = "its requests decide; say METHOD and PATH".to_owned();
        let verdict = Verdict::Depends;
        vec![trail.ends(None, Ending { verdict, reason: "at_requests", detail, status: None })]
    }

    fn by_route(&self, mut trail: Trail, traffic: &PortTraffic, asked: &Asked) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let found = proxy::route_request(traffic, client, asked);
        let mut step = self.by_agent("route");
        step.lost = found
            .losers
            .iter()
            .map(|(route, why)| Rule::new(&route.origin, route.name.clone(), why.clone()))
            .collect();
        if let Some(refused) = found.refused {
            step.outcome = "no rule is about it".to_owned();
            trail.step(step);
            return vec![trail.refused(None, refused)];
        }
        let Some(route) = found.winner else {
            step.outcome = "there is no rule about requests".to_owned();
            trail.step(step);
            return self.to_destination(trail, &traffic.default, Some(asked));
        };
        step.outcome = "a rule is about it".to_owned();
        let why = if step.lost.is_empty() { "it matches" } else { "the first that matches" };
        step.won.push(Rule::new(&route.origin, route.name.clone(), why));
        trail.step(step);
        let mut ways = Vec::new();
        for fault in proxy::faults(&route) {
            let mut step = self.by_agent("fault");
            step.outcome = format!("{}, in {}% of cases", fault.what, fault.percent);
            step.won.push(Rule::new(&route.origin, route.name.clone(), "injects it"));
            if let Some(status) = fault.status.filter(|_| fault.percent > 0.0) {
                let mut aborted = trail.clone();
                aborted.percent = trail.percent * fault.percent / 100.0;
                aborted.step(step.clone());
                let (reason, detail) = ("fault_injected", fault.what.clone());
                let refused = Refused { reason, detail, status: Some(status), policy: None };
                ways.push(aborted.refused(None, refused));
                trail.percent -= trail.percent * fault.percent / 100.0;
            }
            trail.step(step);
        }
        if trail.percent <= 0.0 {
            return ways;
        }
        let led = proxy::led(&route, found.path_len, asked, self.dialled.address);
        let whole: u32 = led.iter().map(|(_, weight)| weight).sum();
        for (led, weight) in led {
            let mut part = trail.part(weight as usize, whole as usize);
            match led {
                Led::Forwarded(spec) => ways.extend(self.to_destination(part, &spec, Some(asked))),
                Led::Answered(answer) => {
                    let mut step = self.by_agent("answer");
                    step.outcome = format!("answered here with status {}", answer.status);
                    part.step(step);
                    let verdict = if answer.refuses { Verdict::Refused } else { Verdict::Carried };
                    let (reason, status) = (answer.reason, Some(answer.status));
                    let end = Ending { verdict, reason, detail: String::new(), status };
                    ways.push(part.ends(None, end));
                }
            }
        }
        ways
    }

    /// Bytes that nobody looks into, or requests of a port whose name says that it has none.
    fn by_connection(&self, mut trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let found = proxy::route_connection(traffic, client, self.dialled.address, None);
        let mut step = self.by_agent("route");
        step.lost = found.losers.iter().map(|(origin, why)| Rule::new(origin, "", *why)).collect();
        step.outcome = match &found.winner {
            Some(origin) => {
                step.won.push(Rule::new(origin, "", "the first that matches"));
                "a rule is about it".to_owned()
            }
            None => "no rule is about connections like it".to_owned(),
        };
        trail.step(step);
        let whole: u32 = found.targets.iter().map(|(_, weight)| weight).sum();
        let mut ways = Vec::new();
        for (spec, weight) in found.targets {
            let part = trail.part(weight as usize, whole as usize);
            match spec {
                Some(spec) => ways.extend(self.to_destination(part, &spec, None)),
                None => {
                    let detail = "the rule leads to a destination that cannot be used".to_owned();
                    let reason = "no_endpoints";
                    let refused = Refused { reason, detail, status: None, policy: None };
                    ways.push(part.refused(None, refused));
                }
            }
        }
        ways
    }

    /// A step of the agent of the client's node.
    pub(super) fn by_agent(&self, name: &str) -> Step {
        let at = format!("the agent of node {}", self.node());
        Step { step: name.to_owned(), at, ..Step::default() }
    }

    pub(super) fn node(&self) -> &str {
        self.source.node.as_deref().unwrap_or_default()
    }

    fn report(&self, request: Option<&RequestLine>, common: Trail, ways: Vec<Way>) -> Explanation {
        let first = ways.first();
        let same = |of: fn(&Way) -> Verdict| ways.iter().all(|way| of(way) == of(&ways[0]));
        let agreed = !ways.is_empty() && same(|way| way.verdict);
        let verdict = if agreed { ways[0].verdict } else { Verdict::Depends };
        let alone = ways.len() == 1 || agreed;
        let word = |of: fn(&Way) -> String| {
            let found = first.filter(|_| alone).map(of);
            found.unwrap_or_else(|| "the ways that it may take differ".to_owned())
        };
        let (mut assumptions, mut now) = (common.assumptions, common.now);
        for way in &ways {
            add(&mut assumptions, way.assumptions.iter().cloned());
            add(&mut now, way.now.iter().cloned());
        }
        let each = ways.iter().flat_map(|way| &way.steps);
        now.extend(self.mesh.overload(each));
        let steps = ways.iter().flat_map(|way| &way.steps);
        let rules = steps.flat_map(|step| step.won.iter().chain(&step.lost));
        let objects: BTreeSet<String> = rules.map(Rule::object).collect();
        let destination = End {
            name: self.dialled.what.clone(),
            address: self.dialled.address.to_string(),
            ..End::default()
        };
        Explanation {
            verdict,
            reason: if alone { word(|way| way.reason.clone()) } else { "differs".to_owned() },
            detail: word(|way| way.detail.clone()),
            status: first.filter(|_| alone).and_then(|way| way.status),
            decided_at: first
                .filter(|_| alone)
                .map(|way| way.decided_at.clone())
                .unwrap_or_default(),
            source: self.source_end(),
            destination,
            dialled: self.dialled.address.to_string(),
            request: request
                .map(|one| format!("{} {}", one.method, path_as_logged(&one.target)))
                .unwrap_or_default(),
            generation: self.snapshot.generation.0,
            steps: common.steps,
            findings: self.mesh.findings_about(&objects),
            ways,
            assumptions,
            now,
        }
    }

    fn source_end(&self) -> End {
        use undermesh_model::Enrolment;
        let (Enrolment::Enrolled(mesh)
        | Enrolment::NotEnrolled(mesh)
        | Enrolment::Impossible(mesh)) = &self.source.enrolment;
        End {
            name: self.source.name.to_string(),
            address: self.from.to_string(),
            identity: self.client.as_ref().map(|one| one.identity.to_string()).unwrap_or_default(),
            node: self.node().to_owned(),
            mesh: mesh.clone(),
        }
    }
}

fn speaks(traffic: &PortTraffic) -> String {
    format!("the port speaks {:?}", traffic.protocol).to_lowercase()
}
