//! `loadBalancer`: which endpoint a request or connection goes to.

use std::collections::BTreeSet;

use undermesh_model::traffic::{
    ConsistentHash, HashKey, LoadBalancer, Ring, SimpleBalancer, Warmup,
};

use super::{
    locality,
    shapes::{self, Simple},
};
use crate::traffic::{istio, place::Place};

/// Envoy's, where a rule gives none.
const RING_SIZE: u64 = 1024;
/// The first size of a table that is too large.
const MAGLEV_SIZE_END: u64 = 5_000_011;
/// Istio's, where a rule gives none.
const WARMUP_PERCENT: u32 = 10;
const WARMUP_LINEAR: u32 = 1000;

/// Reads a balancer.
pub(super) fn balancer(
    at: &Place<'_>,
    shape: &shapes::LoadBalancer,
    has_outlier: bool,
) -> LoadBalancer {
    if shape.simple.is_some() && shape.consistent_hash.is_some() {
        at.refuse("has simple and consistentHash", "write one of them");
    }
    if shape.locality_lb_setting.is_some() && shape.zone_aware_lb_setting.is_some() {
        at.refuse("has localityLbSetting and zoneAwareLbSetting", "write one of them");
    }
    let instead = "it has no effect; localityLbSetting prefers endpoints of the client's zone";
    at.unsupported("zoneAwareLbSetting", shape.zone_aware_lb_setting.as_ref(), instead);
    let mut simple = shape.simple.and_then(simple);
    let mut hash = None;
    if let Some(shape) = &shape.consistent_hash {
        let at = at.field("consistentHash");
        let ring = ring(&at, shape);
        match key(&at, shape) {
            Some(key) => hash = Some(ConsistentHash { key, ring }),
            None => {
                let what = "names nothing to hash, so that any endpoint is taken";
                at.warn(
                    "hash-without-key",
                    what,
                    "write a header, cookie, parameter or useSourceIp",
                );
                simple = Some(SimpleBalancer::Random);
            }
        }
    }
    let warmup = warmup(at, shape);
    let steps =
        matches!(simple, None | Some(SimpleBalancer::LeastRequest | SimpleBalancer::RoundRobin));
    if warmup.is_some() && (hash.is_some() || !steps) {
        let what = "only LEAST_REQUEST and ROUND_ROBIN know of warm-up";
        at.warn("no-effect", what, "write one of them as simple");
    }
    LoadBalancer {
        simple,
        hash,
        locality: shape
            .locality_lb_setting
            .as_ref()
            .map(|one| locality::locality(&at.field("localityLbSetting"), one, has_outlier)),
        warmup,
    }
}

fn simple(shape: Simple) -> Option<SimpleBalancer> {
    match shape {
        Simple::Unspecified => None,
        // Deprecated: another name for the next.
        Simple::LeastConn | Simple::LeastRequest => Some(SimpleBalancer::LeastRequest),
        Simple::Random => Some(SimpleBalancer::Random),
        Simple::Passthrough => Some(SimpleBalancer::Passthrough),
        Simple::RoundRobin => Some(SimpleBalancer::RoundRobin),
    }
}

fn key(at: &Place<'_>, shape: &shapes::ConsistentHash) -> Option<HashKey> {
    let shapes::ConsistentHash { http_header_name, http_cookie, use_source_ip, .. } = shape;
    let query = &shape.http_query_parameter_name;
    let set = [
        http_header_name.is_some(),
        http_cookie.is_some(),
        use_source_ip.is_some(),
        query.is_some(),
    ];
    if set.iter().filter(|one| **one).count() > 1 {
        at.refuse("names several things to hash", "write one of them");
    }
    if let Some(name) = http_header_name {
        if !istio::is_token(name) {
            let what = format!("{name:?} is no name of a header");
            at.field("httpHeaderName").refuse(what, "correct it");
        }
        return Some(HashKey::Header(name.to_ascii_lowercase()));
    }
    if let Some(shape) = http_cookie {
        return Some(cookie(&at.field("httpCookie"), shape));
    }
    if use_source_ip == &Some(true) {
        return Some(HashKey::SourceIp);
    }
    query.as_ref().filter(|name| !name.is_empty()).map(|name| HashKey::Query(name.clone()))
}

