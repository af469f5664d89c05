//! TLS towards a Service's endpoints, as whoever owns the Service wants it.
//!
//! Source: Gateway API, `BackendTLSPolicy`.

use super::ClientTls;
use crate::{NamespacedName, ResourceRef};

/// What one BackendTLSPolicy says about one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// The object.
    pub origin: ResourceRef,
    /// Annotation `undermesh.io/precedence`: the higher wins. 0 where there is none.
    pub precedence: i64,
    /// `creationTimestamp`, in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// The Service.
    pub service: NamespacedName,
    /// Its port; `None` for all.
    pub port: Option<u16>,
    /// How its endpoints are spoken to.
    pub tls: ClientTls,
}
