//! Time limits of a request. Envoy's clock starts when the whole request has arrived: how long a client
//! takes to send it is not the endpoint's fault.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};

/// Says when a request has arrived as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Arrival(watch::Receiver<bool>);

/// The other end of an [`Arrival`]. Dropped, it says the same.
#[derive(Debug)]
pub(crate) struct Arrived(watch::Sender<bool>);

/// Both ends.
pub(crate) fn arrival(complete: bool) -> (Arrived, Arrival) {
    let (sender, receiver) = watch::channel(complete);
    (Arrived(sender), Arrival(receiver))
}

impl Arrived {
    /// The request is complete.
    pub(crate) fn now(&self) {
        self.0.send_replace(true);
    }
}

impl Arrival {
    async fn complete(mut self) {
        // An error: nobody reads the request any more, so that nothing of it is waited for.
        let _ = self.0.wait_for(|complete| *complete).await;
    }
}

/// A time limit. Ready when it has passed.
pub(crate) struct Deadline {
    limit: Duration,
    arrival: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// `limit` after the arrival of the whole request.
    pub(crate) fn new(limit: Duration, arrival: &Arrival) -> Self {
        let sleep = Box::pin(tokio::time::sleep(limit));
        let complete = *arrival.0.borrow();
        let waiting = (!complete).then(|| Box::pin(arrival.clone().complete()) as Pin<Box<_>>);
        Self { limit, arrival: waiting.map(|waiting| waiting as _), sleep }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(arrival) = &mut self.arrival {
            ready!(arrival.as_mut().poll(cx));
            self.arrival = None;
            let until = Instant::now() + self.limit;
            self.sleep.as_mut().reset(until);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// Waits for a limit; for ever where there is none.
pub(crate) async fn passed(deadline: &mut Option<Deadline>) {
    match deadline {
        Some(deadline) => deadline.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clock_starts_when_the_request_is_complete() {
        let limit = Duration::from_millis(20);
        let (arrived, arrival) = arrival(false);
        let mut deadline = Deadline::new(limit, &arrival);
        let early = tokio::time::timeout(limit * 3, &mut deadline);
        assert!(early.await.is_err());
        arrived.now();
        let before = Instant::now();
        deadline.await;
        assert!(before.elapsed() >= limit);
    }
}
