//! What becomes of traffic on its way, as the proxy looks it up: one [`PortTraffic`] for each service
//! port and client namespace that a rule is about. Everything is compiled once; a lookup allocates
//! nothing.

mod cluster;
mod request;
mod route;

pub use cluster::{ClusterEndpoint, ClusterKey, ClusterSpec, Settings};
pub use request::{Client, RequestView};
pub use route::{
    AppProtocol, Compiled as CompiledRoute, HeaderEdits, L4Route, Matched, PortTraffic,
    RouteAction, RouteTable, Target, Weighted,
};