fn cookie(at: &Place<'_>, shape: &shapes::Cookie) -> HashKey {
    if !istio::is_token(&shape.name) {
        let what = format!("{:?} is no name of a cookie", shape.name);
        at.field("name").refuse(what, "write the cookie's name");
    }
    let mut seen = BTreeSet::new();
    let attributes = at.field("attributes");
    for (index, attribute) in shape.attributes.iter().enumerate() {
        if attribute.name.is_empty() || !seen.insert(&attribute.name) {
            let what = "has no name, or that of another one";
            attributes.item(index).refuse(what, "give every attribute a name of its own");
        }
    }
    let instead = "cookies are set with their path and life time alone";
    at.unsupported("attributes", shape.attributes.first(), instead);
    HashKey::Cookie {
        name: shape.name.clone(),
        path: shape.path.clone().filter(|path| !path.is_empty()),
        ttl: at.any_duration("ttl", shape.ttl.as_ref()),
    }
}

fn ring(at: &Place<'_>, shape: &shapes::ConsistentHash) -> Ring {
    let size = shape.minimum_ring_size.filter(|size| *size != 0);
    if shape.ring_hash.is_some() && shape.maglev.is_some() {
        at.refuse("has ringHash and maglev", "write one of them");
    }
    if size.is_some() {
        if shape.ring_hash.is_some() || shape.maglev.is_some() {
            let what = "stands beside ringHash or maglev";
            at.field("minimumRingSize").refuse(what, "remove it");
        }
        let remedy = "write ringHash.minimumRingSize";
        at.field("minimumRingSize").warn("deprecated-field", "is deprecated", remedy);
    }
    if let Some(maglev) = &shape.maglev {
        let size = table_size(&at.field("maglev").field("tableSize"), maglev.table_size);
        return Ring::Maglev { size };
    }
    let minimum = shape.ring_hash.map(|one| one.minimum_ring_size).filter(|size| *size != 0);
    Ring::Ring { minimum: minimum.or(size).unwrap_or(RING_SIZE) }
}

fn table_size(at: &Place<'_>, size: Option<u64>) -> u64 {
    let size = size.unwrap_or_default();
    if size == 0 {
        at.refuse("is missing", "write a prime number, such as 65537");
    } else if size >= MAGLEV_SIZE_END || !is_prime(size) {
        let what = format!("{size} is no prime number below {MAGLEV_SIZE_END}");
        at.refuse(what, "write a prime number, such as 65537");
    }
    size
}

fn is_prime(number: u64) -> bool {
    let mut factors = (2_u64..).take_while(|factor| factor * factor <= number);
    number > 1 && factors.all(|factor| !number.is_multiple_of(factor))
}

fn warmup(at: &Place<'_>, shape: &shapes::LoadBalancer) -> Option<Warmup> {
    let old = at.duration("warmupDurationSecs", shape.warmup_duration_secs.as_ref());
    let old = old.map(|duration| Warmup {
        duration,
        minimum_percent: WARMUP_PERCENT,
        aggression: WARMUP_LINEAR,
    });
    let Some(shape) = &shape.warmup else { return old };
    if old.is_some() {
        at.refuse("has warmup and warmupDurationSecs", "write warmup");
    }
    let at = at.field("warmup");
    let duration = at.duration("duration", shape.duration.as_ref());
    if shape.duration.is_none() {
        at.field("duration").refuse("is missing", "write how long it takes");
    }
    let percent = shape.minimum_percent.unwrap_or(f64::from(WARMUP_PERCENT));
    if !(0.0..=100.0).contains(&percent) {
        let what = format!("{percent} is no percentage");
        at.field("minimumPercent").refuse(what, "write a number from 0 to 100");
    }
    let aggression = shape.aggression.unwrap_or(1.0);
    if aggression.is_nan() || aggression <= 0.0 {
        let what = format!("{aggression} is not above 0");
        at.field("aggression").refuse(what, "write 1 for an even rise, or more for a faster one");
    }
    Some(Warmup {
        duration: duration?,
        // In range by the checks above; whatever is not is refused.
        minimum_percent: percent.round() as u32,
        aggression: (aggression * f64::from(WARMUP_LINEAR)).round().max(1.0) as u32,
    })
}
