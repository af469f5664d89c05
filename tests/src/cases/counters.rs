//! Metrics of the client's agent, before and after requests.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{
    case::{Exchange, Expected},
    shop::Shop,
};
use crate::{agent::Agent, pod::PATIENCE, poll::wait_for};

/// The node that clients are on.
const NODE: &str = "a";

/// What counters were before requests, and what is expected after them.
pub(super) struct Counters<'a> {
    wanted: &'a Expected,
    before: BTreeMap<&'a str, u64>,
}

impl<'a> Counters<'a> {
    /// As they are now.
    pub(super) fn before(shop: &Shop, asked: &'a Exchange) -> Result<Self> {
        let wanted = &asked.answer;
        let mut before = BTreeMap::new();
        if !wanted.rises.is_empty() {
            let agent = shop.rig.agent(NODE)?;
            for series in wanted.rises.keys() {
                before.insert(series.as_str(), figure(agent, series)?);
            }
        }
        Ok(Self { wanted, before })
    }

    /// Compares them with what was expected.
    pub(super) fn are_as_expected(&self, shop: &Shop) -> Result<()> {
        let Expected { rises, figures, .. } = self.wanted;
        if rises.is_empty() && figures.is_empty() {
            return Ok(());
        }
        let agent = shop.rig.agent(NODE)?;
        for (series, wanted) in rises {
            let before = self.before.get(series.as_str()).copied().unwrap_or_default();
            let rise = figure(agent, series)?.saturating_sub(before);
            ensure!(rise == *wanted, "{series} went up by {rise} instead of {wanted}");
        }
        for (series, wanted) in figures {
            let figure = figure(agent, series)?;
            ensure!(figure == *wanted, "{series} is {figure} instead of {wanted}");
        }
        Ok(())
    }

    /// The same, a little later if need be: what ends after an answer is counted after it.
    pub(super) fn judge(&self, shop: &Shop) -> Result<()> {
        wait_for("counters", PATIENCE, || self.are_as_expected(shop).map(Some))
    }
}

/// The sum of `NAME{label="value",..}` over all series with these labels.
fn figure(agent: &Agent, series: &str) -> Result<u64> {
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
    agent.sum(name, |of| labels.split(',').all(|label| of.contains(label)))
}
