//! ServiceAccount.

use undermesh_model::ServiceAccount;

use crate::{objects::Placed, report::Subject};

/// A ServiceAccount is its name.
pub(crate) fn service_account(subject: &Subject<'_>) -> Placed<ServiceAccount> {
    Placed::new(ServiceAccount { origin: subject.origin.clone() }, subject)
}
