//! The proxy that all enrolled pods of a node share. One file per step of a connection.
//!
//! Outbound (`outbound.rs`): accept -> original_dst -> resolve -> plan -> balance -> connect ->
//! forward -> record. Inbound (`inbound.rs`): accept -> terminate -> request -> authorize ->
//! connect (deliver) -> forward -> record. At an application's own port (`capture.rs`): accept ->
//! detect -> authorize -> connect (deliver) -> forward -> record. Where rules are about the service
//! that was dialled, `http/` takes over after *plan*: it looks at requests, and at what else passes.
//! `upstream/` is where both go: endpoints, limits, ejections, HTTP connections. `native/` is the
//! wire between agents of this mesh, `tunnel/` and `pool/` the one that others speak as well.
//!
//! It knows snapshots and identities; it knows neither Kubernetes nor BPF. Sockets come from the
//! agent, which opens them inside the pods' network namespaces.

mod accept;
mod authority;
mod authorize;
mod balance;
mod capture;
mod config;
mod connect;
mod deliver;
mod detect;
mod duplex;
mod error;
pub mod explain;
mod fair;
mod follow;
mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod guard;
mod headers;
mod http;
mod identity;
mod inbound;
mod keepalive;
mod limits;
mod metrics;
mod native;
mod observed;
mod outbound;
mod overload;
mod plan;
mod pod;
mod pool;
mod proxy;
mod reach;
mod record;
mod request;
mod short;
mod status;
mod terminate;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace;
mod tunnel;
mod upstream;

pub use config::{HeadLimits, Http2Config, Keepalive, NativeConfig, PoolConfig, ProxyConfig};
pub use follow::{FollowedStep, Follower, Wanted};
pub use guard::{AuthorizerStatus, KeyStatus};
pub use overload::{OverloadStatus, Pressure, Step};
pub use pod::{OriginalDst, Pass, PodHandle, PodListeners, PodSockets, Transparent};
pub use proxy::Proxy;
pub use record::{peer, service_label};
pub use status::{PodStatus, ProxyStatus, TunnelStatus};
pub use trace::{CustomTag, Sampling, TagError, Tracing, read_trace_headers};
pub use upstream::{EjectionStatus, EndpointStatus, LimitStatus, NameStatus, UpstreamStatus};
