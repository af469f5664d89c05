//! Requests through the proxy.

mod edge;
mod leaving;
mod outside;
mod protocols;
mod resilience;
mod rig;
mod routing;
mod same_node;
mod strict;
mod telemetry;
mod tracing;
