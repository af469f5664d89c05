//! RequestAuthentication: whose tokens requests may carry.
//!
//! Source: Istio, `security/v1beta1/request_authentication.proto`.

use std::{collections::BTreeMap, time::Duration};

use crate::{NamespacedName, ResourceRef};

/// One RequestAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Labels of the workloads that it is about; empty for all of its scope.
    pub selector: BTreeMap<String, String>,
    /// One for each issuer.
    pub rules: Vec<JwtRule>,
}

/// How tokens of one issuer are found and verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtRule {
    /// The object that it is from.
    pub origin: ResourceRef,
    /// The claim `iss`; empty for any.
    pub issuer: String,
    /// One of these has to be in the claim `aud`; empty for any.
    pub audiences: Vec<String>,
    /// What verifies them.
    pub keys: JwtKeys,
    /// Where they are.
    pub locations: Vec<TokenLocation>,
    /// The application gets the token as well.
    pub forward: bool,
    /// Header in which the application gets the claims, in base64url; lower case.
    pub payload_header: Option<String>,
    /// Headers in which the application gets single claims: header in lower case, claim.
    pub claim_headers: Vec<(String, String)>,
    /// Claims that are lists of words in one text.
    pub words: Vec<String>,
    /// Longest wait for keys.
    pub timeout: Duration,
}

/// Where the public keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JwtKeys {
    /// A JSON Web Key Set.
    Inline(String),
    /// A URL of one.
    Uri(String),
    /// Named by the issuer's `/.well-known/openid-configuration`.
    Discovered,
}

/// Where a request carries its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenLocation {
    /// A header, name in lower case, and what stands in it before the token.
    Header(String, String),
    /// A parameter of the query.
    Parameter(String),
    /// A cookie.
    Cookie(String),
}
