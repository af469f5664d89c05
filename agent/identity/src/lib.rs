//! Who workloads are on the wire: the certificate authority, workload certificates (SVIDs), their
//! rotation, and the TLS configurations that the proxy uses.
//!
//! **Invariant**: a TLS configuration made here accepts a peer only with a chain to the trust
//! bundle, a certificate that is valid now, and exactly one SPIFFE identity, of this trust domain.

mod authority;
mod ca;
mod clock;
mod csr;
mod error;
mod grpc;
pub mod issuance;
mod life;
mod outside;
mod peer;
mod pem;
mod remote;
mod store;
mod svid;
#[cfg(test)]
mod testing;
mod tickets;
mod tls;
mod verifier;

pub use authority::{CertificateAuthority, DirectoryAuthority, SignFuture};
pub use ca::{
    CaCertificate, CaDirectory, CaInfo, CaMaterial, CaOptions, Issued, Rotation, Serving,
};
pub use clock::{Clock, SystemClock};
pub use csr::{CertificateRequest, RequestError};
pub use error::{AuthorityError, StoreError};
pub use grpc::Code;
pub use life::spent_percent;
pub use outside::{OutsideError, OutsideTls, Protocols};
pub use peer::{PeerError, classify, explain, peer_expiry, peer_identity};
pub use remote::{ControllerLink, OpenedStream, RemoteAuthority, RemoteConfig};
pub use store::{CertificateState, CertificateStatus, IdentityConfig, IdentityStore};
pub use svid::Svid;
pub use tls::NATIVE_ALPN;

/// What takes the configurations of [`issuance::ServerTls`].
pub use tokio_rustls::TlsAcceptor;
