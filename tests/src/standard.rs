//! The rig that most tests start from.

use anyhow::Result;

use crate::{
    manifest::{PodSpec, ServiceSpec},
    rig::{Rig, RigBuilder},
};

/// The port that the standard rig's services lead to.
pub const PORT: u16 = 8080;

impl Rig {
    /// Two nodes:
    ///
    /// | node | enrolled | listed, not enrolled | unknown to the manifests |
    /// |---|---|---|---|
    /// | a | `client`, `near` | `outsider` | |
    /// | b | `server` | | `stranger` |
    ///
    /// and the services `far` (port 80, to port 8080 of `server`) and `near` (the same, of `near`).
    pub fn standard() -> RigBuilder {
        Self::speaking("native")
    }

    /// The standard rig, whose enrolled pods are reached over one wire: `native` or `hbone`.
    pub fn speaking(wire: &str) -> RigBuilder {
        let pod = |name: &str| PodSpec::new(name).annotated("wire", wire);
        Self::builder()
            .node("a", [pod("client"), pod("near"), PodSpec::new("outsider").listed()])
            .node("b", [pod("server"), PodSpec::new("stranger").unlisted()])
            .service(ServiceSpec::new("far", 80, PORT, &["server"]))
            .service(ServiceSpec::new("near", 80, PORT, &["near"]))
    }

    /// The standard rig with both agents running and ready.
    ///
    /// # Errors
    /// As [`RigBuilder::build`] and [`Rig::start`].
    pub fn started() -> Result<Self> {
        let mut rig = Self::standard().build()?;
        rig.start()?;
        Ok(rig)
    }
}
