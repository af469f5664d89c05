//! Distributed tracing of requests: which trace a request belongs to, whether it is recorded, and what is recorded
//! about it (`docs/reference/tracing.md`).
//!
//! A request: headers -> [`Incoming`] -> [`Context`] -> headers. `w3c.rs`, `state.rs` and `b3.rs` read what peers have
//! written and know nothing else; `sampling.rs` decides. What a span says is `undermesh_telemetry`'s to know.

mod b3;
mod context;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod incoming;
mod sampling;
mod state;
mod tag;
mod w3c;

use std::{
    cell::RefCell,
    sync::LazyLock,
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use rustls::crypto::{SecureRandom, aws_lc_rs};
use undermesh_telemetry::{Attribute, Event, SpanId, TraceId, TraceName, Traced};

use crate::balance;
pub(crate) use context::Context;
use incoming::Incoming;
pub use sampling::Sampling;
pub use tag::{CustomTag, TagError};

/// Attempts of one request that a span tells about.
const MAX_EVENTS: usize = 16;

/// Random bytes that are drawn at once.
const POOL: usize = 1024;

/// How requests are traced.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Which requests are recorded, of those that nobody has decided about.
    pub sampling: Sampling,
    /// Longest path, with its query, that is recorded, in bytes.
    pub max_path_length: usize,
    /// What spans say besides, as configuration wants it.
    pub tags: Vec<CustomTag>,
}

/// A request that is traced, from its head to its end.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Where it stands in its trace.
    pub(crate) context: Context,
    /// What a span of it will say, where one is made.
    recorded: Option<Box<Recorded>>,
}

#[derive(Debug)]
struct Recorded {
    began: SystemTime,
    started: Instant,
    /// What its head says, for configuration asks about it.
    tags: Vec<Attribute>,
    events: Vec<Event>,
}

impl Trace {
    /// Finds out which trace a request belongs to, and whether it is recorded.
    pub(crate) fn begin(tracing: &Tracing, headers: &HeaderMap) -> Self {
        let context = Context::begin(Incoming::read(headers), tracing.sampling);
        let recorded = context.is_recorded().then(|| {
            let tags = tracing.tags.iter().filter_map(|tag| tag.of(headers)).collect();
            let (began, started) = (SystemTime::now(), Instant::now());
            Box::new(Recorded { began, started, tags, events: Vec::new() })
        });
        Self { context, recorded }
    }

    /// What a span needs of it, where one is made.
    pub(crate) fn into_traced(
        self,
        tracing: &Tracing,
        operation: impl FnOnce() -> Option<String>,
    ) -> Option<Traced> {
        let Recorded { began, tags, events, .. } = *self.recorded?;
        Some(Traced {
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent: self.context.parent,
            state: self.context.state,
            start: began,
            operation: operation(),
            max_path_length: tracing.max_path_length,
            tags,
            events,
        })
    }

    /// Notes that something has happened, as far as there is room.
    pub(crate) fn event(
        &mut self,
        name: &'static str,
        attributes: impl FnOnce() -> Vec<Attribute>,
    ) {
        let Some(recorded) = self.recorded.as_mut() else { return };
        if recorded.events.len() < MAX_EVENTS {
            let time = recorded.began + recorded.started.elapsed();
            recorded.events.push(Event { time, name: name.into(), attributes: attributes() });
        }
    }
}

/// The trace that a request says it is part of, and whether it writes it with 16 digits only, so that what is logged is
/// found from there.
pub(crate) fn named(headers: &HeaderMap) -> Option<TraceName> {
    let incoming = Incoming::read(headers);
    incoming.ids.map(|(trace_id, _)| TraceName::new(trace_id, incoming.short))
}

/// Random bytes. Names of traces have to be unique across nodes, which the numbers that spread load are not.
fn random<const N: usize>() -> [u8; N] {
    thread_local! {
        static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; POOL], left: 0 }) };
    }
    DRAWN.with_borrow_mut(Drawn::take)
}

/// Random bytes that are there for the next names: to ask for a kilobyte takes little longer than to ask for eight
/// bytes.
struct Drawn {
    bytes: [u8; POOL],
    left: usize,
}

impl Drawn {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        static RANDOM: LazyLock<&'static dyn SecureRandom> =
            LazyLock::new(|| aws_lc_rs::default_provider().secure_random);
        if self.left < N {
            if RANDOM.fill(&mut self.bytes).is_err() {
                self.bytes.iter_mut().for_each(|byte| *byte = balance::random(256) as u8);
            }
            self.left = POOL;
        }
        let taken = self.left - N..self.left;
        self.left = taken.start;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[taken]);
        bytes
    }
}

fn new_trace_id() -> TraceId {
    loop {
        if let Some(id) = TraceId::new(random()) {
            return id;
        }
    }
}

fn new_span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(random()) {
            return id;
        }
    }
}

/// Reads headers as a peer may have written them, for fuzzing: whatever they are, what is passed on is well formed.
///
/// # Panics
/// Where it is not.
#[doc(hidden)]
pub fn read_trace_headers(headers: &HeaderMap) -> HeaderMap {
    let context = Context::begin(Incoming::read(headers), Sampling::default());
    let mut onward = headers.clone();
    context.write(&mut onward);
    onward
}

#[cfg(test)]
mod tests;
