//! The agent of the destination's node judges a request: whom it asks, tokens, policies, limits.

use undermesh_proxy::explain::{self as proxy, Budget, KeysAtHand, RequestJudged, Token, Visitor};
use undermesh_snapshot::CompiledLimit;

use super::{
    arrive::{Pod, name},
    report::{Rule, Verdict, Way},
    trail::{Ending, Trail},
    walk::Walk,
};

impl Walk<'_> {
    pub(super) fn judge_request(
        &self,
        mut trail: Trail,
        pod: &Pod<'_>,
        visitor: &Visitor<'_>,
        asked: &proxy::Asked,
    ) -> Way {
        let policy = (pod.policy.as_ref(), &pod.snapshot.authorizers);
        let namespace = &pod.workload.name.namespace;
        let judged = proxy::request(policy, &self.mesh.present, namespace, visitor, asked);
        if !judged.asks.is_empty() {
            let mut step = pod.step("ask", "agent");
            step.outcome = "somebody else has to agree".to_owned();
            for asks in &judged.asks {
                let why = format!("{}, asks provider {:?}", asks.because, asks.provider);
                step.won.push(Rule::new(&asks.policy, "", why));
                trail.assume(format!("provider {:?} lets it pass", asks.provider));
            }
            trail.step(step);
        }
        let missing = self.authenticate(&mut trail, pod, &judged);
        let mut step = pod.step("judge", "agent");
        step.outcome.clone_from(&judged.decision);
        if judged.readings.len() > 1 {
            step.outcome +=
                &format!("; servers may read the path as {}", judged.readings.join(", "));
        }
        name(&mut step, &judged.opinions);
        if !judged.decision.is_empty() {
            trail.step(step);
        }
        if let Some(refused) = judged.refused {
            return trail.refused(Some(pod.address), refused);
        }
        if !judged.limits.is_empty() {
            let mut step = pod.step("limit", "agent");
            step.outcome = "it counts in limits".to_owned();
            for limit in &judged.limits {
                step.won.push(Rule::new(&limit.origin, limit.name.clone(), budget(limit)));
            }
            trail.step(step);
        }
        self.limits(&mut trail, pod, &judged.limits, judged.budgets);
        trail.assume(format!("an application listens at {}", pod.address));
        match missing {
            Some(detail) => {
                let (verdict, reason) = (Verdict::Depends, "keys_not_at_hand");
                trail.ends(Some(pod.address), Ending { verdict, reason, detail, status: None })
            }
            None => self.carried(trail, pod.address, judged.decision),
        }
    }

    /// Says what came of tokens, and what it depends on where nobody here has the keys of one.
    fn authenticate(
        &self,
        trail: &mut Trail,
        pod: &Pod<'_>,
        judged: &RequestJudged<'_>,
    ) -> Option<String> {
        if judged.tokens.is_empty() {
            return None;
        }
        let mut step = pod.step("authenticate", "agent");
        let mut missing = None;
        for Token { policy, issuer, wrong, keys } in &judged.tokens {
            let by = match keys {
                KeysAtHand::OfRule => "by the rule's keys".to_owned(),
                KeysAtHand::Fetched(age) => {
                    trail.assume(format!(
                        "the keys of {issuer:?} have not changed since they were fetched"
                    ));
                    format!("by keys that were fetched {} s ago", age.as_secs())
                }
                KeysAtHand::Missing(why) => {
                    let whose = self.whose_keys(pod);
                    format!("the keys of {issuer:?} are not at hand: {why}{whose}")
                }
            };
            let is_missing = matches!(keys, KeysAtHand::Missing(_));
            if is_missing && wrong.is_none() {
                missing = Some(by.clone());
            }
            // Another rule may have taken it.
            if is_missing && (wrong.is_none() || judged.refused.is_some()) {
                trail.assume(format!("the token for {issuer:?} has a good signature"));
            }
            let (list, what) = match wrong {
                None if is_missing => (&mut step.won, "nothing else is wrong with it"),
                None => (&mut step.won, "it is good"),
                Some(wrong) => (&mut step.lost, *wrong),
            };
            let why = format!("looks for tokens of {issuer:?}: {what}, {by}");
            list.push(Rule::new(policy, "", why));
        }
        step.outcome = match (&missing, step.won.is_empty()) {
            (Some(_), _) => "nobody here can verify its token",
            (None, true) => "its token is not good",
            (None, false) => "its token is good",
        }
        .to_owned();
        trail.step(step);
        missing
    }

    /// Who fetches keys for a pod, where that is nobody who was asked.
    fn whose_keys(&self, pod: &Pod<'_>) -> String {
        let node = &pod.workload.node;
        match self.mesh.asks(node) {
            true => String::new(),
            false => format!("; the agent of node {node} fetches them"),
        }
    }

    /// Takes for granted that limits are not used up, and says how their budgets stand.
    pub(super) fn limits(
        &self,
        trail: &mut Trail,
        pod: &Pod<'_>,
        limits: &[&CompiledLimit],
        budgets: Vec<Budget>,
    ) {
        let elsewhere = self.mesh.known_at(&pod.workload.node);
        for limit in limits.iter().filter(|limit| !limit.shadow) {
            let CompiledLimit { origin, name, .. } = limit;
            trail.assume(format!("the budget of {origin}, rule {name}, is not used up{elsewhere}"));
        }
        for Budget { policy, rule, of, most, left, reset } in budgets {
            let next = match left {
                0 => format!("; the next one in {:.1} s", reset.as_secs_f64()),
                _ => String::new(),
            };
            trail.now(format!("{policy}, rule {rule}: {left} of {most} {of} left{next}"));
        }
    }
}

/// What a limit allows.
fn budget(limit: &CompiledLimit) -> String {
    let rate = |what: &str, rate: &undermesh_model::Rate| {
        format!("{} {what} in {:?}, {} at once", rate.count, rate.per, rate.burst)
    };
    let limits = &limit.limits;
    let requests = limits.requests.as_ref().map(|one| rate("requests", one));
    let connections = limits.connections.as_ref().map(|one| rate("connections", one));
    let body = limits.body.map(|bytes| format!("bodies of {bytes} bytes"));
    let parts: Vec<String> = [requests, connections, body].into_iter().flatten().collect();
    format!("{}{}", parts.join(", "), if limit.shadow { " (shadow)" } else { "" })
}
