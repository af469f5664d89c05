//! Requests through the proxy.

mod abuse;
mod client_limits;
mod conformance;
mod edge;
mod frames;
mod leaving;
mod outside;
mod protocols;
mod recorder;
mod resilience;
mod rig;
mod routing;
mod same_node;
mod smuggling;
mod strict;
mod telemetry;
mod tracing;
mod transparency;
