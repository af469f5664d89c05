//! The messages of `istio.v1.auth.IstioCertificateService` (`security/v1alpha1/ca.proto`), and as much
//! of `google.protobuf.Struct` as stands in them.

use std::collections::BTreeMap;

use prost::Message;

/// Its one method, as HTTP/2 asks for it.
pub(crate) const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// The entry of the metadata that says for whom a certificate is, where that is somebody else.
pub(crate) const IMPERSONATED: &str = "ImpersonatedIdentity";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CertificateRequestMessage {
    /// PKCS #10 in PEM.
    #[prost(string, tag = "1")]
    pub(crate) csr: String,
    /// Wanted lifetime in seconds; 0 for the server's.
    #[prost(int64, tag = "3")]
    pub(crate) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CertificateResponseMessage {
    /// In PEM: the certificate first, the roots last.
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`; of its kinds, text.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(string, optional, tag = "3")]
    pub(crate) string_value: Option<String>,
}

impl CertificateRequestMessage {
    /// A request for somebody else's certificate.
    pub(crate) fn for_another(csr: String, seconds: i64, id: String) -> Self {
        let value = Value { string_value: Some(id) };
        let fields = BTreeMap::from([(IMPERSONATED.to_owned(), value)]);
        Self { csr, validity_duration: seconds, metadata: Some(Struct { fields }) }
    }

    /// For whom a certificate is wanted, if that is said.
    pub(crate) fn impersonated(&self) -> Option<&str> {
        let value = self.metadata.as_ref()?.fields.get(IMPERSONATED)?;
        value.string_value.as_deref().filter(|text| !text.is_empty())
    }
}
