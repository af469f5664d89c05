//! Which of several replicas writes: the one that holds the Lease. It is renewed often, and whoever could not
//! renew it for a while stops to write before anybody else may begin.
//!
//! **Invariant**: from the moment that the holder has asked for the renewal that was last granted, it writes
//! for `renewDeadline` and no longer; others take the lease over `leaseDuration` after they have seen that
//! renewal, which is later. Clocks of different machines are never compared.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use undermesh_control::{ApiServer, Keeping, Lease, LeaseState};
use undermesh_telemetry::{Audit, AuditEvent};

use super::settings::Settings;

/// How long this replica may write, as everybody here sees it.
#[derive(Clone)]
pub(crate) struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// Whether this replica may write now.
    pub(crate) fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Does something that only the leader may do. `None` where this replica does not lead, or has ceased to
    /// before it was done; it is given up then.
    pub(crate) async fn write<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut until = self.until.clone();
        let over = async {
            loop {
                let now = *until.borrow_and_update();
                let Some(at) = now.filter(|at| Instant::now() < *at) else { return };
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    changed = until.changed() => if changed.is_err() { return },
                }
            }
        };
        tokio::select! {
            // An overdue write is not begun.
            biased;
            () = over => None,
            done = work => Some(done),
        }
    }

    /// Waits until it begins or ceases to lead.
    pub(crate) async fn changed(&mut self) {
        let held = self.until.borrow_and_update().is_some();
        while self.until.changed().await.is_ok() {
            if self.until.borrow_and_update().is_some() != held {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long others leave a lease alone after it was renewed.
    pub(super) lease: Duration,
    /// How long its holder relies on a renewal.
    pub(super) deadline: Duration,
    /// How often it is looked at.
    pub(super) retry: Duration,
}

pub(super) struct Election {
    api: ApiServer,
    lease: Lease,
    replica: String,
    terms: Terms,
    until: watch::Sender<Option<Instant>>,
    seen: Seen,
    audit: Audit,
    complaint: Option<String>,
}

/// The lease as it was last read, and since when it has been like that.
#[derive(Debug)]
struct Seen {
    state: LeaseState,
    since: Instant,
}

impl Seen {
    /// Notes what was read at `now`.
    fn note(&mut self, state: LeaseState, now: Instant) {
        if state != self.state {
            *self = Self { state, since: now };
        }
    }

    /// Whether this replica may write itself into it: it is its own, nobody's, or was not renewed for as long
    /// as its holder has said.
    fn is_free_for(&self, replica: &str, ours: Duration, now: Instant) -> bool {
        let holder = self.state.holder.as_str();
        let theirs = Duration::from_secs(u64::try_from(self.state.seconds).unwrap_or(0));
        holder.is_empty() || holder == replica || now >= self.since + theirs.max(ours)
    }
}

impl Election {
    pub(super) fn new(api: ApiServer, settings: &Settings, audit: Audit) -> Self {
        let lease =
            Lease { namespace: settings.namespace.clone(), name: settings.lease_name.clone() };
        Self {
            api,
            lease,
            replica: settings.replica.clone(),
            terms: settings.terms,
            until: watch::Sender::new(None),
            seen: Seen { state: LeaseState::default(), since: Instant::now() },
            audit,
            complaint: None,
        }
    }

    pub(super) fn leadership(&self) -> Leadership {
        Leadership { until: self.until.subscribe() }
    }

    /// Runs until `stop`, and gives the lease back then.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let ends = *self.until.borrow();
            let deadline = ends.map(tokio::time::Instant::from_std);
            let round = async {
                match deadline {
                    // A server that does not answer must not keep us from noticing the end.
                    Some(at) => tokio::time::timeout_at(at, self.round()).await.unwrap_or(()),
                    None => self.round().await,
                }
            };
            tokio::select! {
                () = round => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            self.expire();
            let wait = self.until.borrow().map_or(self.terms.retry, |until| {
                self.terms.retry.min(until.saturating_duration_since(Instant::now()))
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            self.expire();
        }
        self.release().await;
    }

    /// Looks at the lease, and takes or renews it where that may be.
    async fn round(&mut self) {
        let began = Instant::now();
        let result = self.attempt(began).await;
        let complaint = result.err().map(|error| error.to_string());
        if complaint != self.complaint {
            match &complaint {
                Some(error) => tracing::warn!(error, "cannot look after the lease"),
                None => tracing::info!("the lease can be looked after again"),
            }
            self.complaint = complaint;
        }
    }

    async fn attempt(&mut self, began: Instant) -> Result<(), undermesh_control::ApiError> {
        let state = self.api.lease(&self.lease).await?;
        self.seen.note(state, Instant::now());
        if !self.seen.is_free_for(&self.replica, self.terms.lease, Instant::now()) {
            self.lose();
            return Ok(());
        }
        let seconds = i32::try_from(self.terms.lease.as_secs_f64().ceil() as i64).unwrap_or(15);
        let wanted = self.seen.state.held_by(&self.replica, seconds);
        match self.api.keep_lease(&self.lease, &wanted).await? {
            Keeping::Done => self.win(began + self.terms.deadline),
            // Somebody was faster; who it was is read in the next round.
            Keeping::Overtaken => {}
        }
        Ok(())
    }

    fn win(&mut self, until: Instant) {
        let led = self.until.send_replace(Some(until)).is_some();
        if !led {
            tracing::info!(
                replica = self.replica,
                "this replica leads: it writes into the cluster"
            );
            self.say(true);
        }
    }

    fn lose(&mut self) {
        if self.until.send_replace(None).is_some() {
            let holder = &self.seen.state.holder;
            tracing::warn!(holder, "this replica does not lead any more");
            self.say(false);
        }
    }

    fn expire(&mut self) {
        let over = self.until.borrow().is_some_and(|until| Instant::now() >= until);
        if over {
            self.lose();
        }
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    async fn release(&mut self) {
        let held = self.until.borrow().is_some_and(|until| Instant::now() < until);
        self.lose();
        if !held {
            return;
        }
        if let Ok(state) = self.api.lease(&self.lease).await
            && state.holder == self.replica
            && let Err(error) = self.api.keep_lease(&self.lease, &state.released()).await
        {
            tracing::warn!(%error, "cannot give the lease back");
        }
    }

    fn say(&self, leads: bool) {
        self.audit.record(&AuditEvent::LeaderChanged { replica: self.replica.clone(), leads });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn held(holder: &str) -> LeaseState {
        LeaseState::default().held_by(holder, 15)
    }

    #[test]
    fn a_lease_is_left_alone_until_it_was_not_renewed_for_its_time_by_our_own_clock() {
        let start = Instant::now();
        let mut seen = Seen { state: LeaseState::default(), since: start };
        assert!(seen.is_free_for("b", LEASE, start));
        seen.note(held("a"), start);
        assert!(!seen.is_free_for("b", LEASE, start + Duration::from_secs(14)));
        assert!(seen.is_free_for("a", LEASE, start));
        // Renewed: everything else is the same but the time that stands in it.
        let renewed = held("a").held_by("a", 15);
        seen.note(renewed.clone(), start + Duration::from_secs(14));
        assert!(!seen.is_free_for("b", LEASE, start + Duration::from_secs(28)));
        seen.note(renewed, start + Duration::from_secs(20));
        assert!(seen.is_free_for("b", LEASE, start + Duration::from_secs(29)));
    }

    #[test]
    fn a_holder_that_says_a_longer_time_is_given_it_and_one_that_says_none_ours() {
        let start = Instant::now();
        for (seconds, after) in [(60, 60), (0, 15), (-1, 15)] {
            let state = LeaseState::default().held_by("a", seconds);
            let seen = Seen { state, since: start };
            assert!(!seen.is_free_for("b", LEASE, start + Duration::from_secs(after - 1)));
            assert!(seen.is_free_for("b", LEASE, start + Duration::from_secs(after)));
        }
    }

    #[tokio::test]
    async fn what_the_leader_writes_is_given_up_when_it_ceases_to_lead() {
        let until = watch::Sender::new(None);
        let leadership = Leadership { until: until.subscribe() };
        assert_eq!(leadership.write(async { 1 }).await, None);
        until.send_replace(Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(leadership.write(async { 1 }).await, Some(1));
        until.send_replace(Some(Instant::now() + Duration::from_millis(50)));
        let slow = tokio::time::sleep(Duration::from_secs(600));
        assert_eq!(leadership.write(slow).await, None);
        assert!(!leadership.is_held());
        // Renewed in time, it goes on.
        until.send_replace(Some(Instant::now() + Duration::from_millis(100)));
        let renewing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            until.send_replace(Some(Instant::now() + Duration::from_secs(60)));
            std::future::pending::<()>().await;
        };
        let work = leadership.write(tokio::time::sleep(Duration::from_millis(300)));
        tokio::select! {
            done = work => assert_eq!(done, Some(())),
            () = renewing => {}
        }
    }
}
