//! One thing that a record has to be, or must not be.

use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::Value;

use super::{Result, bail, number, text};

/// What is known of a record when it is looked at.
#[derive(Debug)]
pub(super) enum Condition {
    /// Either end is this pod.
    Pod {
        namespace: String,
        name: String,
    },
    /// Either end is in it.
    Namespace(String),
    /// The service that was meant: its DNS name, or its first labels.
    Service(String),
    /// Either end has it: a SPIFFE ID, or the end of one.
    Identity(String),
    Denied(bool),
    Port(u16),
    Status(Status),
    /// The path begins so.
    Path(String),
    /// A field that is this text.
    Is(&'static str, String),
}

/// A status, or all of a hundred.
#[derive(Debug)]
pub(super) enum Status {
    One(u64),
    Hundred(u64),
}

impl Condition {
    /// # Errors
    /// Where there is no such filter or the value is not usable; the message names it.
    pub(super) fn parse(name: &str, value: &str) -> Result<Self> {
        Ok(match name {
            "pod" => {
                let pod =
                    value.split_once('/').filter(|(ns, pod)| !ns.is_empty() && !pod.is_empty());
                let (namespace, pod) =
                    pod.with_context(|| format!("pod is NAMESPACE/NAME, not {value:?}"))?;
                Self::Pod { namespace: namespace.to_owned(), name: pod.to_owned() }
            }
            "namespace" => Self::Namespace(text(name, value)?),
            "service" => Self::Service(text(name, value)?),
            "identity" => Self::identity(&text(name, value)?)?,
            "reporter" => Self::one_of("reporter", value, &["source", "destination"])?,
            "transport" => {
                Self::one_of("transport", value, &["native", "hbone", "plain", "local"])?
            }
            "verdict" => match value {
                "denied" => Self::Denied(true),
                "allowed" => Self::Denied(false),
                _ => bail!("verdict is allowed or denied, not {value:?}"),
            },
            "port" => Self::Port(number(name, value)?),
            "status" => Self::Status(Status::parse(value)?),
            "method" => Self::Is("method", text(name, value)?),
            "path" => Self::Path(text(name, value)?),
            "reason" => Self::Is("reason", text(name, value)?),
            _ => bail!(
                "there is no parameter {name:?}; there are after, last, cursor, pod, namespace, \
                 service, identity, reporter, transport, verdict, port, status, method, path, reason"
            ),
        })
    }

    fn identity(value: &str) -> Result<Self> {
        if value.starts_with("spiffe://") {
            return Ok(Self::Identity(value.to_owned()));
        }
        let account = value.split_once('/').filter(|(ns, sa)| !ns.is_empty() && !sa.is_empty());
        let (namespace, account) = account.with_context(|| {
            format!("identity is spiffe://... or NAMESPACE/SERVICEACCOUNT, not {value:?}")
        })?;
        Ok(Self::Identity(format!("/ns/{namespace}/sa/{account}")))
    }

    fn one_of(name: &'static str, value: &str, values: &[&str]) -> Result<Self> {
        if !values.contains(&value) {
            bail!("{name} is one of {}, not {value:?}", values.join(", "));
        }
        Ok(Self::Is(name, value.to_owned()))
    }

    pub(super) fn holds(&self, record: &Value) -> bool {
        let ends = || [&record["source"], &record["destination"]].into_iter();
        match self {
            Self::Pod { namespace, name } => {
                ends().any(|end| end["namespace"] == **namespace && end["pod"] == **name)
            }
            Self::Namespace(namespace) => ends().any(|end| end["namespace"] == **namespace),
            Self::Service(wanted) => record["service"].as_str().is_some_and(|host| {
                let rest = host.strip_prefix(wanted.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }),
            Self::Identity(wanted) => ends().any(|end| {
                let identity = end["identity"].as_str().unwrap_or_default();
                if wanted.starts_with('/') {
                    identity.ends_with(wanted)
                } else {
                    identity == wanted
                }
            }),
            Self::Denied(denied) => is_denied(record) == *denied,
            Self::Port(port) => {
                let to = [&record["dialled"], &record["destination"]["address"]];
                to.iter().any(|address| port_of(address) == Some(*port))
            }
            Self::Status(status) => status.is(record["status"].as_u64()),
            Self::Path(path) => {
                record["path"].as_str().is_some_and(|asked| asked.starts_with(path.as_str()))
            }
            Self::Is(field, wanted) => record[*field] == **wanted,
        }
    }
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

/// A connection that never opened, or a request that policy has refused.
pub(in crate::flows) fn is_denied(record: &Value) -> bool {
    let flags = record["response_flags"].as_str().unwrap_or_default();
    match record["event"].as_str() {
        Some("request") => flags.split(',').any(|flag| flag == "UAEX"),
        event => event == Some("denied"),
    }
}

fn port_of(address: &Value) -> Option<u16> {
    Some(address.as_str()?.parse::<SocketAddr>().ok()?.port())
}
