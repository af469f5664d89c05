//! A line of the access log: what lines about connections and about requests have in common. Field names are API
//! (docs/reference/access-log.md).

use std::{cell::Cell, net::SocketAddr, sync::Arc};

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    RequestInfo,
    ends::Connection,
    json::{Object, key},
    request_line::{self, Same},
    told::{Carried, Told},
};

/// RFC 3339 in UTC, always with three digits of a second, so that lines sort as text.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// Length of such a text, in bytes, until the year 10000.
const LENGTH: usize = "2026-01-02T03:04:05.678Z".len();
/// Longest `detail`, in characters: parts of it come from peers.
pub(crate) const MAX_DETAIL: usize = 512;

/// Beginnings of lines that a writer of lines remembers. They are found by where their connections are kept, and two of
/// them push each other out: there is room for many times as many as there are connections at work.
const REMEMBERED: usize = 512;

/// Writes lines. Most connections have one thing to tell, or many.
#[derive(Debug)]
pub(crate) struct Lines(Vec<Option<Beginning>>);

/// What lines of a connection begin with that was led to one place: all from `connection` to `generation`.
#[derive(Debug)]
struct Beginning {
    connection: Arc<Connection>,
    place: Place,
    text: String,
}

/// Where it was led to, and the generation of the configuration by which.
type Place = (Option<SocketAddr>, u64);

impl Default for Lines {
    fn default() -> Self {
        Self(std::iter::repeat_with(|| None).take(REMEMBERED).collect())
    }
}

impl Lines {
    /// Appends the line of what has happened to a connection, so many milliseconds after 1970.
    pub(crate) fn write(
        &mut self,
        text: &mut String,
        at: u64,
        connection: &Arc<Connection>,
        told: &Told<'_>,
    ) {
        let (event, how, why) = match told {
            Told::Opened => ("open", None, None),
            Told::Denied(why) => ("denied", None, Some(why)),
            Told::Closed(how, why) => ("close", Some(how), Some(why)),
            Told::Request(request) => {
                return self.request(text, at, connection, request, &Same::of(request));
            }
        };
        let place = (connection.upstream(), connection.generation());
        let mut line = self.begin(text, at, event, connection, place);
        if let Some(how) = how {
            carried(&mut line, *how);
        }
        if let Some(why) = why {
            reason(&mut line, why.reason, why.flags);
            line.known(key!("detail"), why.detail);
        }
        line.close();
    }

    /// Appends the line of a request, so many milliseconds after 1970, given what it has in common with others.
    pub(crate) fn request(
        &mut self,
        text: &mut String,
        at: u64,
        connection: &Arc<Connection>,
        request: &RequestInfo<'_>,
        same: &Same,
    ) {
        let place = (request.endpoint.or(connection.upstream()), request.generation);
        let mut line = self.begin(text, at, "request", connection, place);
        request_line::write(&mut line, request, same);
        line.close();
    }

    /// What all lines begin with.
    fn begin<'a>(
        &mut self,
        text: &'a mut String,
        at: u64,
        event: &str,
        connection: &Arc<Connection>,
        place: Place,
    ) -> Object<'a> {
        text.push_str("{\"time\":\"");
        push_time(text, at);
        text.push('"');
        let mut line = Object::within(text);
        line.plain(key!("event"), event);
        line.members(self.beginning(connection, place));
        line
    }

    fn beginning(&mut self, connection: &Arc<Connection>, place: Place) -> &str {
        // What is kept is not another one's address meanwhile.
        let address = Arc::as_ptr(connection).addr();
        let slot = &mut self.0[address / size_of::<Connection>() % REMEMBERED];
        let is_it =
            |known: &Beginning| Arc::ptr_eq(&known.connection, connection) && known.place == place;
        if !slot.as_ref().is_some_and(is_it) {
            let text = slot.take().map(|other| other.text).unwrap_or_default();
            *slot = Some(Beginning::new(connection, place, text));
        }
        slot.as_ref().map_or("", |known| &known.text)
    }
}

impl Beginning {
    /// Written where another one was.
    fn new(connection: &Arc<Connection>, place: Place, mut text: String) -> Self {
        let (address, generation) = place;
        text.clear();
        let mut line = Object::within(&mut text);
        connection.write(&mut line, address);
        line.number(key!("generation"), generation);
        Self { connection: Arc::clone(connection), place, text }
    }
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
    line.number(key!("bytes_sent"), sent);
    line.number(key!("bytes_received"), received);
    line.milliseconds(key!("duration_ms"), duration);
}

pub(crate) fn reason(line: &mut Object<'_>, reason: &'static str, flags: &str) {
    line.text(key!("reason"), reason);
    line.text(key!("response_flags"), flags);
}

/// The first `most` characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most { text } else { cut_long(text, most) }
}

/// Hardly any text is as long: what it takes to cut it does not stand in the way of the others.
#[cold]
fn cut_long(text: &str, most: usize) -> &str {
    let end = text.char_indices().nth(most).map_or(text.len(), |(index, _)| index);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::format_description::well_known::Rfc3339;

    use super::*;
    use crate::told::{NANOS_PER_MILLI, now, samples};

    #[test]
    fn it_is_now_in_utc_and_to_the_millisecond() {
        let before = OffsetDateTime::now_utc();
        let mut text = String::new();
        push_time(&mut text, now() / NANOS_PER_MILLI);
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
    fn each_line_names_its_own_connection_whichever_are_remembered() {
        let connections: Vec<_> = (0..5 * REMEMBERED as u64)
            .map(|id| Arc::new(Connection::new(id, &samples::connection())))
            .collect();
        let mut lines = Lines::default();
        let several = connections.iter().flat_map(|it| [it, it, &connections[0]]);
        for (index, connection) in several.enumerate() {
            let mut line = String::new();
            lines.write(&mut line, 0, connection, &Told::Opened);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let own = if index % 3 == 2 { 0 } else { index / 3 };
            assert_eq!(line["connection"], own);
        }
    }

    #[test]
    fn each_line_says_where_its_own_request_was_led_to_and_by_what() {
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        let mut lines = Lines::default();
        for (port, generation) in [(80, 1), (80, 1), (81, 1), (81, 2), (80, 1)] {
            let endpoint = Some(([10, 0, 0, 1], port).into());
            let request = RequestInfo { endpoint, generation, ..RequestInfo::default() };
            let mut line = String::new();
            lines.write(&mut line, 0, &connection, &Told::Request(&request));
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["destination"]["address"], format!("10.0.0.1:{port}"));
            assert_eq!(line["generation"], generation);
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
