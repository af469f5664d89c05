//! How much of a body has passed: bytes, and the messages of gRPC.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use undermesh_telemetry::prometheus_client::metrics::counter::Counter;

use super::patient::Patient;
use crate::upstream::BodyError;

/// What precedes a message: whether it is compressed, and its length (gRPC over HTTP/2,
/// "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// What has passed of one body.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: u64,
    messages: Option<Messages>,
}

/// Finds messages in the bytes that pass.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// How much of it is there.
    filled: usize,
    /// How much of the message is still to come.
    left: usize,
    /// Messages that are counted nowhere yet.
    count: u64,
    into: Option<Counter>,
}

impl Meter {
    /// The body consists of messages.
    pub(crate) fn expect_messages(&mut self) {
        self.messages = Some(Messages::default());
    }

    /// Messages count there, also those that have passed already.
    pub(crate) fn count_messages(&mut self, into: Counter) {
        if let Some(messages) = &mut self.messages {
            messages.into = Some(into);
            messages.flush();
        }
    }

    /// A part of the body passes.
    pub(crate) fn see(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        self.bytes += data.len() as u64;
        if let Some(messages) = &mut self.messages {
            messages.see(data);
        }
    }

    /// So many bytes have passed that nobody has looked at.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Bytes that have passed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Messages {
    fn see(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            let taken = (PREFIX - self.filled).min(data.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&data[..taken]);
            self.filled += taken;
            data = &data[taken..];
            if self.filled == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.filled = 0;
                self.count += 1;
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(into) = &self.into {
            into.inc_by(std::mem::take(&mut self.count));
        }
    }
}

/// The meter of a request's body, which passes where nobody knows of the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upload(Arc<Mutex<Meter>>);

impl Upload {
    /// As [`Meter::expect_messages`].
    pub(crate) fn expect_messages(&self) {
        self.lock().expect_messages();
    }

    /// As [`Meter::count_messages`].
    pub(crate) fn count_messages(&self, into: Counter) {
        self.lock().count_messages(into);
    }

    /// As [`Meter::see`].
    pub(crate) fn see(&self, frame: &Frame<Bytes>) {
        self.lock().see(frame);
    }

    /// As [`Meter::add`].
    pub(crate) fn add(&self, bytes: u64) {
        self.lock().add(bytes);
    }

    /// Bytes that have passed.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body that is measured as it passes.
pub(crate) struct Metered {
    body: Patient,
    upload: Upload,
}

impl Metered {
    pub(crate) fn new(body: Patient, upload: &Upload) -> Self {
        Self { body, upload: upload.clone() }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.upload.see(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut_up() {
        // Of three bytes, of none, and of two.
        let body = [0, 0, 0, 0, 3, 1, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2];
        for size in 1..=body.len() {
            let mut meter = Meter::default();
            meter.expect_messages();
            let counter = Counter::default();
            for (number, part) in body.chunks(size).enumerate() {
                meter.see(&Frame::data(Bytes::copy_from_slice(part)));
                if number == 1 {
                    meter.count_messages(counter.clone());
                }
            }
            meter.count_messages(counter.clone());
            assert_eq!((counter.get(), meter.bytes()), (3, 20), "in parts of {size}");
        }
    }

    proptest! {
        #[test]
        fn the_count_does_not_depend_on_how_bytes_arrive(
            bytes in prop::collection::vec(prop_oneof![Just(0), 0..4_u8, any::<u8>()], 0..200),
            size in 1..50_usize,
        ) {
            let count = |size: usize| {
                let mut messages = Messages::default();
                bytes.chunks(size).for_each(|part| messages.see(part));
                messages.count
            };
            prop_assert_eq!(count(size), count(200));
        }
    }

    #[test]
    fn a_length_that_is_none_counts_as_one_message() {
        let mut meter = Meter::default();
        meter.expect_messages();
        meter.see(&Frame::data(Bytes::from_static(&[0xff; 4096])));
        let counter = Counter::default();
        meter.count_messages(counter.clone());
        assert_eq!(counter.get(), 1);
    }
}
