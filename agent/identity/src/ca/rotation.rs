//! How an authority goes on: an intermediate is replaced when half of its life is over, and a root in three
//! steps, so that at no moment anybody has a certificate that somebody else does not trust:
//!
//! 1. a new root is added to the bundle, and signs nothing yet;
//! 2. when everybody has had the time to read the bundle, certificates are signed under it;
//! 3. when the last certificate under the former root has expired, that root leaves the bundle.

use std::time::Duration;

use rcgen::{Issuer, KeyPair};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CaMaterial, CaOptions, Fresh, INTERMEDIATE_CERT, ROOT_CERT, inspect, issue};
use crate::{AuthorityError, ca::material::Pair, pem};

/// Added to every wait, since clocks differ.
const MARGIN: Duration = Duration::from_secs(120);

/// When an authority is replaced, and by what.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// What new certificates are like.
    pub options: CaOptions,
    /// The longest life of a certificate that is issued.
    pub longest: Duration,
    /// How long everybody may take to read a new bundle.
    pub settle: Duration,
}

impl CaMaterial {
    /// The next step, if one is due at `now`. Without the root's key there is none.
    ///
    /// # Errors
    /// Where a certificate cannot be made.
    pub fn advance(
        &self,
        rotation: &Rotation,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(root) = &self.root else { return Ok(None) };
        if let Some((next, from)) = &self.next {
            return if *from <= now {
                self.promote(next, rotation, now).map(Some)
            } else {
                self.renew_intermediate(root, rotation, now)
            };
        }
        if self.prune_from.is_some_and(|from| from <= now) {
            let (root, intermediate) = (root.again(), self.intermediate.again());
            let bundle = root.pem.clone();
            return Self::new(Some(root), intermediate, bundle, None, None).map(Some);
        }
        // Four fifths of its life: what is left has to be enough for an overlap, however long
        // certificates live.
        if self.prune_from.is_none() && spent(root, now) >= 0.8 {
            return self.stage(rotation, now).map(Some);
        }
        self.renew_intermediate(root, rotation, now)
    }

    /// Step 1: adds a new root, that will sign after `settle`.
    ///
    /// # Errors
    /// Where the root's key is not here, a change of roots is under way, or no root can be made.
    pub fn stage(&self, rotation: &Rotation, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let refused = |reason: &str| Err(AuthorityError::Setting(reason.to_owned()));
        let Some(root) = &self.root else {
            return refused("the root's key is not here, so that it cannot be replaced here");
        };
        if self.next.is_some() || self.prune_from.is_some() {
            return refused("the root is being replaced already");
        }
        issue::check_lifetimes(&rotation.options)?;
        let fresh = Fresh::make(&rotation.options, now)?;
        let next = Pair::new(fresh.root.pem(), fresh.root.key(), ROOT_CERT)?;
        let bundle = format!("{}{}", next.pem, self.bundle);
        let from = issue::end(now, rotation.settle.saturating_add(MARGIN))?;
        let (root, intermediate) = (root.again(), self.intermediate.again());
        Self::new(Some(root), intermediate, bundle, Some((next, from)), None)
    }

    /// Step 2.
    fn promote(
        &self,
        next: &Pair,
        rotation: &Rotation,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let intermediate = intermediate_under(next, rotation, now)?;
        let last = issue::end(now, rotation.longest.saturating_add(MARGIN))?;
        Self::new(Some(next.again()), intermediate, self.bundle.clone(), None, Some(last))
    }

    fn renew_intermediate(
        &self,
        root: &Pair,
        rotation: &Rotation,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, AuthorityError> {
        if spent(&self.intermediate, now) < 0.5 {
            return Ok(None);
        }
        let made = intermediate_under(root, rotation, now)?;
        let later = inspect::not_after(&made.der) > inspect::not_after(&self.intermediate.der);
        if !later {
            // The root ends first; another one is on its way.
            return Ok(None);
        }
        let next = self.next.as_ref().map(|(pair, from)| (pair.again(), *from));
        let bundle = self.bundle.clone();
        Self::new(Some(root.again()), made, bundle, next, self.prune_from).map(Some)
    }

    /// How many roots are trusted.
    pub fn root_count(&self) -> usize {
        pem::blocks(&self.bundle).count()
    }
}

fn intermediate_under(
    root: &Pair,
    rotation: &Rotation,
    now: OffsetDateTime,
) -> Result<Pair, AuthorityError> {
    let unusable = |reason: String| AuthorityError::content(ROOT_CERT, reason);
    let ends = inspect::not_after(&root.der).filter(|ends| *ends > now);
    let ends = ends.ok_or_else(|| unusable("it has expired".to_owned()))?;
    let key =
        KeyPair::from_pem(&root.key).map_err(|_| unusable("its key cannot be read".to_owned()))?;
    let issuer =
        Issuer::from_ca_cert_pem(&root.pem, key).map_err(|error| unusable(error.to_string()))?;
    let made = issue::intermediate(&issuer, ends, &rotation.options, now)?;
    Pair::new(made.pem, &made.key, INTERMEDIATE_CERT)
}

/// The share of a certificate's life that is over.
fn spent(pair: &Pair, now: OffsetDateTime) -> f64 {
    let Ok((_, parsed)) = X509Certificate::from_der(&pair.der) else { return 1.0 };
    let validity = parsed.validity();
    let (start, end) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    (now - start).as_seconds_f64() / (end - start).as_seconds_f64().max(1.0)
}

#[cfg(test)]
mod tests;
