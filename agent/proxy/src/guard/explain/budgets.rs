//! Step *limit*, asked beforehand: how budgets stand at the moment. Nothing is taken from them.

use std::time::Duration;

use undermesh_model::ResourceRef;
use undermesh_snapshot::{CompiledLimit, RequestAttributes};

use super::{
    super::limit::{BudgetOf, Ends},
    Visitor,
};
use crate::{
    explain::Present,
    limits::{Counted, Standing},
};

/// What is left of the budget of a limit, for who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The object.
    pub policy: ResourceRef,
    /// The rule's name in it.
    pub rule: String,
    /// `requests` or `connections`.
    pub of: &'static str,
    /// How many may come at once.
    pub most: u32,
    /// How many of them are left.
    pub left: u64,
    /// Time until it is full again, or, where nothing is left, until there is room for one.
    pub reset: Duration,
}

/// How limits of connections stand at the agent that serves the pod; nothing where that is another one.
pub fn budgets(present: &Present, visitor: &Visitor<'_>, limits: &[&CompiledLimit]) -> Vec<Budget> {
    standing(present, visitor, limits, (Counted::Connections, None))
}

pub(super) fn standing(
    present: &Present,
    visitor: &Visitor<'_>,
    limits: &[&CompiledLimit],
    (counted, request): (Counted, Option<&RequestAttributes<'_>>),
) -> Vec<Budget> {
    let Some(shared) = &present.0 else { return Vec::new() };
    if shared.local_pod(visitor.workload).is_none() {
        return Vec::new();
    }
    let ends = Ends { workload: visitor.workload, source: visitor.source, client: visitor.from };
    let stand = |limit: &&CompiledLimit| -> Option<Budget> {
        let key = BudgetOf { ends, limit, request };
        let Standing { remaining, reset, .. } = shared.limits.standing(counted, limit, &key)?;
        Some(Budget {
            policy: limit.origin.clone(),
            rule: limit.name.clone(),
            of: match counted {
                Counted::Requests => "requests",
                Counted::Connections => "connections",
            },
            most: counted.rate(limit)?.burst.get(),
            left: remaining,
            reset,
        })
    };
    limits.iter().filter_map(stand).collect()
}
