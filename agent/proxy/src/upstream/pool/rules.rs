//! How connections are used: a rule's connection pool with its defaults.

use std::time::Duration;

use undermesh_model::traffic::ConnectionPool;

/// Envoy's, where neither `http` nor `tcp` has one.
const IDLE: Duration = Duration::from_secs(3600);
/// Istio's `connectTimeout` of the mesh.
const CONNECT: Duration = Duration::from_secs(10);
/// HTTP/2's own (RFC 9113, section 6.5.2: no limit; identifiers have 31 bits).
const STREAMS: u32 = 1 << 31;

/// How the connections of a cluster are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Rules {
    /// Longest wait for a connection.
    pub(in crate::upstream) connect_timeout: Duration,
    /// A connection without a request is closed after this time; `None` for never.
    pub(super) idle: Option<Duration>,
    /// A connection takes no more requests after this time.
    pub(super) max_age: Option<Duration>,
    /// A connection takes so many requests.
    pub(super) max_requests: u64,
    /// An HTTP/2 connection takes so many at a time.
    pub(super) max_streams: u32,
}

impl Rules {
    pub(in crate::upstream) fn new(pool: &ConnectionPool) -> Self {
        let on = |count: Option<u32>| count.filter(|count| *count > 0);
        // Istio: that of `http` where both are there. 0 is Envoy's way to say never.
        let idle = pool.http.idle_timeout.or(pool.tcp.idle_timeout).unwrap_or(IDLE);
        let max_requests = on(pool.http.max_requests_per_connection);
        Self {
            connect_timeout: pool.tcp.connect_timeout.unwrap_or(CONNECT),
            idle: Some(idle).filter(|idle| !idle.is_zero()),
            max_age: pool.tcp.max_connection_duration.filter(|age| !age.is_zero()),
            max_requests: max_requests.map_or(u64::MAX, u64::from),
            max_streams: on(pool.http.max_concurrent_streams).unwrap_or(STREAMS),
        }
    }
}

#[cfg(test)]
mod tests {
    use undermesh_model::traffic::{HttpPool, TcpPool};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn defaults_are_those_of_istio_and_envoy() {
        let rules = Rules::new(&ConnectionPool::default());
        assert_eq!(rules.idle, Some(Duration::from_secs(3600)));
        assert_eq!(rules.connect_timeout, Duration::from_secs(10));
        assert_eq!((rules.max_requests, rules.max_age), (u64::MAX, None));
    }

    #[test]
    fn the_idle_time_of_requests_goes_before_that_of_connections() {
        let tcp = TcpPool { idle_timeout: Some(SECOND), ..TcpPool::default() };
        let mut pool = ConnectionPool { tcp, http: HttpPool::default() };
        assert_eq!(Rules::new(&pool).idle, Some(SECOND));
        pool.http.idle_timeout = Some(2 * SECOND);
        assert_eq!(Rules::new(&pool).idle, Some(2 * SECOND));
        pool.http.idle_timeout = Some(Duration::ZERO);
        assert_eq!(Rules::new(&pool).idle, None);
    }

    #[test]
    fn zero_requests_mean_no_limit() {
        let http = HttpPool {
            max_requests_per_connection: Some(0),
            max_concurrent_streams: Some(0),
            ..HttpPool::default()
        };
        let rules = Rules::new(&ConnectionPool { tcp: TcpPool::default(), http });
        assert_eq!((rules.max_requests, rules.max_streams), (u64::MAX, STREAMS));
    }
}
