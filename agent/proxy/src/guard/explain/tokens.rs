//! Step *authenticate*, asked beforehand: tokens are verified like those of a request that arrives, but with the keys
//! that are at hand. Nothing is fetched.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Header;
use undermesh_model::{JwtKeys, JwtRule, ResourceRef};
use undermesh_snapshot::CompiledPolicy;

use super::super::{
    keys::{self, Set},
    token::{self, Claims, Invalid, Tally},
};
use crate::{
    explain::Present,
    http::{Head, LocalReply},
};

/// A token of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The object that looks for it.
    pub policy: ResourceRef,
    /// The issuer that the object names.
    pub issuer: String,
    /// What is wrong with it, as the client is told.
    pub wrong: Option<&'static str>,
    /// What its signature was verified with.
    pub keys: KeysAtHand,
}

/// Where keys are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAtHand {
    /// The rule has them.
    OfRule,
    /// They were fetched so long ago.
    Fetched(Duration),
    /// There is none, and why: nobody has looked at the signature.
    Missing(String),
}

/// What the tokens of a request claim.
pub(super) fn verified(
    policy: &CompiledPolicy,
    present: &Present,
    head: &mut Head,
    tokens: &mut Vec<Token>,
) -> Result<Option<Claims>, LocalReply> {
    let found = token::carried(&policy.tokens, head)?;
    let mut tally = Tally::default();
    for (rule, token) in &found {
        if tally.needs(token) {
            let (claims, keys) = verify(present, rule, token);
            let wrong = claims.as_ref().err().map(|invalid| invalid.text());
            let (policy, issuer) = (rule.origin.clone(), rule.issuer.clone());
            tokens.push(Token { policy, issuer, wrong, keys });
            tally.add(rule, token, claims);
        }
    }
    tally.settle(head)
}

fn verify(present: &Present, rule: &JwtRule, token: &str) -> (Result<Claims, Invalid>, KeysAtHand) {
    let header = match token::header(token) {
        Ok(header) => header,
        Err(invalid) => return (Err(invalid), KeysAtHand::OfRule),
    };
    match at_hand(present, rule, &header) {
        (Some(known), from) => (token::judged(&known, rule, &header, token), from),
        (None, KeysAtHand::OfRule) => (Err(Invalid::NoKeys), KeysAtHand::OfRule),
        (None, from) => (token::claimed(rule, token), from),
    }
}

fn at_hand(present: &Present, rule: &JwtRule, header: &Header) -> (Option<Set>, KeysAtHand) {
    if let JwtKeys::Inline(text) = &rule.keys {
        return (keys::read(text.as_bytes()).ok().map(Arc::new), KeysAtHand::OfRule);
    }
    let known = match &present.0 {
        Some(shared) => shared.keys.at_hand(rule),
        None => Err("nobody has fetched them".to_owned()),
    };
    match known {
        // Then a request has them fetched again.
        Ok((set, age)) if token::candidates(&set, header).next().is_none() => {
            let age = age.as_secs();
            let missing =
                format!("that of the token is not among those that were fetched {age} s ago");
            (None, KeysAtHand::Missing(missing))
        }
        Ok((set, age)) => (Some(set), KeysAtHand::Fetched(age)),
        Err(missing) => (None, KeysAtHand::Missing(missing)),
    }
}

#[cfg(test)]
mod tests;
