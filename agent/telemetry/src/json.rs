//! JSON objects, written member by member into a text that is there already. A line of the access log is written for
//! every request: nothing of it is built before it is written.

use std::{
    fmt::{Display, Write as _},
    net::SocketAddr,
    time::Duration,
};

/// What makes the microseconds of a time the nearest ones.
const HALF: Duration = Duration::from_nanos(500);

/// Name of a member, as it stands before a text: `,"name":"`. It is written in one step, which a line does many times.
#[derive(Clone, Copy)]
pub(crate) struct Key(&'static str);

impl Key {
    /// Of what [`key`] makes.
    pub(crate) const fn new(written: &'static str) -> Self {
        Self(written)
    }
}

/// The [`Key`] of a name that needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::json::Key::new(concat!(",\"", $name, "\":\""))
    };
}
pub(crate) use key;

/// An object that is being written.
pub(crate) struct Object<'a>(&'a mut String);

impl<'a> Object<'a> {
    /// The members that come after what `text` holds: the beginning of an object, or nothing.
    pub(crate) fn within(text: &'a mut String) -> Self {
        Self(text)
    }

    /// A text of anybody's.
    pub(crate) fn text(&mut self, key: Key, value: &str) {
        if is_plain(value) {
            self.plain(key, value);
        } else {
            self.key(key);
            self.escaped(value);
        }
    }

    /// A text that needs no escapes.
    pub(crate) fn plain(&mut self, key: Key, value: &str) {
        self.begin(key);
        self.0.push_str(value);
        self.0.push('"');
    }

