//! What authorizers may change of a request and of its answer.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};

use super::{Allowed, NoVerdict};
use crate::http::{Head, LocalReply};

/// Most headers that one answer may change.
const MAX_CHANGES: usize = 128;
/// What is about a connection or a message's framing, names the host, or is for this proxy alone to say.
const FIXED: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-envoy-auth-partial-body"),
];

/// A change of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderChange {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    pub(super) how: How,
}

/// What becomes of a header that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It is replaced.
    Set,
    /// It stays, and there is one more.
    Append,
    /// It stays.
    IfAbsent,
    /// It is replaced, and nothing is added where it is not there.
    IfPresent,
}

impl HeaderChange {
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let Self { name, value, how } = self;
        let has = headers.contains_key(name);
        match how {
            How::Append => {
                headers.append(name, value.clone());
            }
            How::IfAbsent if has => {}
            How::IfPresent if !has => {}
            How::Set | How::IfAbsent | How::IfPresent => {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// Changes that an answer asks for; too many, or one that is no header, make it unusable. What it may not change
/// is passed over.
pub(super) struct Changes(Vec<HeaderChange>);

impl Changes {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// A change in the words of an answer.
    pub(super) fn add(&mut self, name: &str, value: &[u8], how: How) -> Result<(), NoVerdict> {
        if name.starts_with(':') {
            return Ok(());
        }
        let name = HeaderName::try_from(name).map_err(|_| no_header(name))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| no_header(name.as_str()))?;
        self.push(HeaderChange { name, value, how })
    }

    pub(super) fn push(&mut self, change: HeaderChange) -> Result<(), NoVerdict> {
        if is_fixed(&change.name) {
            return Ok(());
        }
        if self.0.len() >= MAX_CHANGES {
            let why = format!("it wants more than {MAX_CHANGES} headers changed");
            return Err(NoVerdict::Unusable(why));
        }
        self.0.push(change);
        Ok(())
    }

    pub(super) fn list(self) -> Vec<HeaderChange> {
        self.0
    }
}

/// Names of headers that are to be removed, as far as they may be.
pub(super) fn removals<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<HeaderName>, NoVerdict> {
    let names = names.map(str::trim).filter(|name| !name.is_empty() && !name.starts_with(':'));
    let mut removed = Vec::new();
    for name in names {
        let name = HeaderName::try_from(name).map_err(|_| no_header(name))?;
        if removed.len() >= MAX_CHANGES {
            let why = format!("it wants more than {MAX_CHANGES} headers removed");
            return Err(NoVerdict::Unusable(why));
        }
        if !is_fixed(&name) {
            removed.push(name);
        }
    }
    Ok(removed)
}

fn is_fixed(name: &HeaderName) -> bool {
    FIXED.contains(name)
}

fn no_header(name: &str) -> NoVerdict {
    NoVerdict::Unusable(format!("it wants to change {name:?} to what is no header"))
}

/// Changes a request that may pass.
pub(super) fn apply(allowed: &Allowed, head: &mut Head) -> Result<(), LocalReply> {
    let headers = &mut head.parts.headers;
    for name in &allowed.remove {
        headers.remove(name);
    }
    allowed.request.iter().for_each(|change| change.apply(headers));
    if allowed.query_remove.is_empty() && allowed.query_set.is_empty() {
        return Ok(());
    }
    let uri = head.parts.uri.clone();
    let query = query(allowed, uri.query().unwrap_or_default());
    let target =
        if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    let mut parts = uri.into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    let changed = parts.path_and_query.is_some().then(|| Uri::from_parts(parts).ok()).flatten();
    head.parts.uri = changed.ok_or_else(|| {
        let detail = "its authorizer wants a query that cannot be sent";
        LocalReply::denied("provider_failed", None, detail.to_owned())
    })?;
    Ok(())
}

/// Pairs of the old one that stay, and those that are new.
fn query(allowed: &Allowed, old: &str) -> String {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let set = &allowed.query_set;
    let goes = |pair: &str| {
        let name = name(pair);
        allowed.query_remove.contains(&name) || set.iter().any(|(set, _)| *set == name)
    };
    let stay = old.split('&').filter(|pair| !pair.is_empty() && !goes(pair)).map(str::to_owned);
    let new = set.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    stay.chain(new).collect::<Vec<_>>().join("&")
}

/// What stands for itself in a query stays.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
