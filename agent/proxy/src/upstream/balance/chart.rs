//! Everything that follows from which endpoints are healthy, worked out once until that changes.

use std::{collections::BTreeMap, sync::Arc};

use undermesh_model::traffic::{ConsistentHash, LoadBalancer, Locality, Ring as Table};

use super::{
    group::{Group, Groups},
    maglev::Maglev,
    ring::Ring,
    tiers::{Census, loads},
};
use crate::{balance::random, upstream::member::Member};

/// The tiers that get anything.
#[derive(Default)]
pub(super) struct Chart {
    tiers: Vec<Tier>,
}

struct Tier {
    /// Its share of requests, in percent.
    percent: u64,
    /// All of its endpoints are used, because so few are healthy.
    panic: bool,
    choice: Choice,
}

/// How one of a tier's endpoints is chosen.
enum Choice {
    Turns(Groups),
    Ring(Vec<Arc<Member>>, Ring),
    Maglev(Vec<Arc<Member>>, Maglev),
}

impl Chart {
    pub(super) fn new(
        members: &[Arc<Member>],
        rule: &LoadBalancer,
        shares: &BTreeMap<Locality, u32>,
        panic_threshold: u32,
    ) -> Self {
        let mut by_priority: BTreeMap<u32, Vec<&Arc<Member>>> = BTreeMap::new();
        for member in members {
            by_priority.entry(member.endpoint.priority).or_default().push(member);
        }
        let census = |all: &Vec<&Arc<Member>>| Census {
            healthy: all.iter().filter(|member| member.is_healthy()).count() as u64,
            all: all.len() as u64,
        };
        let census: Vec<_> = by_priority.values().map(census).collect();
        let loads = loads(&census, panic_threshold);
        let tiers = by_priority.values().zip(loads).filter(|(_, load)| load.percent > 0);
        let tier = |(all, load): (&Vec<&Arc<Member>>, super::tiers::Load)| Tier {
            percent: load.percent,
            panic: load.panic,
            choice: Choice::new(all, rule, shares, load.panic),
        };
        Self { tiers: tiers.map(tier).collect() }
    }

    /// Whether nobody may be chosen.
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// An endpoint for a key, or any; another one, most likely, for another draw. And whether it is
    /// chosen from all for want of healthy ones.
    pub(super) fn draw(&self, hash: Option<u64>, draw: usize) -> Option<(&Arc<Member>, bool)> {
        let slot = hash.map_or_else(|| random(100) as u64, |hash| hash % 100);
        let mut passed = 0;
        let tier = self.tiers.iter().find(|tier| {
            passed += tier.percent;
            slot < passed
        })?;
        Some((tier.choice.draw(hash, draw)?, tier.panic))
    }

    /// All that may be chosen, in the order of their tiers.
    pub(super) fn members(&self) -> impl Iterator<Item = (&Arc<Member>, bool)> {
        self.tiers
            .iter()
            .flat_map(|tier| tier.choice.members().into_iter().map(|member| (member, tier.panic)))
    }
}

impl Choice {
    fn new(
        all: &[&Arc<Member>],
        rule: &LoadBalancer,
        shares: &BTreeMap<Locality, u32>,
        panic: bool,
    ) -> Self {
        let groups = Group::split(all, shares, panic);
        match &rule.hash {
            None => Self::Turns(Groups::new(groups, rule)),
            Some(hash) => Self::by_hash(groups, hash),
        }
    }

    fn by_hash(groups: Vec<Group>, hash: &ConsistentHash) -> Self {
        let members: Vec<_> = groups.iter().flat_map(|group| group.members.clone()).collect();
        let named = groups.iter().flat_map(|group| {
            let total = group.total_weight();
            group.members.iter().map(move |member| {
                let share = group.share * f64::from(member.endpoint.weight.max(1)) / total;
                (member.endpoint.address.to_string(), share)
            })
        });
        let named: Vec<_> = named.collect();
        match hash.ring {
            Table::Ring { minimum } => Self::Ring(members, Ring::new(&named, minimum)),
            Table::Maglev { size } => Self::Maglev(members, Maglev::new(&named, size)),
        }
    }

    fn draw(&self, hash: Option<u64>, draw: usize) -> Option<&Arc<Member>> {
        let hash = || hash.unwrap_or_else(any_hash);
        match self {
            Self::Turns(groups) => groups.draw(),
            Self::Ring(members, ring) => members.get(ring.pick(hash(), draw)?),
            Self::Maglev(members, maglev) => members.get(maglev.pick(hash(), draw)?),
        }
    }

    fn members(&self) -> Vec<&Arc<Member>> {
        match self {
            Self::Turns(groups) => groups.members().collect(),
            Self::Ring(members, _) | Self::Maglev(members, _) => members.iter().collect(),
        }
    }
}

/// For requests without a key.
fn any_hash() -> u64 {
    let half = || random(1 << 32) as u64;
    half() << 32 | half()
}
