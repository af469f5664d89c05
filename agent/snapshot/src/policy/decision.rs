//! What a decision says, and why.

use std::fmt;

use undermesh_model::ResourceRef;

/// Yes or no, and because of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Let it pass.
    pub allowed: bool,
    /// Why.
    pub cause: Cause,
    /// The policy that decided: the one that matched, or, where no ALLOW policy matched, the
    /// first of those.
    pub policy: Option<&'a ResourceRef>,
    /// Which of its rules, from 0.
    pub rule: Option<usize>,
    /// Where it is refused: which attributes of the policy have matched, or what has not.
    pub because: Option<String>,
    /// What else there is to report.
    pub findings: Vec<Finding<'a>>,
}

/// Why a connection may pass or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing forbids it, and no ALLOW policy is about this workload.
    Unrestricted,
    /// A rule of an ALLOW policy matches.
    Allowed,
    /// The port takes no plaintext.
    StrictPlaintext,
    /// A rule of a DENY policy matches.
    Denied,
    /// There are ALLOW policies, and none matches.
    NotAllowed,
    /// A CUSTOM policy matches what is no request, so that nobody can be asked about it.
    NotAsked,
    /// It depends on requests, which have not been seen yet.
    AtRequests,
}

/// A policy that matched without a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// What would have happened.
    pub kind: FindingKind,
    /// Because of which policy.
    pub policy: &'a ResourceRef,
    /// Which of its rules; `None` where none of them matched and that is the finding.
    pub rule: Option<usize>,
}

/// Kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// An AUDIT policy matches.
    Audit,
    /// A DENY policy would refuse it, were it not a dry run.
    WouldDeny,
    /// No ALLOW policy would allow it, were those that are dry runs in force.
    WouldNotAllow,
}

impl FindingKind {
    /// Stable name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::WouldDeny => "would_deny",
            Self::WouldNotAllow => "would_not_allow",
        }
    }
}

impl Decision<'_> {
    /// There is none yet: it depends on requests.
    pub fn waits(&self) -> bool {
        self.cause == Cause::AtRequests
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Unrestricted => return f.write_str("no policy is about it"),
            Cause::StrictPlaintext => return f.write_str("the port takes no plaintext"),
            Cause::AtRequests => return f.write_str("its requests have to be seen"),
            Cause::NotAsked => {
                f.write_str("no request that could be asked about, as demanded by ")?;
            }
            Cause::Allowed => f.write_str("allowed by ")?,
            Cause::Denied => f.write_str("denied by ")?,
            Cause::NotAllowed => f.write_str("not allowed by ")?,
        }
        if let Some(policy) = self.policy {
            write!(f, "{policy}")?;
        }
        match (&self.because, self.rule) {
            (Some(because), _) => write!(f, ", {because}"),
            (None, Some(rule)) => write!(f, ", rule[{rule}]"),
            (None, None) => Ok(()),
        }
    }
}
