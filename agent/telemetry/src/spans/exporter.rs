//! The loop that empties the queue: a batch, as often as it takes to get it to the receiver, and the next.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    Span,
    client::{Client, SendError},
    metrics::{Loss, SpanMetrics},
    otlp,
};

/// Spans that are sent in one go.
pub(super) const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// Longest wait for one answer, connection included (OTLP's default).
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one batch is sent.
const ATTEMPTS: usize = 3;
/// Longest wait after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait, also of those that a receiver asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Exporter {
    queue: mpsc::Receiver<Span>,
    /// There is a batch in the queue: to be woken by every span would cost requests more than the span.
    enough: Arc<Notify>,
    closing: watch::Receiver<bool>,
    client: Client,
    metrics: SpanMetrics,
    /// Failures in a row, over all batches.
    failures: u32,
    /// How long the receiver has asked to be left alone.
    asked: Duration,
}

impl Exporter {
    pub(super) fn new(
        queue: mpsc::Receiver<Span>,
        enough: Arc<Notify>,
        closing: watch::Receiver<bool>,
        client: Client,
        metrics: SpanMetrics,
    ) -> Self {
        Self { queue, enough, closing, client, metrics, failures: 0, asked: Duration::ZERO }
    }

    /// Runs until it is told to close, or nobody can record any more.
    pub(super) async fn run(mut self) {
        loop {
            let batch = self.next().await;
            if batch.is_empty() {
                return;
            }
            self.deliver(batch).await;
            if self.is_closing() && self.failures > 0 {
                let left = self.queue.len() as u64;
                return self.metrics.dropped(Loss::Shutdown, left);
            }
        }
    }

    /// The next spans; none when there will be no more.
    pub(super) async fn next(&mut self) -> Vec<Span> {
        let mut batch = Vec::new();
        let (queue, enough) = (&mut self.queue, &self.enough);
        let filled = async {
            let Some(first) = queue.recv().await else { return };
            batch.push(first);
            let until = Instant::now() + LINGER;
            // It may have been told of the batch before.
            while queue.len() + 1 < BATCH
                && tokio::time::timeout_at(until, enough.notified()).await.is_ok()
            {}
        };
        tokio::select! {
            () = filled => {}
            () = closed(&mut self.closing) => {}
        }
        while batch.len() < BATCH
            && let Ok(span) = self.queue.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    async fn deliver(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let message = otlp::request(batch);
        for _ in 0..ATTEMPTS {
            self.pause().await;
            let sent = tokio::time::timeout(PATIENCE, self.client.send(message.clone())).await;
            // A connection that does not answer was let go of with the attempt.
            let late = |_| Err(SendError::unavailable(format!("no answer within {PATIENCE:?}")));
            let sent = sent.unwrap_or_else(late);
            match sent {
                Ok(rejected) => return self.taken(count, rejected),
                Err(SendError::Rejected(why)) => {
                    tracing::warn!(spans = count, why, "the receiver of spans does not want them");
                    self.failures = 0;
                    return self.metrics.dropped(Loss::Rejected, count);
                }
                Err(SendError::Unavailable { why, after }) => self.failed(&why, after),
            }
            if self.is_closing() {
                return self.metrics.dropped(Loss::Shutdown, count);
            }
        }
        self.metrics.dropped(Loss::Unavailable, count);
    }

    fn taken(&mut self, count: u64, (rejected, why): (u64, String)) {
        if self.failures > 0 {
            tracing::info!("the receiver of spans takes them again");
        }
        self.failures = 0;
        self.asked = Duration::ZERO;
        let rejected = rejected.min(count);
        if rejected > 0 {
            tracing::warn!(spans = rejected, why, "the receiver of spans does not want some");
            self.metrics.dropped(Loss::Rejected, rejected);
        }
        self.metrics.exported(count - rejected);
    }

    fn failed(&mut self, why: &str, after: Option<Duration>) {
        if self.failures == 0 {
            tracing::warn!(why, "spans cannot be sent; those that find no room will be lost");
        }
        self.failures = self.failures.saturating_add(1);
        self.asked = after.unwrap_or_default();
    }

    /// Waits after failures, a random part of a time that grows, unless it is time to close.
    async fn pause(&mut self) {
        if self.failures == 0 {
            return;
        }
        let wait = pause(self.failures, self.asked);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = closed(&mut self.closing) => {}
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }
}

/// Returns when it is time to close. The last handle's end is one.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// A random time that may grow with the failures in a row, and is no shorter than what the receiver has asked for.
fn pause(failures: u32, asked: Duration) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let most = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    // Seeded by the system; all that it has to be is different from node to node.
    let share = RandomState::new().hash_one(failures) as u32;
    let random = most.mul_f64(f64::from(share) / f64::from(u32::MAX));
    random.max(asked.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_no_shorter_than_asked() {
        for failures in [1, 2, 5, 40, u32::MAX] {
            let most = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures - 1));
            for _ in 0..100 {
                assert!(pause(failures, Duration::ZERO) <= most.min(LONGEST_PAUSE));
            }
        }
        let longest = (0..100).map(|_| pause(40, Duration::ZERO)).max().unwrap();
        assert!(longest > LONGEST_PAUSE / 2, "{longest:?}");
        assert!(pause(1, Duration::from_secs(3)) >= Duration::from_secs(3));
        assert_eq!(pause(1, Duration::from_secs(3000)), LONGEST_PAUSE);
    }
}
