//! What an answer means to a reader of Envoy's definitions and of docs/reference/policy.md.

use std::collections::BTreeMap;

use super::protobuf::{Value, fields};

/// What is about a connection or a message's framing, names the host, or is for the proxy alone to say.
pub(super) const FIXED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "x-forwarded-client-cert",
    "x-envoy-auth-partial-body",
];
/// Headers that one answer may change, of each kind.
const MOST: usize = 128;

/// Headers by name, values of each in their order.
pub(super) type Headers = BTreeMap<String, Vec<Vec<u8>>>;

/// What becomes of a header that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Set,
    Append,
    IfAbsent,
    IfPresent,
}

/// A header, as an answer has it.
pub(super) type Change = (String, Vec<u8>, How);

/// What an answer means.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    /// The status for the client, if the request is refused.
    pub(super) refused: Option<u16>,
    pub(super) body: Vec<u8>,
    pub(super) remove: Vec<String>,
    /// Of the request; or of the refusal.
    pub(super) headers: Vec<Change>,
    pub(super) answer: Vec<Change>,
    pub(super) query_remove: Vec<String>,
    pub(super) query_set: Vec<(String, String)>,
}

impl Meaning {
    /// Reads the body of an answer over gRPC; `None` if it cannot be used.
    pub(super) fn of_grpc(content: &[u8]) -> Option<Self> {
        let (prefix, message) = content.split_at_checked(5)?;
        let [0, length @ ..] = prefix else { return None };
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if length != message.len() {
            return None;
        }
        let (mut code, mut http_code) = (0, 0);
        let (mut refusal, mut consent) = (None, None);
        for (number, value) in fields(message, 0)? {
            match number {
                1 => {
                    for (number, value) in fields(value.bytes()?, 1)? {
                        match number {
                            1 => code = value.number()? as i32,
                            2 => drop(value.text()?),
                            _ => {}
                        }
                    }
                }
                2 => {
                    let refusal = refusal.get_or_insert_with(Self::default);
                    for (number, value) in fields(value.bytes()?, 1)? {
                        match number {
                            1 => {
                                for (number, value) in fields(value.bytes()?, 2)? {
                                    if number == 1 {
                                        http_code = value.number()? as i32;
                                    }
                                }
                            }
                            2 => refusal.headers.extend(option(value, false)?),
                            3 => refusal.body = value.bytes()?.to_vec(),
                            _ => {}
                        }
                    }
                }
                3 => consented(consent.get_or_insert_with(Self::default), value)?,
                _ => {}
            }
        }
        if code == 0 {
            return if refusal.is_some() { None } else { consent.unwrap_or_default().checked() };
        }
        let status = u16::try_from(http_code).ok().filter(|code| (200..600).contains(code));
        let refusal = refusal.unwrap_or_default();
        Self { refused: Some(status.unwrap_or(403)), ..refusal }.checked()
    }

    /// The same for one over HTTP that is neither a failure nor unusable.
    pub(super) fn of_http(
        status: u16,
        headers: &Headers,
        body: &[u8],
        wants: impl Fn(&str, bool) -> bool,
    ) -> Option<Self> {
        const REMOVE: &str = "x-envoy-auth-headers-to-remove";
        let all = |name: &str| headers.get(name).into_iter().flatten();
        let words = |name: &str| {
            let texts = all(name).filter_map(|value| visible(value));
            let words = texts.flat_map(|text| text.split(',').map(|word| word.trim().to_owned()));
            words.collect::<Vec<String>>()
        };
        let hops: Vec<String> =
            words("connection").iter().map(|word| word.to_ascii_lowercase()).collect();
        let chosen = |of_answer: bool| {
            let own = headers.iter().filter(|(name, _)| {
                !hops.contains(name) && *name != REMOVE && wants(name, of_answer)
            });
            let each = own.flat_map(|(name, values)| {
                values.iter().enumerate().map(|(number, value)| {
                    let how = if number == 0 { How::Set } else { How::Append };
                    (name.clone(), value.clone(), how)
                })
            });
            each.collect::<Vec<Change>>()
        };
        let passes = status == 200;
        Self {
            refused: (!passes).then_some(status),
            body: body.to_vec(),
            remove: if passes { words(REMOVE) } else { Vec::new() },
            headers: chosen(false),
            answer: if passes { chosen(true) } else { Vec::new() },
            ..Self::default()
        }
        .checked()
    }

