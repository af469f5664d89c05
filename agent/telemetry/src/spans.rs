//! Spans of traced requests on their way to a receiver of OTLP: a bounded queue, and a thread of its own that
//! sends them in batches. A receiver that is slow or away costs spans and never a request.

mod client;
mod endpoint;
mod exporter;
mod ids;
mod metrics;
mod otlp;
mod request;
mod span;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver as Ending, RecvTimeoutError, channel},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::rustls::ClientConfig;

use crate::behind;
use client::Client;
use exporter::{BATCH, Exporter};
use metrics::{Loss, SpanMetrics};

pub use endpoint::{Endpoint, EndpointError, Protocol};
pub use ids::{SpanId, TraceId, TraceName};
pub use request::Traced;
pub(crate) use request::{resource, span as span_of};
pub use span::{Attribute, Event, Resource, Span, SpanKind, Value};

/// Spans that may wait for the sender.
const QUEUE: usize = 4096;

/// What the sender has to ask others about.
pub trait Directory: Send + Sync {
    /// Addresses of a host that configuration knows; of others, the system is asked.
    fn addresses(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>>;

    /// TLS towards the receiver, with these protocols offered (ALPN).
    ///
    /// # Errors
    /// Why it cannot be had.
    fn tls(&self, alpn: &'static [&'static [u8]]) -> Result<Arc<ClientConfig>, String>;
}

/// A handle to the queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    /// Tells the sender of a batch.
    enough: Arc<Notify>,
    metrics: SpanMetrics,
    closing: watch::Sender<bool>,
    /// Tells of the end of the thread by being disconnected.
    ended: Arc<Mutex<Ending<Infallible>>>,
}

impl Spans {
    /// Starts the thread that sends spans to a receiver.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(endpoint: Endpoint, directory: Arc<dyn Directory>) -> io::Result<Self> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (alive, ended) = channel();
        let spans = Self::new(sender, ended);
        let (metrics, closing) = (spans.metrics.clone(), spans.closing.subscribe());
        let enough = Arc::clone(&spans.enough);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        behind::spawn("spans", move || {
            let client = Client::new(endpoint, directory);
            runtime.block_on(Exporter::new(queue, enough, closing, client, metrics).run());
            drop(alive);
        })?;
        Ok(spans)
    }

    /// A queue that somebody else reads, as tests do.
    pub fn into_channel(capacity: usize) -> (Self, mpsc::Receiver<Span>) {
        let (sender, queue) = mpsc::channel(capacity);
        (Self::new(sender, channel().1), queue)
    }

    fn new(queue: mpsc::Sender<Span>, ended: Ending<Infallible>) -> Self {
        Self {
            queue,
            enough: Arc::default(),
            metrics: SpanMetrics::default(),
            closing: watch::Sender::new(false),
            ended: Arc::new(Mutex::new(ended)),
        }
    }

    /// Registers what is counted about spans.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Puts a span into the queue, or counts it as lost where that is full. Never waits.
    pub fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.dropped(Loss::QueueFull, 1);
        }
        // The first one of a batch has been taken out already.
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        if waiting + 1 >= BATCH {
            self.enough.notify_one();
        }
    }

    /// Sends what is in the queue, gives up on what cannot be sent at once, and says whether that was done in
    /// time. Blocks; meant for the end of the process.
    #[must_use]
    pub fn close(&self, timeout: Duration) -> bool {
        self.closing.send_replace(true);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ended.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests;
