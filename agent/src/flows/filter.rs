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
    status: Option<Status>,
    method: Option<String>,
    path: Option<String>,
    reason: Option<String>,
}

/// A status, or all of a hundred.
#[derive(Debug)]
enum Status {
    One(u64),
    Hundred(u64),
}

impl Status {
    fn parse(value: &str) -> Result<Self> {
        let hundred = value.strip_suffix("xx").and_then(|digit| digit.parse().ok());
        match (hundred, value.parse()) {
            (Some(digit @ 1..=5), _) => Ok(Self::Hundred(digit)),
            (None, Ok(status @ 100..=999)) => Ok(Self::One(status)),
            _ => bail!("status is a number like 404, or one of 1xx to 5xx, not {value:?}"),
        }
    }

    fn is(&self, status: Option<u64>) -> bool {
        match self {
            Self::One(wanted) => status == Some(*wanted),
            Self::Hundred(digit) => status.is_some_and(|status| status / 100 == *digit),
        }
    }
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
            "namespace" => self.namespace = Some(text(name, value)?),
            "status" => self.status = Some(Status::parse(value)?),
            "method" => self.method = Some(text(name, value)?),
            "path" => self.path = Some(text(name, value)?),
            "reason" => self.reason = Some(text(name, value)?),
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
                 verdict, port, status, method, path, reason"
            ),
        }
        Ok(())
    }

    /// Whether a line of the access log is asked for.
    pub(super) fn wants(&self, line: &str) -> bool {
        let about_ends = self.pod.is_some() || self.namespace.is_some() || self.port.is_some();
        let about_outcome = self.denied.is_some() || self.reason.is_some();
        let filtered = about_ends || about_outcome || self.is_about_requests();
        !filtered || serde_json::from_str(line).is_ok_and(|record| self.matches(&record))
    }

    fn is_about_requests(&self) -> bool {
        self.status.is_some() || self.method.is_some() || self.path.is_some()
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
        let verdict = self.denied.is_none_or(|denied| is_denied(record) == denied);
        let is = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_none_or(|wanted| record[field] == **wanted)
        };
        let to = [&record["dialled"], &record["destination"]["address"]];
        let port =
            self.port.is_none_or(|port| to.iter().any(|address| port_of(address) == Some(port)));
        let request = is(&self.method, "method")
            && self.status.as_ref().is_none_or(|status| status.is(record["status"].as_u64()))
            && self.path.as_ref().is_none_or(|path| {
                record["path"].as_str().is_some_and(|asked| asked.starts_with(path.as_str()))
            });
        pod && namespace && verdict && port && request && is(&self.reason, "reason")
    }
}

/// A connection that never opened, or a request that policy has refused.
fn is_denied(record: &Value) -> bool {
    let flags = record["response_flags"].as_str().unwrap_or_default();
    match record["event"].as_str() {
        Some("request") => flags.split(',').any(|flag| flag == "UAEX"),
        event => event == Some("denied"),
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

fn port_of(address: &Value) -> Option<u16> {
    Some(address.as_str()?.parse::<SocketAddr>().ok()?.port())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{name} is not a usable number: {value:?}"))
}
