//! A line of the access log: what lines about connections and about requests have in common. Field names are API
//! (docs/reference/access-log.md).

use std::{cell::Cell, fmt::Display, net::SocketAddr};

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    ConnectionInfo, Peer,
    json::Object,
    request_line,
    told::{Carried, Connection, Told, Why},
};

/// RFC 3339 in UTC, always with three digits of a second, so that lines sort as text.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// Length of such a text, in bytes, until the year 10000.
const LENGTH: usize = "2026-01-02T03:04:05.678Z".len();
/// Longest `detail`, in characters: parts of it come from peers.
pub(crate) const MAX_DETAIL: usize = 512;

/// What all lines about one connection say, as they say it.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Members of the line, up to those of the destination; those, without its address; and those that follow.
    text: Box<str>,
    destination: usize,
    rest: usize,
}

impl Ends {
    pub(crate) fn new(connection: u64, info: &ConnectionInfo) -> Self {
        let mut text = String::with_capacity(640);
        let mut line = Object::within(&mut text);
        line.number("connection", connection);
        line.text("reporter", info.reporter.as_str());
        line.open("source");
        line.address("address", info.source_addr);
        peer(&mut line, &info.source);
        line.close();
        line.open("destination");
        let destination = line.len();
        peer(&mut line, &info.destination);
        let rest = line.len();
        line.close();
        if let Some(service) = &info.service {
            line.text("service", &service.host);
        }
        if let Some(dialled) = info.dialled {
            line.address("dialled", dialled);
        }
        line.text("transport", info.transport.as_str());
        line.text("security", info.security.as_str());
        Self { text: text.into(), destination, rest }
    }

    /// The beginning of a line about something that happened then, at a destination's address where it has one.
    fn begin<'a>(
        &self,
        text: &'a mut String,
        at: u64,
        event: &'static str,
        address: Option<SocketAddr>,
    ) -> Object<'a> {
        text.push_str("{\"time\":\"");
        push_time(text, at);
        text.push('"');
        let mut line = Object::within(text);
        line.text("event", event);
        line.members(&self.text[..self.destination]);
        if let Some(address) = address {
            line.address("address", address);
        }
        line.members(&self.text[self.destination..self.rest]);
        line.follow(&self.text[self.rest..]);
        line
    }
}

fn peer(end: &mut Object<'_>, peer: &Peer) {
    end.filled("workload", &peer.workload);
    end.filled("pod", &peer.pod);
    end.filled("namespace", &peer.namespace);
    if let Some(identity) = &peer.principal {
        end.shown("identity", identity);
    }
}

/// Appends the line of what has happened to a connection, so many milliseconds after 1970.
pub(crate) fn write(text: &mut String, at: u64, connection: &Connection, told: &Told<'_>) {
    let info = connection.info();
    let (event, address) = match told {
        Told::Opened => ("open", info.upstream),
        Told::Denied(_) => ("denied", info.upstream),
        Told::Closed(..) => ("close", info.upstream),
        Told::Request(request) => ("request", request.endpoint.or(info.upstream)),
    };
    let mut line = connection.ends().begin(text, at, event, address);
    let generation = match told {
        Told::Request(request) => request.generation,
        _ => info.generation,
    };
    line.number("generation", generation);
    match *told {
        Told::Opened => {}
        Told::Denied(Why { reason, flags, detail }) => because(&mut line, reason, flags, detail),
        Told::Closed(how, Why { reason, flags, detail }) => {
            carried(&mut line, how);
            because(&mut line, reason, flags, detail);
        }
        Told::Request(request) => request_line::write(&mut line, request),
    }
    line.close();
}

/// Appends a time. What is told within one second shares its text, all but three digits.
fn push_time(text: &mut String, at: u64) {
    thread_local! {
        static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b'?'; LENGTH])) };
    }
    let (wanted, millis) = (at / 1000, at % 1000);
    let (second, mut written) = LAST.get();
    if second != wanted {
        written = written_second(wanted).unwrap_or([b'?'; LENGTH]);
        LAST.set((wanted, written));
    }
    for (digit, unit) in written[LENGTH - 4..].iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + (millis / unit % 10) as u8;
    }
    text.push_str(str::from_utf8(&written).unwrap_or_default());
}

/// Nothing before 1970 and after 9999.
fn written_second(second: u64) -> Option<[u8; LENGTH]> {
    let second = OffsetDateTime::from_unix_timestamp(second.try_into().ok()?).ok()?;
    second.format(TIME).ok()?.into_bytes().try_into().ok()
}

pub(crate) fn carried(line: &mut Object<'_>, Carried { sent, received, duration }: Carried) {
    line.number("bytes_sent", sent);
    line.number("bytes_received", received);
    line.milliseconds("duration_ms", duration);
}

pub(crate) fn because(
    line: &mut Object<'_>,
    reason: &'static str,
    flags: impl Display,
    detail: Option<&str>,
) {
    line.text("reason", reason);
    line.shown("response_flags", flags);
    if let Some(detail) = detail {
        line.text("detail", detail);
    }
}

/// The first `most` characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = text.char_indices().nth(most).map_or(text.len(), |(index, _)| index);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::format_description::well_known::Rfc3339;

    use super::*;
    use crate::told::now;

    #[test]
    fn it_is_now_in_utc_and_to_the_millisecond() {
        let before = OffsetDateTime::now_utc();
        let mut text = String::new();
        push_time(&mut text, now());
        let after = OffsetDateTime::now_utc();
        assert_eq!(text.len(), LENGTH);
        let written = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
        assert!(before - Duration::from_millis(1) <= written && written <= after, "{text}");
    }

    #[test]
    fn every_time_is_written_as_it_is_whatever_was_written_before() {
        for (at, written) in [
            (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
            (1_767_323_045_009, "2026-01-02T03:04:05.009Z"),
            (0, "1970-01-01T00:00:00.000Z"),
            (u64::MAX, "?"),
        ] {
            let mut text = String::new();
            push_time(&mut text, at);
            assert!(text.starts_with(written), "{text}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, most, left) in
            [("abc", 3, "abc"), ("abc", 2, "ab"), ("äöü", 2, "äö"), ("äö", 3, "äö")]
        {
            assert_eq!(cut(text, most), left);
        }
    }
}