    /// A text of anybody's, left out where it is empty.
    pub(crate) fn filled(&mut self, key: Key, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// A text of anybody's, left out where there is none.
    pub(crate) fn known(&mut self, key: Key, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Something as it is displayed.
    pub(crate) fn shown(&mut self, key: Key, value: impl Display) {
        self.begin(key);
        let begin = self.0.len();
        // Nothing is written in vain to a string.
        let _ = write!(self.0, "{value}");
        if is_plain(&self.0[begin..]) {
            self.0.push('"');
        } else {
            let value = self.0.split_off(begin);
            self.0.truncate(begin - 1);
            self.escaped(&value);
        }
    }

    /// A text of several parts.
    pub(crate) fn joined(&mut self, key: Key, parts: &[&str]) {
        if parts.iter().all(|part| is_plain(part)) {
            self.begin(key);
            parts.iter().for_each(|part| self.0.push_str(part));
            self.0.push('"');
        } else {
            self.text(key, &parts.concat());
        }
    }

    /// An address with its port.
    pub(crate) fn address(&mut self, key: Key, address: SocketAddr) {
        let SocketAddr::V4(address) = address else { return self.shown(key, address) };
        let [mut buffer, mut port] = [itoa::Buffer::new(); 2];
        self.begin(key);
        for (octet, before) in address.ip().octets().into_iter().zip(["", ".", ".", "."]) {
            self.0.push_str(before);
            self.0.push_str(buffer.format(octet));
        }
        self.0.push(':');
        self.0.push_str(port.format(address.port()));
        self.0.push('"');
    }

    /// A number.
    pub(crate) fn number(&mut self, key: Key, value: u64) {
        self.key(key);
        self.digits(value);
    }

    /// A time in milliseconds, with up to three digits after the point, and one at least.
    pub(crate) fn milliseconds(&mut self, key: Key, time: Duration) {
        self.key(key);
        let micros = u64::try_from((time + HALF).as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1000);
        let thousandths = micros % 1000;
        let digits = [100, 10, 1].map(|unit| b'0' + (thousandths / unit % 10) as u8);
        let zeros = digits[1..].iter().rev().take_while(|digit| **digit == b'0').count();
        self.0.push('.');
        self.0.push_str(str::from_utf8(&digits[..3 - zeros]).unwrap_or_default());
    }

    /// Begins an object within this one; what is written next is part of it.
    pub(crate) fn open(&mut self, key: Key) {
        self.key(key);
        self.0.push('{');
    }

    /// Ends the object that was begun last.
    pub(crate) fn close(&mut self) {
        self.0.push('}');
    }

    /// Members that have been written before.
    pub(crate) fn members(&mut self, written: &str) {
        if !written.is_empty() {
            self.separate();
            self.0.push_str(written);
        }
    }

    /// What comes next, as it was written before.
    pub(crate) fn follow(&mut self, written: &str) {
        self.0.push_str(written);
    }

    /// How much is written.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn digits(&mut self, number: u64) {
        self.0.push_str(itoa::Buffer::new().format(number));
    }

    /// Writes the name, and what begins a text.
    fn begin(&mut self, Key(key): Key) {
        let skipped = usize::from(self.is_first());
        self.0.push_str(&key[skipped..]);
    }

    /// Writes the name before something else.
    fn key(&mut self, Key(key): Key) {
        let skipped = usize::from(self.is_first());
        self.0.push_str(&key[skipped..key.len() - 1]);
    }

    fn is_first(&self) -> bool {
        matches!(self.0.as_bytes().last(), None | Some(b'{'))
    }

    fn separate(&mut self) {
        if !self.is_first() {
            self.0.push(',');
        }
    }

    fn escaped(&mut self, value: &str) {
        // A text can always be written.
        self.0.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned()));
    }
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    // Without a way out in the middle, sixteen bytes are looked at in one step.
    !text.bytes().fold(false, |odd, byte| odd | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(write: impl FnOnce(&mut Object<'_>)) -> String {
        let mut text = "{".to_owned();
        write(&mut Object::within(&mut text));
        text + "}"
    }

    #[test]
    fn whatever_anybody_writes_is_read_again_as_it_was() {
        for value in ["", "plain", "a\"b", "\\", "line\nfeed", "\u{1}", "ä€", "{", "\u{7f}"] {
            let text = object(|it| {
                it.text(key!("text"), value);
                it.shown(key!("shown"), value);
                it.filled(key!("filled"), value);
            });
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&read["text"], &read["shown"]), (&json!(value), &json!(value)), "{text}");
            assert_eq!(read.get("filled").is_some(), !value.is_empty(), "{text}");
        }
    }

    #[test]
    fn parts_and_addresses_are_one_text() {
        for address in ["10.0.0.1:80", "255.255.255.255:65535", "[fd00::1]:80", "0.0.0.0:0"] {
            let text = object(|it| {
                it.joined(key!("parts"), &["a", "", "\"b"]);
                it.joined(key!("plain"), &["a", "b"]);
                it.address(key!("address"), address.parse().unwrap());
            });
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, json!({"parts": "a\"b", "plain": "ab", "address": address}));
        }
    }

    #[test]
    fn times_are_written_as_their_numbers_are() {
        for (micros, written) in [
            (0, "0.0"),
            (1, "0.001"),
            (20, "0.02"),
            (300, "0.3"),
            (7000, "7.0"),
            (12_345, "12.345"),
        ] {
            let text = object(|it| it.milliseconds(key!("t"), Duration::from_micros(micros)));
            assert_eq!(text, format!("{{\"t\":{written}}}"));
            assert_eq!(json!(micros as f64 / 1e3).to_string(), written);
        }
        let text = object(|it| it.milliseconds(key!("t"), Duration::from_nanos(1_999_999)));
        assert_eq!(text, "{\"t\":2.0}");
    }

    #[test]
    fn members_are_separated_wherever_they_come_from() {
        let text = object(|it| {
            it.members("");
            it.members("\"a\":1");
            it.open(key!("b"));
            it.members("\"c\":2");
            it.number(key!("d"), 3);
            it.close();
            it.open(key!("e"));
            it.close();
            it.members("\"f\":4");
        });
        assert_eq!(text, r#"{"a":1,"b":{"c":2,"d":3},"e":{},"f":4}"#);
    }
}
