//! Requests through the proxy.

mod rig;
mod routing;
