//! The end of a way: what becomes of a connection at the destination's node, and of a request in it.

use std::{net::SocketAddr, sync::Arc};

use undermesh_ebpf_common::{HBONE_PORT, Inbound, Publisher, Reason, decide_inbound};
use undermesh_model::Wire;
use undermesh_proxy::explain::{self as proxy, Judged, Refused, Visitor};
use undermesh_snapshot::{
    ArrivingView, CompiledPolicy, Matches, Opinion, Snapshot, WorkloadInfo, addr,
};

use super::{
    kernel::Seen,
    report::{Lookup, Rule, Step, Verdict, Way},
    trail::{Ending, Trail},
    walk::Walk,
};

/// A port that a client might dial from: any is as good.
const SOME_PORT: u16 = 40_000;

/// How something comes to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// In the kernel, published as a pod's of the same node.
    Local,
    /// As it is.
    Plain,
    /// In a wire that proves who sends it.
    Wire(Wire),
    /// By the agent of the same node, without a wire.
    Neighbour,
}

/// A pod that something comes to.
pub(super) struct Pod<'a> {
    pub(super) workload: &'a WorkloadInfo,
    pub(super) policy: Arc<CompiledPolicy>,
    pub(super) address: SocketAddr,
    pub(super) snapshot: &'a Snapshot,
}

impl Walk<'_> {
    /// Follows a way to its end.
    pub(super) fn arrive(&self, mut trail: Trail, to: SocketAddr, coming: Coming) -> Vec<Way> {
        let Some(workload) = self.snapshot.workloads.get(&to.ip()).cloned() else {
            trail.step(self.outside(to));
            trail.assume(format!("a server answers at {to}"));
            return vec![self.carried(trail, to, String::new())];
        };
        if !self.mesh.knows_policies_of(&workload.node) {
            return vec![self.unknown(trail, to, &workload)];
        }
        let snapshot = self.mesh.snapshot(&workload.node);
        let policy = snapshot.policies.get(&workload.name).cloned().unwrap_or_default();
        let local = snapshot.workloads.get(&to.ip()).cloned().unwrap_or(workload);
        let pod = Pod { workload: &local, policy, address: to, snapshot: &snapshot };
        if coming == Coming::Neighbour {
            return vec![self.at_agent(trail, &pod, coming)];
        }
        let (inbound, lookups) = self.decide(&pod, coming);
        let reason = match inbound {
            Inbound::Pass(reason) | Inbound::Steer(reason) | Inbound::Drop(reason) => reason,
        };
        let mut step = pod.step("arrive", "kernel");
        step.outcome = reason.as_str().to_owned();
        step.lookups = lookups;
        self.name_mode(&mut step, pod.workload, to.port());
        match inbound {
            Inbound::Pass(_) => {
                let judged = proxy::connection(&pod.policy, &self.visitor(&pod, coming));
                name(&mut step, &judged.opinions);
                trail.step(step);
                trail.assume(format!("an application listens at {to}"));
                vec![self.carried(trail, to, decision(&pod, &judged))]
            }
            Inbound::Drop(reason) => {
                let judged = proxy::connection(&pod.policy, &self.visitor(&pod, coming));
                name(&mut step, &judged.opinions);
                trail.step(step);
                // The kernel's table has answers, and no names.
                let detail = match reason {
                    Reason::PolicyDenied => decision(&pod, &judged),
                    _ => String::new(),
                };
                let reason = reason.as_str();
                let refused = Refused { reason, detail, status: None, policy: None };
                vec![trail.refused(Some(to), refused)]
            }
            Inbound::Steer(_) => {
                trail.step(step);
                vec![self.at_agent(trail, &pod, coming)]
            }
        }
    }

    fn decide(&self, pod: &Pod<'_>, coming: Coming) -> (Inbound, Vec<Lookup>) {
        let port = match coming {
            Coming::Wire(Wire::Hbone) => HBONE_PORT,
            _ => pod.address.port(),
        };
        let publisher = match coming {
            Coming::Local => Publisher::pod(addr(self.from)),
            _ => Publisher::NOBODY,
        };
        let from = SocketAddr::new(self.from, SOME_PORT);
        let to = SocketAddr::new(pod.address.ip(), port);
        let view =
            Seen::inbound(ArrivingView { tables: &pod.snapshot.tables, publisher }, from, to);
        let inbound = decide_inbound(&view, &addr(to.ip()), port, &addr(self.from));
        (inbound, view.lookups())
    }

    /// Who comes, as the destination knows it: a wire proves it, a pod of the node is known, all others are nobody.
    fn visitor<'v>(&'v self, pod: &'v Pod<'_>, coming: Coming) -> Visitor<'v> {
        let client = self.client.as_ref().map(|client| &client.identity);
        Visitor {
            source: client.filter(|_| coming != Coming::Plain),
            from: self.from,
            destination: pod.address,
            workload: pod.workload,
        }
    }

    /// The agent of the destination judges.
    fn at_agent(&self, mut trail: Trail, pod: &Pod<'_>, coming: Coming) -> Way {
        let visitor = self.visitor(pod, coming);
        let judged = proxy::connection(&pod.policy, &visitor);
        let mut step = pod.step("authorize", "agent");
        step.outcome.clone_from(&judged.decision);
        name(&mut step, &judged.opinions);
        trail.step(step);
        if let Some(refused) = judged.refused {
            return trail.refused(Some(pod.address), refused);
        }
        if !judged.at_requests {
            trail.assume(format!("an application listens at {}", pod.address));
            return self.carried(trail, pod.address, judged.decision);
        }
        let budgets = proxy::budgets(&self.mesh.present, &visitor, &judged.limits);
        self.limits(&mut trail, pod, &judged.limits, budgets);
        match &self.request {
            Some(asked) => self.judge_request(trail, pod, &visitor, asked),
            None => self.judge_bytes(trail, pod, &visitor),
        }
    }

    /// Nobody has said what it carries. What is no request is judged by the rest of the rules.
    fn judge_bytes(&self, mut trail: Trail, pod: &Pod<'_>, visitor: &Visitor<'_>) -> Way {
        let judged = proxy::opaque(&pod.policy, visitor);
        let mut step = pod.step("judge", "agent");
        step.outcome =
            format!("depends on the requests; of bytes that are none: {}", judged.decision);
        name(&mut step, &judged.opinions);
        trail.step(step);
        let detail = "its requests decide; say METHOD and PATH".to_owned();
        let (verdict, reason) = (Verdict::Depends, "at_requests");
        trail.ends(Some(pod.address), Ending { verdict, reason, detail, status: None })
    }

    pub(super) fn carried(&self, trail: Trail, to: SocketAddr, detail: String) -> Way {
        let (verdict, reason) = (Verdict::Carried, trail.reason);
        trail.ends(Some(to), Ending { verdict, reason, detail, status: None })
    }

    /// The destination is none of the mesh's.
    fn outside(&self, to: SocketAddr) -> Step {
        let outcome = match self.mesh.pod_at(to.ip()) {
            Some(pod) => format!("pod {} is not in the mesh; nobody judges it", pod.name),
            None => "nobody of the mesh is there; nobody judges it".to_owned(),
        };
        Step { step: "arrive".to_owned(), at: to.to_string(), outcome, ..Step::default() }
    }

    fn unknown(&self, mut trail: Trail, to: SocketAddr, workload: &WorkloadInfo) -> Way {
        let (name, node) = (&workload.name, &workload.node);
        trail.step(Step {
            step: "authorize".to_owned(),
            at: format!("the agent of node {node}"),
            outcome: "its policies are not known here".to_owned(),
            ..Step::default()
        });
        let detail = format!(
            "only the agent of node {node} knows the policies about {name}; ask there: \
             `undermesh explain {} {to}`",
            self.source.name
        );
        let (verdict, reason) = (Verdict::Depends, "policies_elsewhere");
        trail.ends(Some(to), Ending { verdict, reason, detail, status: None })
    }
}

