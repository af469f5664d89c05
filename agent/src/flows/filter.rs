//! What a question to `/flows` asks for.
//!
//! Filters of different names have to hold all together; of one name given several times, one has to hold. A name
//! with `!` behind it is of what is not wanted.

mod condition;

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

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
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').with_context(|| format!("parameter {pair:?} has no value"))?;
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
    Ok(unescaped(value))
}

/// Undoes what [`super::escape`] has done; what is not escaped so stays as it is.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        let digits = escaped.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let meant = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(meant.unwrap_or(*first));
        rest = if meant.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{name} is not a usable number: {value:?}"))
}
