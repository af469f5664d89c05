//! Which endpoint an attempt goes to: by tier, by locality, by the rule of the load balancer.
//!
//! Source: Envoy, supported load balancers; what Istio sets of it.

mod chart;
mod edf;
mod group;
mod maglev;
mod ring;
mod tiers;
mod warmup;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use undermesh_model::traffic::{HashKey, LoadBalancer, Locality};
use undermesh_snapshot::traffic::ClusterSpec;

use super::{Pick, Refusal, hash, member::Member};
use chart::Chart;

/// How often an endpoint that was tried before may be drawn again before they are looked through
/// (Istio: `hostSelectionRetryMaxAttempts`).
const DRAWS: usize = 5;

/// Chooses among the endpoints of one cluster.
pub(super) struct Balancer {
    rule: LoadBalancer,
    shares: BTreeMap<Locality, u32>,
    /// Share of healthy endpoints, in millionths, under which all are used.
    panic_threshold: u32,
    members: Vec<Arc<Member>>,
    /// Who is chosen from, and the state of ejections that it was made for. Made by the first who chooses:
    /// a large table takes a while, and nobody else should wait for it.
    chart: Mutex<Option<(u64, Arc<Chart>)>>,
}

impl Balancer {
    pub(super) fn new(spec: &ClusterSpec, members: Vec<Arc<Member>>) -> Self {
        let outlier = spec.settings.outlier.as_ref();
        let panic_threshold = outlier.and_then(|rule| rule.min_health).map_or(0, |least| least.0);
        Self {
            rule: spec.settings.balancer.clone(),
            shares: spec.settings.locality_shares.clone(),
            panic_threshold,
            members,
            chart: Mutex::default(),
        }
    }

    pub(super) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// An endpoint, one that was not tried yet where there is any.
    pub(super) fn choose(
        &self,
        pick: &Pick<'_>,
        ejections: u64,
    ) -> Result<(Arc<Member>, bool), Refusal> {
        if self.members.is_empty() {
            return Err(Refusal::NoEndpoints);
        }
        let elsewhere = self.other_tiers(pick);
        let chart = elsewhere.unwrap_or_else(|| self.chart(ejections));
        let hash = pick.hash.or_else(|| self.by_address(pick));
        let fresh = |member: &Arc<Member>| !pick.tried.contains(&member.endpoint.address);
        let mut last = None;
        for draw in 0..DRAWS {
            let (member, panic) = chart.draw(hash, draw).ok_or(Refusal::NoHealthy)?;
            if fresh(member) {
                return Ok((Arc::clone(member), panic));
            }
            last = Some((member, panic));
        }
        let other = chart.members().find(|(member, _)| fresh(member)).or(last);
        other.map(|(member, panic)| (Arc::clone(member), panic)).ok_or(Refusal::NoHealthy)
    }

    /// All that [`Self::choose`] may choose now; the one that the key leads to where there is a key.
    pub(super) fn prospects(&self, pick: &Pick<'_>) -> Result<Vec<(Arc<Member>, bool)>, Refusal> {
        if self.members.is_empty() {
            return Err(Refusal::NoEndpoints);
        }
        let chart = self.chart(0);
        let hash = pick.hash.or_else(|| self.by_address(pick)).filter(|_| self.rule.hash.is_some());
        let chosen: Vec<_> = match hash {
            Some(_) => chart.draw(hash, 0).into_iter().collect(),
            None => chart.members().collect(),
        };
        let owned = chosen.into_iter().map(|(member, panic)| (Arc::clone(member), panic));
        let owned: Vec<_> = owned.collect();
        if owned.is_empty() { Err(Refusal::NoHealthy) } else { Ok(owned) }
    }

    /// A chart of the tiers that a retry was not tried in, if it is to leave the others and there are
    /// such. A retry is rare enough to make it anew; a key would have led to where it comes from.
    fn other_tiers(&self, pick: &Pick<'_>) -> Option<Arc<Chart>> {
        let left = pick.leave_tiers_of;
        if left.is_empty() {
            return None;
        }
        let tried = |member: &&Arc<Member>| left.contains(&member.endpoint.address);
        let tiers: BTreeSet<u32> =
            self.members.iter().filter(tried).map(|member| member.endpoint.priority).collect();
        let others = self.members.iter().filter(|one| !tiers.contains(&one.endpoint.priority));
        let others: Vec<_> = others.cloned().collect();
        let rule = LoadBalancer { hash: None, ..self.rule.clone() };
        let chart = Chart::new(&others, &rule, &self.shares, self.panic_threshold);
        (!chart.is_empty()).then(|| Arc::new(chart))
    }

    /// The key of a connection: all that is known of it is where it comes from.
    fn by_address(&self, pick: &Pick<'_>) -> Option<u64> {
        let by_address = self.rule.hash.as_ref().is_some_and(|rule| rule.key == HashKey::SourceIp);
        by_address.then(|| hash::address(pick.client))
    }

    /// The chart for this state of ejections; made anew by whoever sees first that it has changed.
    fn chart(&self, ejections: u64) -> Arc<Chart> {
        let mut chart = self.chart.lock().unwrap_or_else(PoisonError::into_inner);
        let known = chart.as_ref().filter(|(made_for, _)| *made_for == ejections);
        if let Some((_, chart)) = known {
            return Arc::clone(chart);
        }
        let new = Chart::new(&self.members, &self.rule, &self.shares, self.panic_threshold);
        let (_, new) = chart.insert((ejections, Arc::new(new)));
        Arc::clone(new)
    }
}

#[cfg(test)]
mod tests;
