//! Where requests and connections are led: to whom the destination's rule chooses from, and over which wire.

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::Wire;
use undermesh_proxy::{
    LimitStatus,
    explain::{self as proxy, Asked, Candidate, Candidates, Reached},
};
use undermesh_snapshot::{WorkloadInfo, modes_of, traffic::ClusterSpec};

use super::{
    arrive::Coming,
    report::{Rule, Step, Verdict, Way},
    trail::{Ending, Trail},
    walk::{MAX_ENDPOINTS, Walk},
};

impl Walk<'_> {
    /// Whom the destination's rule chooses from.
    pub(super) fn to_destination(
        &self,
        mut trail: Trail,
        spec: &ClusterSpec,
        asked: Option<&Asked>,
    ) -> Vec<Way> {
        let name = spec.key.to_string();
        let mut step = self.by_agent("destination");
        step.outcome = settings(&name, spec);
        if let Some(rule) = &spec.rule {
            step.won.push(Rule::new(rule, spec.key.subset.clone(), "is about the destination"));
        }
        trail.step(step);
        self.pool(&mut trail, spec, &name);
        let ejected = self.mesh.ejected(&self.source.name, &name);
        let left_out: Vec<SocketAddr> = ejected.iter().map(|(address, _)| *address).collect();
        let ends = (SocketAddr::new(self.from, 0), self.dialled.address);
        let found = proxy::candidates(&self.snapshot, spec, ends, asked, &left_out);
        let Candidates { all, names, refused } = found;
        let mut step = self.by_agent("balance");
        if let Some(refused) = refused {
            step.outcome = refused.reason.to_owned();
            trail.step(step);
            return vec![trail.refused(None, refused)];
        }
        let chosen: Vec<&Candidate> = all.iter().filter(|one| one.chosen).collect();
        step.outcome = match (chosen.len(), names.is_empty()) {
            (0, _) => format!("an address that DNS has for {}", names.join(", ")),
            (1, true) => "one endpoint".to_owned(),
            (more, true) => format!("one of {more} endpoints"),
            (more, false) => {
                format!(
                    "one of {more} endpoints, or of those that DNS has for {}",
                    names.join(", ")
                )
            }
        };
        step.won = chosen.iter().map(|one| endpoint(one, "may be chosen")).collect();
        let why = |one: &Candidate| {
            let ejection = ejected.iter().find(|(at, _)| *at == one.reached.address);
            ejection.map_or("another one, or another tier, is chosen", |(_, why)| why.as_str())
        };
        let lost = all.iter().filter(|one| !one.chosen);
        step.lost = lost.map(|one| endpoint(one, why(one))).collect();
        trail.step(step);
        if chosen.is_empty() {
            trail.assume(format!(
                "DNS has an address for {}, and a server answers there",
                names.join(", ")
            ));
            let (verdict, reason) = (Verdict::Carried, trail.reason);
            return vec![
                trail.ends(None, Ending { verdict, reason, detail: String::new(), status: None }),
            ];
        }
        let whole: usize = chosen.iter().map(|one| one.weight as usize).sum();
        let each = chosen.into_iter().take(MAX_ENDPOINTS);
        each.flat_map(|one| {
            self.reach(trail.part(one.weight as usize, whole), one.reached.clone(), true)
        })
        .collect()
    }

    /// Takes for granted that limits of a destination are not reached and nobody is ejected, where the agent that knows is
    /// not asked; says how limits stand, where it is.
    fn pool(&self, trail: &mut Trail, spec: &ClusterSpec, name: &str) {
        let elsewhere = self.mesh.known_at(self.node());
        let is_asked = self.mesh.asks(self.node());
        if spec.settings.outlier.is_some() && !is_asked {
            trail.assume(format!("no endpoint of {name} is ejected{elsewhere}"));
        }
        let (tcp, http) = (&spec.settings.pool.tcp, &spec.settings.pool.http);
        let limits = [tcp.max_connections, http.max_pending, http.max_requests, http.max_retries];
        if limits.iter().all(|max| max.is_none_or(|max| max == 0)) {
            return;
        }
        trail.assume(format!("the limits of {name} are not reached{elsewhere}"));
        if !is_asked {
            return;
        }
        let Some(upstream) = self.mesh.upstream(&self.source.name, name) else {
            return trail.now(format!("{name}: nothing is held there"));
        };
        for LimitStatus { name: limit, held, max } in &upstream.limits {
            let Some(max) = max else { continue };
            let reached = if held >= max { ", which is all" } else { "" };
            trail.now(format!("{name}: {held} of {max} {limit}{reached}"));
        }
    }

    /// Over which wire an endpoint is reached. `neighbours`: pods of this node without one.
    pub(super) fn reach(&self, mut trail: Trail, to: Reached, neighbours: bool) -> Vec<Way> {
        let Reached { address, workload, wire } = to;
        let mut step = self.by_agent("wire");
        if let Some(workload) = &workload {
            self.name_mode(&mut step, workload, address.port());
        }
        let direct = |workload: &Arc<WorkloadInfo>| workload.local && workload.direct;
        let coming = match (&workload, wire) {
            (Some(workload), _) if neighbours && direct(workload) => {
                step.outcome = "delivered by this very agent".to_owned();
                Coming::Neighbour
            }
            (Some(_), Some(wire)) => {
                // Both ends have to speak it.
                let own = self.client.as_ref().map_or(wire, |client| client.wire);
                let spoken = if own == wire { wire } else { Wire::Hbone };
                step.outcome = format!("mutual TLS, {}", spoken.as_str());
                Coming::Wire(spoken)
            }
            (Some(_), None) => {
                step.outcome = "plaintext: the port takes no part in mutual TLS".to_owned();
                Coming::Plain
            }
            (None, _) => {
                step.outcome = "plaintext: nobody of the mesh is there".to_owned();
                Coming::Plain
            }
        };
        trail.step(step);
        self.arrive(trail, address, coming)
    }

    /// Which PeerAuthentication says what a port accepts.
    pub(super) fn name_mode(&self, step: &mut Step, workload: &WorkloadInfo, port: u16) {
        let Some(pod) = self.mesh.pod(workload) else { return };
        let options = &self.snapshot.options;
        let (modes, origin) = modes_of(&self.mesh.cluster, options, pod);
        let mode = format!("{:?}", modes.of(port)).to_uppercase();
        match origin.winner {
            Some(winner) => step.won.push(Rule::new(&winner, "", format!("port {port} is {mode}"))),
            None => step.won.push(Rule {
                kind: "setting".to_owned(),
                name: "mtls".to_owned(),
                why: format!("port {port} is {mode}"),
                ..Rule::default()
            }),
        }
        let lost = origin.losers.into_iter().map(|(loser, why)| Rule::new(&loser, "", why));
        step.lost.extend(lost);
    }
}

fn endpoint(one: &Candidate, why: &str) -> Rule {
    let panic = if one.panic { ", for want of healthy ones" } else { "" };
    let (weight, tier) = (one.weight, one.priority);
    Rule {
        kind: "endpoint".to_owned(),
        name: one.reached.address.to_string(),
        why: format!("{why}{panic} (weight {weight}, tier {tier})"),
        ..Rule::default()
    }
}

/// How a destination is used, in words.
fn settings(name: &str, spec: &ClusterSpec) -> String {
    let settings = &spec.settings;
    let mut parts = vec![name.to_owned()];
    if let Some(hash) = &settings.balancer.hash {
        parts.push(format!("by a hash of {:?}", hash.key));
    } else if let Some(simple) = settings.balancer.simple {
        parts.push(format!("balanced by {simple:?}"));
    }
    if settings.outlier.is_some() {
        parts.push("failing endpoints are ejected".to_owned());
    }
    if let Some(tls) = &settings.tls {
        parts.push(format!("TLS {:?} towards hosts outside the mesh", tls.mode));
    }
    parts.join(", ")
}
