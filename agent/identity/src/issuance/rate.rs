//! How often one address may ask. A node asks for some certificates at once when it starts, and then now
//! and then.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Addresses that are told apart.
const MAX_ADDRESSES: usize = 16_384;

/// A token bucket for each address.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let (per_second, burst) = (f64::from(per_second), f64::from(burst));
        Self { per_second, burst, buckets: Mutex::default() }
    }

    /// Takes a token, if there is one.
    pub(super) fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            let (rate, burst) = (self.per_second, self.burst);
            buckets.retain(|_, bucket| bucket.level(now, rate, burst) < burst);
            if buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { tokens: self.burst, at: now });
        bucket.tokens = bucket.level(now, self.per_second, self.burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

impl Bucket {
    fn level(&self, now: Instant, rate: f64, burst: f64) -> f64 {
        (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * rate).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    #[test]
    fn an_address_has_its_burst_then_its_rate_and_others_have_their_own() {
        let rate = Rate::new(2, 3);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Instant::now();
        let allowed = (0..5).filter(|_| rate.allows(one, now)).count();
        assert_eq!(allowed, 3);
        assert!(rate.allows(other, now));
        let later = now + Duration::from_millis(500);
        assert!(rate.allows(one, later) && !rate.allows(one, later));
    }

    #[test]
    fn there_is_no_room_for_any_number_of_addresses() {
        let rate = Rate::new(1, 1);
        let now = Instant::now();
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        let many = u32::try_from(MAX_ADDRESSES).unwrap();
        assert!((0..many).all(|n| rate.allows(address(n), now)));
        assert!(!rate.allows(address(many), now));
        assert!(rate.allows(address(many), now + Duration::from_secs(1)));
        assert!(rate.buckets.lock().unwrap().len() <= 1);
    }
}
