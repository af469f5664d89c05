//! A line of the access log: what lines about connections and about requests have in common. Field names are API
//! (docs/reference/access-log.md).

use std::{
    cell::Cell,
    fmt::Display,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{ConnectionInfo, Peer, json::Object};

/// RFC 3339 in UTC, always with three digits of a second, so that lines sort as text.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// Length of such a text, in bytes, until the year 10000.
const LENGTH: usize = "2026-01-02T03:04:05.678Z".len();
/// Longest `detail`, in characters: parts of it come from peers.
const MAX_DETAIL: usize = 512;

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

    /// The beginning of a line about something that has just happened, at a destination's address where it has one.
    pub(crate) fn begin<'a>(
        &self,
        text: &'a mut String,
        event: &'static str,
        address: Option<SocketAddr>,
    ) -> Object<'a> {
        text.push_str("{\"time\":\"");
        push_now(text);
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

/// Appends the time. What is told within one second shares its text, all but three digits.
fn push_now(text: &mut String) {
    thread_local! {
        static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b'?'; LENGTH])) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut written) = LAST.get();
    if second != now.as_secs() {
        written = written_second(now.as_secs()).unwrap_or([b'?'; LENGTH]);
        LAST.set((now.as_secs(), written));
    }
    let millis = now.subsec_millis();
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

/// How something has gone on until it ended, in bytes and time.
pub(crate) fn carried(line: &mut Object<'_>, sent: u64, received: u64, duration: Duration) {
    line.number("bytes_sent", sent);
    line.number("bytes_received", received);
    line.milliseconds("duration_ms", duration);
}

/// Why it has ended.
pub(crate) fn because(
    line: &mut Object<'_>,
    reason: &'static str,
    flags: impl Display,
    detail: Option<&str>,
) {
    line.text("reason", reason);
    line.shown("response_flags", flags);
    if let Some(detail) = detail {
        line.text("detail", cut(detail, MAX_DETAIL));
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
    use time::format_description::well_known::Rfc3339;

    use super::*;

    #[test]
    fn it_is_now_in_utc_and_to_the_millisecond() {
        let mut text = String::new();
        let before = OffsetDateTime::now_utc();
        push_now(&mut text);
        let after = OffsetDateTime::now_utc();
        assert_eq!(text.len(), LENGTH);
        let written = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
        assert!(before - time::Duration::milliseconds(1) <= written && written <= after, "{text}");
        assert_eq!(written_second(1_767_323_045).as_ref(), Some(b"2026-01-02T03:04:05.000Z"));
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
