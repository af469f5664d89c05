//! The world outside the mesh: a DNS server and servers that speak TLS, in any namespace of a rig.

mod dns;
mod server;

pub use dns::DnsServer;
pub use server::{Authority, Issued, TlsServer};
