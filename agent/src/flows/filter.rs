//! What a question to `/flows` asks for.
//!
//! Filters of different names have to hold all together; of one name given several times, one has to hold. A name
//! with `!` behind it is of what is not wanted.

mod condition;

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::query;
use condition::Condition;
pub(super) use condition::is_denied;

/// Filters of one question; each is held against every record.
const MOST: usize = 64;

/// A question.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) after: Option<u64>,
    pub(super) last: Option<usize>,
    /// Whether the answer ends with where to go on.
    pub(super) cursor: bool,
    /// By name.
    wanted: BTreeMap<String, Vec<Condition>>,
    unwanted: Vec<Condition>,
}

impl Query {
    /// # Errors
    /// Where a parameter is unknown or its value is not usable; the message names it.
    pub(super) fn parse(query: &str) -> Result<Self> {
        let mut parsed = Self::default();
        for parameter in query::parameters(query) {
            let (name, value) = parameter?;
            parsed.set(name, value)?;
        }
        let filters = parsed.wanted.values().map(Vec::len).sum::<usize>() + parsed.unwanted.len();
        ensure!(filters <= MOST, "{filters} filters are more than {MOST}");
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "after" => self.after = Some(number(name, value)?),
            "last" => self.last = Some(number(name, value)?),
            "cursor" => {
                ensure!(value == "1", "cursor is 1 or is left out, not {value:?}");
                self.cursor = true;
            }
            _ => {
                let (name, is_wanted) = match name.strip_suffix('!') {
                    Some(name) => (name, false),
                    None => (name, true),
                };
                let condition = Condition::parse(name, value)?;
                if is_wanted {
                    self.wanted.entry(name.to_owned()).or_default().push(condition);
                } else {
                    self.unwanted.push(condition);
                }
            }
        }
        Ok(())
    }

    /// Whether a line of the access log is asked for.
    pub(super) fn wants(&self, line: &str) -> bool {
        let filtered = !self.wanted.is_empty() || !self.unwanted.is_empty();
        !filtered || serde_json::from_str(line).is_ok_and(|record| self.matches(&record))
    }

    fn matches(&self, record: &Value) -> bool {
        let holds = |condition: &Condition| condition.holds(record);
        self.wanted.values().all(|any| any.iter().any(holds)) && !self.unwanted.iter().any(holds)
    }
}

fn text(name: &str, value: &str) -> Result<String> {
    ensure!(!value.is_empty(), "{name} is empty");
    Ok(query::unescape(value))
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{name} is not a usable number: {value:?}"))
}
