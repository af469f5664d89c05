//! Endpoints of one locality, and the turns of localities and endpoints.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;
use undermesh_model::traffic::{LoadBalancer, Locality, SimpleBalancer, Warmup};

use super::{edf::Schedule, tiers::Census, warmup};
use crate::{balance::random, upstream::member::Member};

/// Schedules begin somewhere in their first turns, so that the pods of a node do not run in step.
const FIRST_TURNS: usize = 64;

/// Endpoints that are chosen among as one.
pub(super) struct Group {
    pub(super) members: Vec<Arc<Member>>,
    /// Its share of the tier, to be taken relative to the others'.
    pub(super) share: f64,
}

impl Group {
    /// The usable endpoints of a tier, by locality where localities have shares. A locality gets less
    /// than its share once too few of its endpoints are healthy to carry it.
    pub(super) fn split(
        all: &[&Arc<Member>],
        shares: &BTreeMap<Locality, u32>,
        panic: bool,
    ) -> Vec<Self> {
        let usable = |member: &&&Arc<Member>| panic || member.is_healthy();
        let take = |members: &[&Arc<Member>]| -> Vec<Arc<Member>> {
            members.iter().filter(usable).map(|member| Arc::clone(member)).collect()
        };
        let group = |members: Vec<Arc<Member>>, share| Self { members, share };
        if shares.is_empty() {
            return vec![group(take(all), 1.0)];
        }
        let mut places: BTreeMap<&Locality, Vec<&Arc<Member>>> = BTreeMap::new();
        for member in all {
            places.entry(&member.endpoint.locality).or_default().push(member);
        }
        let groups = places.into_iter().map(|(place, all)| {
            let share = shares.get(place).copied().unwrap_or(0);
            let members = take(&all);
            let census = Census { healthy: members.len() as u64, all: all.len() as u64 };
            group(members, f64::from(share) * census.availability() as f64)
        });
        groups.filter(|group| group.share > 0.0).collect()
    }

    pub(super) fn total_weight(&self) -> f64 {
        self.members.iter().map(|member| f64::from(member.endpoint.weight.max(1))).sum()
    }
}

/// The groups of one tier, and whose turn it is.
pub(super) struct Groups {
    groups: Vec<Turns>,
    /// Turns of the groups, where there are several.
    schedule: Option<Mutex<Schedule>>,
}

/// One group, and whose turn it is in it.
struct Turns {
    group: Group,
    by: SimpleBalancer,
    next: AtomicUsize,
    warmup: Option<Warmup>,
    /// Weights are in use: always, or until the youngest endpoint is warm.
    weighted: Weighted,
    schedule: Mutex<Schedule>,
}

enum Weighted {
    Never,
    Until(Instant),
    Always,
}

impl Groups {
    pub(super) fn new(groups: Vec<Group>, rule: &LoadBalancer) -> Self {
        let shares: Vec<f64> = groups.iter().map(|group| group.share).collect();
        let several = shares.len() > 1;
        let schedule =
            || Mutex::new(Schedule::new(shares.len(), random(FIRST_TURNS), |i| share(&shares, i)));
        let schedule = several.then(schedule);
        Self { groups: groups.into_iter().map(|group| Turns::new(group, rule)).collect(), schedule }
    }

    /// Whose turn it is.
    pub(super) fn draw(&self) -> Option<&Arc<Member>> {
        let turn = match &self.schedule {
            None => 0,
            Some(schedule) => {
                let weight =
                    |index: usize| self.groups.get(index).map_or(0.0, |one| one.group.share);
                schedule.lock().unwrap_or_else(PoisonError::into_inner).next(weight)?
            }
        };
        self.groups.get(turn)?.draw()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.groups.iter().flat_map(|turns| &turns.group.members)
    }
}

fn share(shares: &[f64], index: usize) -> f64 {
    shares.get(index).copied().unwrap_or_default()
}

impl Turns {
    fn new(group: Group, rule: &LoadBalancer) -> Self {
        let weights = || group.members.iter().map(|member| member.endpoint.weight.max(1));
        let warmup = rule.warmup.filter(|warmup| !warmup.duration.is_zero());
        let youngest = group.members.iter().map(|member| member.host.since).max();
        let weighted = if weights().max() != weights().min() {
            Weighted::Always
        } else {
            let warm_at = warmup.and_then(|warmup| youngest?.checked_add(warmup.duration));
            warm_at.map_or(Weighted::Never, Weighted::Until)
        };
        let count = group.members.len();
        let mut turns = Self {
            group,
            by: rule.simple.unwrap_or_default(),
            next: AtomicUsize::new(random(count)),
            warmup,
            weighted,
            schedule: Mutex::default(),
        };
        if !matches!(turns.weighted, Weighted::Never) {
            let now = Instant::now();
            let schedule = Schedule::new(count, random(FIRST_TURNS), |i| turns.weight(i, now));
            turns.schedule = Mutex::new(schedule);
        }
        turns
    }

    fn draw(&self) -> Option<&Arc<Member>> {
        let members = &self.group.members;
        let index = match self.by {
            // The weights of endpoints do not matter to it, as in Envoy.
            SimpleBalancer::Random | SimpleBalancer::Passthrough => random(members.len()),
            SimpleBalancer::RoundRobin | SimpleBalancer::LeastRequest if self.uses_weights() => {
                let now = Instant::now();
                let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
                schedule.next(|index| self.weight(index, now))?
            }
            SimpleBalancer::RoundRobin => {
                self.next.fetch_add(1, Ordering::Relaxed).checked_rem(members.len())?
            }
            SimpleBalancer::LeastRequest => self.less_loaded_of_two(),
        };
        members.get(index)
    }

    fn uses_weights(&self) -> bool {
        match self.weighted {
            Weighted::Never => false,
            Weighted::Until(warm_at) => Instant::now() < warm_at,
            Weighted::Always => true,
        }
    }

    /// What a member's next turn depends on.
    fn weight(&self, index: usize, now: Instant) -> f64 {
        let Some(member) = self.group.members.get(index) else { return 0.0 };
        let age = now.saturating_duration_since(member.host.since);
        let warm = self.warmup.map_or(1.0, |warmup| warmup::factor(&warmup, age));
        let weight = f64::from(member.endpoint.weight.max(1)) * warm;
        match self.by {
            SimpleBalancer::LeastRequest => weight / (f64::from(member.host.active()) + 1.0),
            _ => weight,
        }
    }

    fn less_loaded_of_two(&self) -> usize {
        let members = &self.group.members;
        let first = random(members.len());
        if members.len() < 2 {
            return first;
        }
        // Two different ones: with two endpoints the less loaded one always gets the request.
        let second = (first + 1 + random(members.len() - 1)) % members.len();
        let load =
            |index: usize| members.get(index).map_or(u32::MAX, |member| member.host.active());
        if load(second) < load(first) { second } else { first }
    }
}