impl Pod<'_> {
    pub(super) fn step(&self, name: &str, by: &str) -> Step {
        let at = format!("the {by} of node {}", self.workload.node);
        Step { step: name.to_owned(), at, ..Step::default() }
    }
}

/// The decision in words; nothing where there is no policy.
fn decision(pod: &Pod<'_>, judged: &Judged<'_>) -> String {
    if pod.policy.is_trivial() { String::new() } else { judged.decision.clone() }
}

/// Names policies by what they have to say.
pub(super) fn name(step: &mut Step, opinions: &[Opinion<'_>]) {
    for opinion in opinions {
        let statement = opinion.statement;
        let dry = if statement.dry_run { " (dry run)" } else { "" };
        let action = format!("{:?}", statement.action).to_uppercase();
        let because = opinion.because.as_deref().unwrap_or("there is no rule");
        let rule = opinion.rule.map(|rule| rule.to_string()).unwrap_or_default();
        let (list, why) = match opinion.matches {
            Matches::Yes => (&mut step.won, format!("{action}{dry} matches: {because}")),
            Matches::Maybe => {
                (&mut step.lost, format!("{action}{dry} depends on the request: {because}"))
            }
            Matches::No => (&mut step.lost, format!("{action}{dry} does not match: {because}")),
        };
        list.push(Rule::new(&statement.origin, rule, why));
    }
}
