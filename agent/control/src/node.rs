//! A parsed document: a tree in which every value knows its line.
//!
//! Findings are about fields, so the lines are kept until an object has been converted. Knows
//! YAML and nothing of Kubernetes.

mod read;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    DefaultMessageFormatter, MessageFormatter, Options, Spanned, options::DuplicateKeyPolicy,
};

pub(crate) use read::TypeError;

/// Nodes of one document; the largest file has fewer, unless it is made to have many.
const MAX_NODES: usize = 1_000_000;
/// Events of one document; a list or a map is two.
const MAX_EVENTS: usize = 2 * MAX_NODES;
/// Nesting of one document; Pods need fewer than twenty levels. Also bounds the stack.
const MAX_DEPTH: usize = 64;
/// Nodes that aliases may add to one document, however they are nested.
const MAX_REPLAYED: usize = 100_000;

/// A value and the line it starts at, counted from 1 in the file; 0 where there is no file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// An integer beyond `i64`.
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document; the parser refuses a key that is written twice.
    Map(Vec<(String, Node)>),
}

/// Why a document is not YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Line in the file; `None` where the parser does not know.
    pub(crate) line: Option<usize>,
    pub(crate) reason: String,
}

impl Node {
    /// Parses one document, which starts after `lines_before` lines of its file.
    pub(crate) fn parse(text: &str, lines_before: usize) -> Result<Self, Malformed> {
        match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options()) {
            Ok(root) => {
                let mut root = Self::from(root);
                root.move_down(lines_before);
                Ok(root)
            }
            Err(error) => Err(Malformed {
                line: error
                    .location()
                    .and_then(|location| usize::try_from(location.line()).ok())
                    .filter(|line| *line > 0)
                    .map(|line| line + lines_before),
                reason: DefaultMessageFormatter
                    .format_message(error.without_snippet())
                    .replace('\n', " "),
            }),
        }
    }

    /// The value of a key; `None` where there is none or this is no map.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// The line of what `path` names (keys, and positions in lists), or of the innermost part of
    /// it that exists.
    pub(crate) fn line_of(&self, path: &[&str]) -> usize {
        let mut node = self;
        for step in path {
            let inner = match &node.value {
                Value::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => node.get(step),
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.line
    }

    fn move_down(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_down(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.move_down(lines)),
            _ => {}
        }
    }
}

/// Aliases are bounded by what they expand to: a limit on their number would let a few large
/// ones through. No text of the document is copied into messages.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let line = usize::try_from(spanned.referenced.line()).unwrap_or_default().max(1);
        Self { line, value: spanned.value }
    }
}

/// An object that came from no file: its lines are 0, and mean nothing.
impl From<&serde_json::Value> for Node {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Integer(value),
                (None, Some(value)) => Value::Unsigned(value),
                (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => {
                let entry = |(key, value): (&String, _)| (key.clone(), Self::from(value));
                Value::Map(map.iter().map(entry).collect())
            }
        };
        Self { line: 0, value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(Node::from(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.push((key, Node::from(entries.next_value::<Spanned<Value>>()?)));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests;
