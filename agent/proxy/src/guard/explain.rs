//! The steps at a destination, asked beforehand ([`crate::explain`]).

mod budgets;
mod tokens;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use undermesh_model::{ResourceRef, SpiffeId};
use undermesh_snapshot::{
    Authorizers, CompiledLimit, CompiledPolicy, ConnectionAttributes, Opinion, RequestAttributes,
    Sight, WorkloadInfo, asks, evaluate, evaluate_opaque, evaluate_request, limits_of_connection,
    limits_of_request, review,
};

use super::{
    attributes::described,
    exchange::{self, can_be_judged, normalise},
    ext_authz, limit, opaque as bytes,
    path::Readings,
    token::Claims,
};
use crate::{
    authorize::{Admission, Attempt, admission, is_member},
    explain::{Asked, Present, Refused},
    http::{Head, LocalReply},
    limits::Counted,
};
pub use budgets::{Budget, budgets};
use tokens::verified;
pub use tokens::{KeysAtHand, Token};

/// Who comes to a pod, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Who it has proven to be; nobody, for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// Where it comes from.
    pub from: IpAddr,
    /// The application.
    pub destination: SocketAddr,
    /// The pod.
    pub workload: &'a WorkloadInfo,
}

/// What is decided about a connection.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    /// Why not.
    pub refused: Option<Refused>,
    /// It passes so far, and its requests are judged one by one.
    pub at_requests: bool,
    /// The decision in words.
    pub decision: String,
    /// What each policy has to say.
    pub opinions: Vec<Opinion<'a>>,
    /// Limits that it counts in.
    pub limits: Vec<&'a CompiledLimit>,
}

/// Whether a connection would be let in, before anybody knows what it carries. Of a pod without a policy, hand in
/// the default.
pub fn connection<'a>(policy: &'a CompiledPolicy, visitor: &Visitor<'_>) -> Judged<'a> {
    let attempt = visitor.attempt();
    let connection = attempt.attributes();
    let decision = evaluate(policy, &connection);
    let admitted = is_member(&attempt).and_then(|()| admission(&decision));
    let at_requests = matches!(admitted, Ok(Admission::Judge));
    let limits = limits_of_connection(policy, &connection).filter(|_| at_requests).collect();
    Judged {
        refused: admitted.err().map(Refused::from),
        at_requests,
        decision: decision.to_string(),
        opinions: review(policy, &connection, Sight::Connection),
        limits,
    }
}

/// Whether bytes that are no requests would be let in.
pub fn opaque<'a>(policy: &'a CompiledPolicy, visitor: &Visitor<'_>) -> Judged<'a> {
    let connection = visitor.attempt().attributes();
    let decision = evaluate_opaque(policy, &connection);
    Judged {
        refused: bytes::admission(&decision).err().map(Refused::from),
        at_requests: false,
        decision: decision.to_string(),
        opinions: review(policy, &connection, Sight::Opaque),
        limits: limits_of_connection(policy, &connection).collect(),
    }
}

/// What is decided about a request.
#[derive(Clone, Debug, Default)]
pub struct RequestJudged<'a> {
    /// Why it would not be answered.
    pub refused: Option<Refused>,
    /// Who would be asked first; the request is judged on if they agree.
    pub asks: Vec<Asks>,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The ways in which servers may read its path; the first is passed on.
    pub readings: Vec<String>,
    /// The decision of policy in words; empty where it does not come to one.
    pub decision: String,
    /// What each policy has to say.
    pub opinions: Vec<Opinion<'a>>,
    /// Limits that it counts in.
    pub limits: Vec<&'a CompiledLimit>,
    /// How they stand now, where that is known.
    pub budgets: Vec<Budget>,
}

/// Somebody who has to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// Whom the policy names.
    pub provider: String,
    /// The policy.
    pub policy: ResourceRef,
    /// What of it has matched.
    pub because: String,
}

/// Whether a request would be answered: everything but what others say about it. Where [`KeysAtHand::Missing`], provided
/// that signatures are good.
pub fn request<'a>(
    (policy, authorizers): (&'a CompiledPolicy, &Authorizers),
    present: &Present,
    namespace: &str,
    visitor: &Visitor<'_>,
    asked: &Asked,
) -> RequestJudged<'a> {
    let mut judged = RequestJudged::default();
    let known = |asks: &Asks| match authorizers.find(namespace, &asks.provider) {
        Ok(_) => Ok(()),
        Err(none) => Err(ext_authz::unknown(&asks.policy, &asks.because, &asks.provider, &none)),
    };
    let about = (policy, present, visitor);
    let refused = judge(about, asked.0.clone(), (&known, &mut judged)).err();
    judged.refused = refused.map(Refused::from);
    judged
}

/// Whether somebody can be asked.
type Known<'k> = &'k dyn Fn(&Asks) -> Result<(), LocalReply>;

/// The order is that of a request that arrives.
fn judge<'a>(
    (policy, present, visitor): (&'a CompiledPolicy, &Present, &Visitor<'_>),
    mut head: Head,
    (known, judged): (Known<'_>, &mut RequestJudged<'a>),
) -> Result<(), LocalReply> {
    can_be_judged(&head)?;
    let readings = Readings::new(head.parts.uri.path());
    judged.readings.clone_from(&readings.all);
    normalise(&mut head, &readings)?;
    let connection = visitor.attempt().attributes();
    let about = |head: &Head, claims: Option<&Claims>| {
        described(visitor.from, &readings, head, claims, |request| {
            who(policy, &connection, request)
        })
    };
    let claims = verified(policy, present, &mut head.clone(), &mut Vec::new()).ok().flatten();
    judged.asks = about(&head, claims.as_ref());
    judged.asks.iter().try_for_each(known)?;
    let claims = verified(policy, present, &mut head, &mut judged.tokens)?;
    described(visitor.from, &readings, &head, claims.as_ref(), |request| {
        let decision = evaluate_request(policy, &connection, request);
        judged.decision = decision.to_string();
        judged.opinions = review(policy, &connection, Sight::Request(request));
        exchange::admission(&decision)?;
        judged.limits = limits_of_request(policy, &connection, request).collect();
        let counted = (Counted::Requests, Some(request));
        judged.budgets = budgets::standing(present, visitor, &judged.limits, counted);
        match limit::smallest_body(&judged.limits) {
            Some((bytes, _)) if limit::is_longer(request.headers, bytes) => {
                Err(limit::too_large(bytes))
            }
            _ => Ok(()),
        }
    })
}

/// Whom the policy wants to be asked: for each provider, because of the first policy that names it.
fn who(
    policy: &CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    request: &RequestAttributes<'_>,
) -> Vec<Asks> {
    let providers: BTreeSet<_> = policy.custom.iter().map(|one| one.provider.as_deref()).collect();
    let asked = |provider: Option<&str>| {
        let (statement, because) = asks(policy, provider, connection, request)?;
        let provider = provider.unwrap_or_default().to_owned();
        Some(Asks { provider, policy: statement.origin.clone(), because })
    };
    providers.into_iter().filter_map(asked).collect()
}

impl<'a> Visitor<'a> {
    fn attempt(&self) -> Attempt<'a> {
        Attempt {
            source: self.source,
            source_addr: SocketAddr::new(self.from, 0),
            destination: self.destination,
            workload: &self.workload.identity,
        }
    }
}
