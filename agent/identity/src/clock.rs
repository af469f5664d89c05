//! Time, so that tests can let certificates expire without waiting.

use std::fmt::Debug;

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> OffsetDateTime;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Hands a [`Clock`] to rustls.
#[derive(Debug)]
pub(crate) struct RustlsClock(pub(crate) Arc<dyn Clock>);

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
