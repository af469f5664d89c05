//! What becomes of traffic on its way, as the proxy looks it up: one [`PortTraffic`] for each service
//! port and client namespace that a rule is about. Everything is compiled once; a lookup allocates
//! nothing.

mod cluster;
mod matcher;
mod request;
mod route;
mod table;

pub use cluster::{ClusterEndpoint, ClusterSpec, DnsEndpoint, Settings};
pub use matcher::{Condition, HostPattern, PatternError, RequestMatch, Substitution, Unmet};
pub use request::{Client, RequestView};
pub use route::{
    AppProtocol, Compiled as CompiledRoute, HeaderEdits, L4Route, PortTraffic, RouteAction, Target,
    Weighted,
};
pub use table::{Matched, RouteTable};
