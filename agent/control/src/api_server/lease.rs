//! Leases (`coordination.k8s.io/v1`): who of several may write. When a lease is over is judged by whoever
//! watches it, by his own clock and since he has last seen it change: clocks of others say nothing.

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::{ApiError, ApiServer, Keeping, secrets::kept};

/// A lease, as it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What stands in a lease. Two that are the same in everything are the same lease, not renewed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseState {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// For how long after each renewal, in seconds.
    pub seconds: i32,
    /// How often it has changed hands.
    pub transitions: i32,
    acquired: Option<MicroTime>,
    renewed: Option<MicroTime>,
    revision: Option<String>,
}

impl LeaseState {
    /// The same lease, renewed, or taken over by somebody else.
    pub fn held_by(&self, holder: &str, seconds: i32) -> Self {
        let now = Some(MicroTime(k8s_openapi::jiff::Timestamp::now()));
        let is_new = self.holder != holder;
        Self {
            holder: holder.to_owned(),
            seconds,
            transitions: self.transitions + i32::from(is_new && self.revision.is_some()),
            acquired: if is_new { now.clone() } else { self.acquired.clone() },
            renewed: now,
            revision: self.revision.clone(),
        }
    }

    /// The same lease, given back.
    pub fn released(&self) -> Self {
        Self { holder: String::new(), seconds: 1, ..self.held_by(&self.holder, 1) }
    }
}

impl ApiServer {
    /// Reads a lease; one that is not there is nobody's.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn lease(&self, lease: &Lease) -> Result<LeaseState, ApiError> {
        let found: Option<Object> = self.find(&path(lease, true)).await?;
        let Some(object) = found else { return Ok(LeaseState::default()) };
        let spec = object.spec.unwrap_or_default();
        Ok(LeaseState {
            holder: spec.holder_identity.unwrap_or_default(),
            seconds: spec.lease_duration_seconds.unwrap_or(0),
            transitions: spec.lease_transitions.unwrap_or(0),
            acquired: spec.acquire_time,
            renewed: spec.renew_time,
            revision: object.metadata.resource_version,
        })
    }

    /// Writes a lease, if nobody has since it was read.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn keep_lease(&self, lease: &Lease, state: &LeaseState) -> Result<Keeping, ApiError> {
        let object = Object {
            metadata: ObjectMeta {
                name: Some(lease.name.clone()),
                namespace: Some(lease.namespace.clone()),
                resource_version: state.revision.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(state.holder.clone()),
                lease_duration_seconds: Some(state.seconds),
                lease_transitions: Some(state.transitions),
                acquire_time: state.acquired.clone(),
                renew_time: state.renewed.clone(),
                ..LeaseSpec::default()
            }),
        };
        kept(match state.revision {
            None => self.create(&path(lease, false), &object).await,
            Some(_) => self.update(&path(lease, true), &object).await,
        })
    }
}

fn path(lease: &Lease, named: bool) -> String {
    let Lease { namespace, name } = lease;
    let all = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    if named { format!("{all}/{name}") } else { all }
}
