//! What this kernel can do, found out by doing it on objects of our own: a cgroup and a network
//! namespace that nobody else is in, and that are gone afterwards. Nothing is concluded from a
//! version: distributions carry features back and leave others out.

mod feature;
mod helpers;
mod instructions;
mod links;
mod maps;
mod memory;
mod programs;

use std::io;

use serde::Serialize;

pub use feature::{Feature, Need};

/// How the names of cgroups begin that probes make.
pub(crate) const PROBE: &str = "undermesh-probe-";

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "because")]
pub enum Availability {
    /// It works.
    Available,
    /// The kernel does not have it; its answer.
    Missing(String),
    /// It could not be asked, for want of a capability for example; why.
    Unknown(String),
}

impl Availability {
    /// What an answer to a probe means: not being allowed to ask says nothing about the answer.
    fn of<T>(answer: Result<T, &io::Error>) -> Self {
        match answer {
            Ok(_) => Self::Available,
            Err(error) if is_about_us(error) => Self::Unknown(error.to_string()),
            Err(error) => Self::Missing(error.to_string()),
        }
    }
}

/// Errors that are about who asks and on what, not about what is asked for.
fn is_about_us(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
    )
}

/// One feature and its availability.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// Stable name, `helper.sockops.get_netns_cookie` for example.
    pub feature: &'static str,
    /// Whether it is there.
    pub availability: Availability,
    /// Whether Undermesh can do without.
    pub need: Need,
    /// What it is used for.
    pub used_for: &'static str,
    /// What happens without it.
    pub without: &'static str,
}

impl Probed {
    fn of(feature: Feature, availability: Availability) -> Self {
        Self {
            feature: feature.name(),
            availability,
            need: feature.need(),
            used_for: feature.used_for(),
            without: feature.without(),
        }
    }
}

/// Features that Undermesh uses or would use, each one probed.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct KernelFeatures(Vec<Probed>);

impl KernelFeatures {
    /// Asks the kernel. Takes some milliseconds, and leaves nothing behind.
    pub fn probe() -> Self {
        // First, and alone: it lowers this process's limit for a moment.
        let accounting = memory::accounting();
        crate::attach::raise_memlock();
        let links = links::Links::probe();
        let probed = Feature::ALL.iter().map(|feature| {
            let availability = match feature {
                Feature::MemoryAccounting => accounting.clone(),
                Feature::CgroupLink | Feature::NetnsLink => links.create(*feature),
                Feature::LinkUpdate => links.update.clone(),
                Feature::LinkDetach => links.detach.clone(),
                feature => feature.probe(),
            };
            Probed::of(*feature, availability)
        });
        Self(with_fallbacks(probed.collect()))
    }

    /// Asks only for what the agent does something else without.
    pub fn probe_alternatives() -> Self {
        let probed = Feature::ALTERNATIVES.iter().map(|one| Probed::of(*one, one.probe()));
        Self(probed.collect())
    }

    /// All that have been asked for, in the order of [`Feature::ALL`].
    pub fn all(&self) -> &[Probed] {
        &self.0
    }

    /// Whether a feature is known to be there.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.iter().any(|probed| {
            probed.feature == feature.name() && probed.availability == Availability::Available
        })
    }
}

/// What takes the place of something that is not there is required.
fn with_fallbacks(mut probed: Vec<Probed>) -> Vec<Probed> {
    let cookie = Feature::SockOpsNetnsCookie.name();
    let has_cookie = probed
        .iter()
        .any(|one| one.feature == cookie && one.availability == Availability::Available);
    let binds = [Feature::Bind4.name(), Feature::Bind6.name()];
    for one in probed.iter_mut().filter(|one| !has_cookie && binds.contains(&one.feature)) {
        one.need = Need::Required;
        one.without = "the agent does not start, since sockops cannot ask for the cookie";
    }
    probed
}

#[cfg(test)]
mod tests;
