//! A record as the journal keeps it: numbers in their places, and texts one after the other in a text that its
//! neighbours share. Who serves a request only puts it down so; it becomes a line when somebody reads it.

use std::{sync::Arc, time::Duration};

use crate::{
    RequestInfo, TraceName,
    alike::{Alike, Written},
    ends::Connection,
    line::{Lines, MAX_DETAIL, cut},
    request_line::{MAX_TEXT, push_path_as_logged},
    texts::{Length, Pack, Unpack},
    told::{Carried, NANOS_PER_MILLI, Told, Why},
};

/// A record, without its texts.
#[derive(Debug)]
pub(crate) struct Packed {
    connection: Arc<Connection>,
    /// When: nanoseconds since 1970.
    at: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Opened,
    Denied(End),
    Closed(Carried, End),
    Request(Request),
}

#[derive(Debug)]
struct End {
    reason: &'static str,
    flags: &'static str,
    detail: Option<Length>,
}

/// What is a request's own of [`RequestInfo`], its texts in the order of these fields.
#[derive(Debug)]
struct Request {
    /// The number of those that are like it.
    alike: u16,
    path: Length,
    detail: Option<Length>,
    request_id: Option<Length>,
    trace_id: Option<TraceName>,
    received: u64,
    sent: u64,
    duration: Duration,
    upstream_time: Option<Duration>,
}

impl Packed {
    /// Something that has happened to this connection; its texts are appended to `texts`, but for what is to be found
    /// under `alike`.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        at: u64,
        told: &Told<'_>,
        texts: &mut String,
        alike: &mut Alike,
    ) -> Self {
        let mut texts = Pack(texts);
        let what = match told {
            Told::Opened => What::Opened,
            Told::Denied(why) => What::Denied(texts.end(why)),
            Told::Closed(carried, why) => What::Closed(*carried, texts.end(why)),
            Told::Request(request) => What::Request(texts.request(request, alike)),
        };
        Self { connection: Arc::clone(connection), at, what }
    }

    /// When: nanoseconds since 1970.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// What it was put down with is another one from now on.
    pub(crate) fn change_alike(&mut self, from: &Alike, to: &mut Alike) {
        if let What::Request(request) = &mut self.what {
            request.alike = to.number(&from.get(request.alike));
        }
    }

    /// Writes its line, given its texts and what it was put down with.
    pub(crate) fn write(
        &self,
        texts: &str,
        alike: &mut Written<'_>,
        lines: &mut Lines,
        text: &mut String,
    ) {
        let Self { connection, at, what } = self;
        let at = at / NANOS_PER_MILLI;
        let mut texts = Unpack(texts);
        let mut write = |told: &Told<'_>| lines.write(text, at, connection, told);
        match what {
            What::Opened => write(&Told::Opened),
            What::Denied(end) => write(&Told::Denied(texts.why(end))),
            What::Closed(carried, end) => write(&Told::Closed(*carried, texts.why(end))),
            What::Request(request) => {
                let (common, same) = alike.get(request.alike);
                lines.request(text, at, connection, &texts.request(request, common), same);
            }
        }
    }
}

/// What clients have written is shortened, and goes without values that are nobody's business.
impl Pack<'_> {
    fn request(&mut self, request: &RequestInfo<'_>, alike: &mut Alike) -> Request {
        Request {
            alike: alike.number(request),
            path: self.path(request.path),
            detail: request.detail.map(|detail| self.detail(detail)),
            request_id: request.request_id.map(|id| self.words(id)),
            trace_id: request.trace_id,
            received: request.received,
            sent: request.sent,
            duration: request.duration,
            upstream_time: request.upstream_time,
        }
    }

    fn path(&mut self, path: &str) -> Length {
        let Self(texts) = self;
        let begin = texts.len();
        push_path_as_logged(texts, path);
        // No longer than a thousand characters.
        (texts.len() - begin) as Length
    }

    fn end(&mut self, Why { reason, flags, detail }: &Why<'_>) -> End {
        End { reason, flags, detail: detail.map(|detail| self.detail(detail)) }
    }

    fn detail(&mut self, detail: &str) -> Length {
        self.text(cut(detail, MAX_DETAIL))
    }

    fn words(&mut self, words: &str) -> Length {
        self.text(cut(words, MAX_TEXT))
    }
}

impl<'a> Unpack<'a> {
    fn request(&mut self, request: &Request, common: RequestInfo<'a>) -> RequestInfo<'a> {
        RequestInfo {
            path: self.text(request.path),
            detail: self.known(request.detail),
            request_id: self.known(request.request_id),
            trace_id: request.trace_id,
            received: request.received,
            sent: request.sent,
            duration: request.duration,
            upstream_time: request.upstream_time,
            ..common
        }
    }

    fn why(&mut self, end: &End) -> Why<'a> {
        Why { reason: end.reason, flags: end.flags, detail: self.known(end.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::samples;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let mut alike = Alike::default();
        for request in [samples::request(), RequestInfo::default()] {
            let mut texts = "of another".to_owned();
            let begin = texts.len();
            let packed = Pack(&mut texts).request(&request, &mut alike);
            let mut unpack = Unpack(&texts[begin..]);
            assert_eq!(unpack.request(&packed, alike.get(packed.alike)), request);
            assert_eq!(unpack.0, "");
        }
    }
}
