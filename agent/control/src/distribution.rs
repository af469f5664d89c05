//! Configuration from the controller in place of the API server: one set of lists and watches for all nodes, and for each
//! node as much of it as its pods need, in the protocol of Envoy (delta xDS, `envoy.service.discovery.v3`).
//!
//! ```text
//! the controller's side                          an agent's side
//!   collector   lists and watches                  subscriber   a source like others
//!   catalogue   all objects, and their changes     received     a state, until all of it has come
//!   scope       what a node's pods are and reach
//!   audience    whom an object is for
//!   diff        what somebody has to be told
//!   session     one stream                         both sides
//!   hub         all of them                          frames     gRPC's messages, compressed; `inspect`, for fuzzing
//!                                                    proto      what stands in them
//! ```
//!
//! Neither side knows of sockets and TLS: streams are bytes in channels. What they carry are the objects as a source of this
//! crate reads them itself, so that both ways mean the same.

mod audience;
mod catalogue;
mod collector;
mod diff;
mod frames;
mod hub;
mod inspect;
mod proto;
mod received;
mod scope;
mod session;
mod subscriber;
#[cfg(test)]
mod testing;

pub use collector::Collector;
pub use hub::{Delivery, EndKind, Hub, Observer, Peer, StreamEnd};
pub use inspect::{read_requests, read_responses};
pub use subscriber::{ControllerConfig, ControllerSource, Link, Opened, Opening};

/// The one method, as HTTP/2 asks for it.
pub const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
