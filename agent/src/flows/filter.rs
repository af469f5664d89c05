//! What a question to `/flows` asks for.

use std::{net::SocketAddr, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A question.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) after: Option<u64>,
    pub(super) last: Option<usize>,
    /// Whether the answer ends with where to go on.
    pub(super) cursor: bool,
    pod: Option<(String, String)>,
    namespace: Option<String>,
    denied: Option<bool>,
    port: Option<u16>,
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
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "after" => self.after = Some(number(name, value)?),
            "last" => self.last = Some(number(name, value)?),
            "port" => self.port = Some(number(name, value)?),
            "cursor" => {
                ensure!(value == "1", "cursor is 1 or is left out, not {value:?}");
                self.cursor = true;
            }
            "namespace" => {
                ensure!(!value.is_empty(), "namespace is empty");
                self.namespace = Some(value.to_owned());
            }
            "pod" => {
                let pod =
                    value.split_once('/').filter(|(ns, pod)| !ns.is_empty() && !pod.is_empty());
                let (namespace, pod) =
                    pod.with_context(|| format!("pod is NAMESPACE/NAME, not {value:?}"))?;
                self.pod = Some((namespace.to_owned(), pod.to_owned()));
            }
            "verdict" => {
                self.denied = Some(match value {
                    "denied" => true,
                    "allowed" => false,
                    _ => bail!("verdict is allowed or denied, not {value:?}"),
                });
            }
            _ => bail!(
                "there is no parameter {name:?}; there are after, last, cursor, pod, namespace, \
                 verdict, port"
            ),
        }
        Ok(())
    }

    /// Whether a line of the access log is asked for.
    pub(super) fn wants(&self, line: &str) -> bool {
        let filtered = self.pod.is_some()
            || self.namespace.is_some()
            || self.denied.is_some()
            || self.port.is_some();
        !filtered || serde_json::from_str(line).is_ok_and(|record| self.matches(&record))
    }

    fn matches(&self, record: &Value) -> bool {
        let ends = [&record["source"], &record["destination"]];
        let pod = self.pod.as_ref().is_none_or(|(namespace, pod)| {
            ends.iter().any(|end| end["namespace"] == **namespace && end["pod"] == **pod)
        });
        let namespace = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| ends.iter().any(|end| end["namespace"] == **namespace));
        let verdict = self.denied.is_none_or(|denied| (record["event"] == "denied") == denied);
        let to = [&record["dialled"], &record["destination"]["address"]];
        let port =
            self.port.is_none_or(|port| to.iter().any(|address| port_of(address) == Some(port)));
        pod && namespace && verdict && port
    }
}

fn port_of(address: &Value) -> Option<u16> {
    Some(address.as_str()?.parse::<SocketAddr>().ok()?.port())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{name} is not a usable number: {value:?}"))
}
