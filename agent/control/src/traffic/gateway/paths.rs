//! RequestRedirect and URLRewrite: what becomes of paths and hosts.

use std::num::NonZeroU16;

use serde::Deserialize;
use undermesh_model::traffic::{PathRewrite, Redirect, RedirectPath, RedirectPort, Rewrite};

use super::{cursor::Cursor, values};

const MAX_PATH: usize = 1024;
const DEFAULT_CODE: u16 = 302;
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// `HTTPPathModifier`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathModifier {
    #[serde(rename = "type")]
    kind: PathModifierType,
    replace_full_path: Option<String>,
    replace_prefix_match: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

/// `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RedirectFilter {
    scheme: Option<Scheme>,
    hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
    port: Option<NonZeroU16>,
    status_code: Option<u16>,
}

/// `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RewriteFilter {
    hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
}

/// What takes the place of a path.
enum Modified {
    Full(String),
    /// The prefix, without a slash at its end: the table of `replacePrefixMatch` asks for `/xyz` and
    /// `/xyz/` to be the same, and for a path that becomes empty to be `/`.
    Prefix(String),
}

impl PathModifier {
    /// Whether it replaces what a prefix has matched.
    pub(super) fn is_prefix(&self) -> bool {
        self.kind == PathModifierType::ReplacePrefixMatch
    }

    fn read(&self, cursor: &mut Cursor<'_, '_>) -> Modified {
        let Self { replace_full_path: full, replace_prefix_match: prefix, .. } = self;
        let (own, own_field, other, other_field) = match self.kind {
            PathModifierType::ReplaceFullPath => {
                (full, "replaceFullPath", prefix, "replacePrefixMatch")
            }
            PathModifierType::ReplacePrefixMatch => {
                (prefix, "replacePrefixMatch", full, "replaceFullPath")
            }
        };
        if own.is_none() {
            let message = format!("the type demands the field {own_field}");
            cursor.error(&["type"], &message, "write the field");
        }
        if other.is_some() {
            let message = format!("does not belong to type {:?}", self.kind);
            cursor.error(&[other_field], &message, "correct the type, or remove the field");
        }
        let path = own.as_deref().unwrap_or_default();
        if path.len() > MAX_PATH || path.chars().any(char::is_control) {
            let message = format!("has to have at most {MAX_PATH} bytes, all printable");
            cursor.error(&[own_field], &message, "correct the path");
        }
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{path}");
        match self.kind {
            PathModifierType::ReplaceFullPath if path.is_empty() => Modified::Full("/".to_owned()),
            PathModifierType::ReplaceFullPath => Modified::Full(path),
            PathModifierType::ReplacePrefixMatch => {
                Modified::Prefix(path.trim_end_matches('/').to_owned())
            }
        }
    }
}

impl RedirectFilter {
    /// Reads a redirect with its defaults.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Redirect {
        if let Some(host) = &self.hostname {
            values::host(host, false, &["hostname"], cursor);
        }
        let code = self.status_code.unwrap_or(DEFAULT_CODE);
        if !CODES.contains(&code) {
            let message = format!("{code} is no status of a redirect");
            cursor.error(&["statusCode"], &message, "write 301, 302, 303, 307 or 308");
        }
        let path = self.path.as_ref().map(|path| cursor.within("path", |at| path.read(at)));
        let port = match (self.port, self.scheme) {
            (Some(port), _) => RedirectPort::Number(port.get()),
            (None, Some(_)) => RedirectPort::OfScheme,
            (None, None) => RedirectPort::OfRequest,
        };
        Redirect {
            code,
            scheme: self.scheme.map(|scheme| match scheme {
                Scheme::Http => "http".to_owned(),
                Scheme::Https => "https".to_owned(),
            }),
            authority: self.hostname.clone(),
            port: Some(port),
            path: path.map(|path| match path {
                Modified::Full(path) => RedirectPath::Full(path),
                Modified::Prefix(path) => RedirectPath::Matched(path),
            }),
        }
    }
}

impl RewriteFilter {
    /// Reads a rewrite.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Rewrite {
        if let Some(host) = &self.hostname {
            values::host(host, false, &["hostname"], cursor);
        }
        let path = self.path.as_ref().map(|path| cursor.within("path", |at| path.read(at)));
        Rewrite {
            path: path.map(|path| match path {
                Modified::Full(path) => PathRewrite::Full(path),
                Modified::Prefix(path) => PathRewrite::Matched(path),
            }),
            authority: self.hostname.clone(),
        }
    }
}
