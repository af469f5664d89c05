//! How destinations are named.

use std::fmt;

/// Names a destination. State that outlives a snapshot (ejections, open connections) is kept by it.
///
/// It is displayed as Istio calls it: `outbound|80|v1|cart.shop.svc.cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// DNS name of the service.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    /// Subset of the DestinationRule; empty for the whole.
    pub subset: String,
    /// The name that was asked for, where the host stands for many that are a destination each; empty
    /// otherwise.
    pub name: String,
    /// Client namespace where the DestinationRule is not everybody's; empty otherwise.
    pub view: String,
}

impl ClusterKey {
    /// The whole of a service's port, for everybody.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let (subset, name, view) = (String::new(), String::new(), String::new());
        Self { host: host.into(), port, subset, name, view }
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbound|{}|{}|{}", self.port, self.subset, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_as_istio_calls_it_whoever_sees_it() {
        let whole = ClusterKey::new("cart.shop.svc.cluster.local", 80);
        assert_eq!(whole.to_string(), "outbound|80||cart.shop.svc.cluster.local");
        let part = ClusterKey { subset: "v1".to_owned(), view: "web".to_owned(), ..whole };
        assert_eq!(part.to_string(), "outbound|80|v1|cart.shop.svc.cluster.local");
    }
}