    /// Without what an answer may not change; `None` if it cannot be used.
    fn checked(mut self) -> Option<Self> {
        self.headers = changes(self.headers)?;
        self.answer = changes(self.answer)?;
        let mut remove = Vec::new();
        for name in self.remove {
            let name = name.trim();
            if name.is_empty() || name.starts_with(':') {
                continue;
            }
            if !is_name(name) || remove.len() >= MOST {
                return None;
            }
            let name = name.to_ascii_lowercase();
            remove.extend(Some(name).filter(|name| !FIXED.contains(&name.as_str())));
        }
        self.remove = remove;
        Some(self)
    }

    /// The request's headers as they pass.
    pub(super) fn request(&self, mut headers: Headers) -> Headers {
        for name in &self.remove {
            headers.remove(name);
        }
        apply(&self.headers, headers)
    }

    /// The request's query as it passes; `None` for none.
    pub(super) fn query(&self, old: Option<&str>) -> Option<String> {
        if self.query_remove.is_empty() && self.query_set.is_empty() {
            return old.map(str::to_owned);
        }
        let is_gone = |name: &str| {
            let set = self.query_set.iter().any(|(set, _)| set == name);
            set || self.query_remove.iter().any(|removed| removed == name)
        };
        let mut pairs = Vec::new();
        for pair in old.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !is_gone(name) {
                pairs.push(pair.to_owned());
            }
        }
        for (name, value) in &self.query_set {
            pairs.push(format!("{}={}", escaped(name), escaped(value)));
        }
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }
}

/// Changes made to headers.
pub(super) fn apply(changes: &[Change], mut headers: Headers) -> Headers {
    for (name, value, how) in changes {
        let there = headers.contains_key(name);
        match (how, there) {
            (How::IfAbsent, true) | (How::IfPresent, false) => {}
            (How::Append, _) => headers.entry(name.clone()).or_default().push(value.clone()),
            _ => drop(headers.insert(name.clone(), vec![value.clone()])),
        }
    }
    headers
}

fn consented(consent: &mut Meaning, value: Value<'_>) -> Option<()> {
    for (number, value) in fields(value.bytes()?, 1)? {
        match number {
            2 => consent.headers.extend(option(value, false)?),
            5 => consent.remove.push(value.text()?.to_owned()),
            6 => consent.answer.extend(option(value, true)?),
            7 => {
                let (mut key, mut text) = ("", "");
                for (number, value) in fields(value.bytes()?, 2)? {
                    match number {
                        1 => key = value.text()?,
                        2 => text = value.text()?,
                        _ => {}
                    }
                }
                consent.query_set.push((key.to_owned(), text.to_owned()));
            }
            8 => consent.query_remove.push(value.text()?.to_owned()),
            _ => {}
        }
    }
    Some(())
}

/// A `HeaderValueOption`; nothing for one without a header. `Some(None)` where there is nothing, `None` for what is
/// no message.
fn option(value: Value<'_>, of_answer: bool) -> Option<Option<Change>> {
    let (mut header, mut append, mut action) = (None, None, 0);
    for (number, value) in fields(value.bytes()?, 2)? {
        match number {
            1 => {
                let (key, text, raw) = header.get_or_insert_with(|| ("", &b""[..], &b""[..]));
                for (number, value) in fields(value.bytes()?, 3)? {
                    match number {
                        1 => *key = value.text()?,
                        2 => *text = value.bytes()?,
                        3 => *raw = value.bytes()?,
                        _ => {}
                    }
                }
            }
            2 => {
                let append = append.get_or_insert(false);
                for (number, value) in fields(value.bytes()?, 3)? {
                    if number == 1 {
                        *append = value.number()? != 0;
                    }
                }
            }
            3 => action = value.number()? as i32,
            _ => {}
        }
    }
    let how = match (append, action) {
        (Some(true), _) => How::Append,
        (None, 0) if of_answer => How::Append,
        (None, 1) if of_answer => How::IfAbsent,
        (None, 3) if of_answer => How::IfPresent,
        _ => How::Set,
    };
    Some(header.map(|(key, text, raw)| {
        let value = if text.is_empty() { raw } else { text };
        (key.to_owned(), value.to_vec(), how)
    }))
}

fn changes(list: Vec<Change>) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for (name, value, how) in list {
        if name.starts_with(':') {
            continue;
        }
        let is_value = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
        if !is_name(&name) || !value.iter().all(is_value) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        if !FIXED.contains(&name.as_str()) {
            changes.push((name, value, how));
        }
    }
    (changes.len() <= MOST).then_some(changes)
}

/// RFC 9110, section 5.6.2.
fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |byte: &u8| *byte == b'\t' || (0x20..0x7f).contains(byte);
    value.iter().all(is_visible).then(|| str::from_utf8(value).ok()).flatten()
}

/// RFC 3986, section 2.3.
fn escaped(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}
