//! Tokens and paths that a client sends, for `tests/fuzz`.

use std::net::SocketAddr;

use ::http::request::Parts;
use undermesh_model::JwtRule;

pub use super::ext_authz::fuzzing as ext_authz;
use super::{
    exchange,
    keys::{self, Key},
    path::Readings,
    token,
};
use crate::http::Head;

/// All readings of a path, and the request with that which is passed on; `None` where it is refused.
pub fn readings(parts: Parts, dialled: SocketAddr) -> Option<(Vec<String>, Parts)> {
    let mut head = Head::new(parts, dialled).ok()?;
    let readings = Readings::new(head.parts.uri.path());
    exchange::normalise(&mut head, &readings).ok()?;
    Some((readings.all, head.parts))
}

/// Public keys of an issuer.
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads a JSON Web Key Set.
    pub fn read(text: &[u8]) -> Option<Self> {
        keys::read(text).ok().map(Self)
    }
}

/// What became of a request and its token.
pub struct Authenticated {
    /// The token's claims; nothing for a request without a token.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The request as it is passed on.
    pub parts: Parts,
}

/// Verifies the token of a request; the status and the text of the answer where it is refused.
pub fn authenticate(
    keys: &Keys,
    rule: &JwtRule,
    parts: Parts,
    dialled: SocketAddr,
) -> Result<Authenticated, (u16, &'static str)> {
    let refused = |reply: crate::http::LocalReply| (reply.status.as_u16(), "no request");
    let mut head = Head::new(parts, dialled).map_err(refused)?;
    token::remove_outputs(rule, &mut head.parts.headers);
    let several = |reply: crate::http::LocalReply| (reply.status.as_u16(), "several tokens");
    let Some(text) = token::only(rule, &head).map_err(several)? else {
        return Ok(Authenticated { claims: None, parts: head.parts });
    };
    let invalid = |invalid: token::Invalid| (401, invalid.text());
    let header = token::header(&text).map_err(invalid)?;
    let claims = token::judged(&keys.0, rule, &header, &text).map_err(invalid)?;
    token::pass_on(rule, &text, &claims, &mut head).map_err(refused)?;
    Ok(Authenticated { claims: Some(claims), parts: head.parts })
}
