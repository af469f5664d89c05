//! `requestHeaderModifier` and `responseHeaderModifier`.

use serde::Deserialize;

use super::{cursor::Cursor, values};

const MAX_HEADERS: usize = 16;

/// `HTTPHeaderFilter`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HeaderFilter {
    set: Vec<Header>,
    add: Vec<Header>,
    remove: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
}

/// What a modifier does, names in lower case.
#[derive(Default)]
pub(super) struct Modified {
    pub(super) set: Vec<(String, String)>,
    pub(super) add: Vec<(String, String)>,
    pub(super) remove: Vec<String>,
}

impl HeaderFilter {
    /// Reads what is done; a header may have one action only.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Modified {
        let set = read_headers("set", &self.set, cursor);
        let add = read_headers("add", &self.add, cursor);
        let remove = cursor.each("remove", &self.remove, MAX_HEADERS, |cursor, name| {
            values::header_name(name, &[], cursor)
        });
        let names = set.iter().chain(&add).map(|(name, _)| name.as_str());
        let mut names: Vec<&str> = names.chain(remove.iter().map(String::as_str)).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("header {name:?} has several actions");
            cursor.error(&[], &message, "write one of set, add and remove for a header");
        }
        Modified { set, add, remove }
    }
}

/// Headers of which only the first of a name counts; the same name twice is refused.
fn read_headers(
    field: &str,
    headers: &[Header],
    cursor: &mut Cursor<'_, '_>,
) -> Vec<(String, String)> {
    let mut read = Vec::new();
    let mut names = Names::default();
    cursor.each(field, headers, MAX_HEADERS, |cursor, Header { name, value }| {
        let lower = values::header_name(name, &["name"], cursor);
        values::header_value(value, cursor);
        if names.is_first(name, &lower, cursor) {
            read.push((lower, value.clone()));
        }
    });
    read
}

/// The names of one list.
#[derive(Default)]
pub(super) struct Names(Vec<(String, String)>);

impl Names {
    /// Takes note of a name; false where an equivalent one has been there. The API refuses a name
    /// that is written twice, and passes over one that differs in case alone.
    pub(super) fn is_first(
        &mut self,
        name: &str,
        folded: &str,
        cursor: &mut Cursor<'_, '_>,
    ) -> bool {
        if self.0.iter().any(|(other, _)| other == name) {
            let message = format!("{name:?} is in this list already");
            cursor.error(&["name"], &message, "write a name once");
            return false;
        }
        let first = !self.0.iter().any(|(_, other)| other == folded);
        if !first {
            let message = format!("{name:?} is in this list already, in other letters");
            cursor.warning(&["name"], "ignored-entry", &message, "only the first one counts");
        }
        self.0.push((name.to_owned(), folded.to_owned()));
        first
    }
}
