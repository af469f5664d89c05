//! Secrets that may stand in what is collected: values of headers that routes set, tokens in paths and log lines, keys in
//! files. Better one word too many is taken out than one too few.

use regex::Regex;
use serde_json::Value;

/// What stands in place of a secret.
const REDACTED: &str = "(redacted)";

/// Parts of the names of fields, headers and parameters whose values are secrets.
const SECRET_NAMES: [&str; 14] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "api-key",
    "api_key",
    "private",
    "credential",
    "signature",
    "session",
];

/// What secrets look like in text, and what is put in their place; `NAME` is a word with one of [`SECRET_NAMES`] in it.
const RULES: [(&str, &str); 6] = [
    // A private key, whole, or up to where it has been cut off.
    (
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\z)",
        "(redacted)",
    ),
    // A JSON Web Token: parts of base64url, the first of which is an object.
    (r"eyJ[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{4,}(\.[A-Za-z0-9_-]*)?", "(redacted)"),
    // What follows a scheme of `Authorization` headers.
    (r"(?i)\b(bearer|basic|digest|negotiate)\s+[A-Za-z0-9._~+/=-]{8,}", "$1 (redacted)"),
    // `name="value"`, `"name": "value"`
    (r#"(?i)(NAME["']?\s*[=:]\s*["'])[^"']+"#, "$1(redacted)"),
    // `?name=value&`
    (r#"(?i)(NAME=)[^\s&;,"'}]+"#, "$1(redacted)"),
    // A password in an address.
    (r"(://)[^/\s@]+@", "$1(redacted)@"),
];

/// Takes secrets out.
pub(super) struct Redactor(Vec<(Regex, &'static str)>);

impl Redactor {
    /// # Errors
    /// Where a rule cannot be read, which a test would have found.
    pub(super) fn new() -> Result<Self, regex::Error> {
        let name = format!(r"[\w-]*(?:{})[\w-]*", SECRET_NAMES.join("|"));
        let rules =
            RULES.iter().map(|(form, with)| Ok((Regex::new(&form.replace("NAME", &name))?, *with)));
        Ok(Self(rules.collect::<Result<_, regex::Error>>()?))
    }

    /// Out of text. A line that is JSON is read as such: names tell more than forms.
    pub(super) fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let json = line.starts_with('{').then(|| serde_json::from_str::<Value>(line).ok());
            match json.flatten() {
                Some(mut value) => {
                    self.json(&mut value);
                    out += &format!("{value}\n");
                }
                None => out += line,
            }
        }
        self.forms(&out)
    }

    fn forms(&self, text: &str) -> String {
        let redact = |text: String, (form, with): &(Regex, &str)| {
            form.replace_all(&text, *with).into_owned()
        };
        self.0.iter().fold(text.to_owned(), redact)
    }

    /// Out of every string in a value, and whole strings where a name says that they are secret.
    pub(super) fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.forms(text),
            Value::Array(items) => {
                // A header as a pair of its name and its value.
                if let [Value::String(name), value @ Value::String(_)] = items.as_mut_slice()
                    && is_secret(name)
                {
                    *value = REDACTED.into();
                }
                items.iter_mut().for_each(|item| self.json(item));
            }
            Value::Object(fields) => {
                let named = ["name", "header", "key"]
                    .iter()
                    .any(|field| fields.get(*field).and_then(Value::as_str).is_some_and(is_secret));
                for (name, value) in fields.iter_mut() {
                    let is_value = matches!(name.as_str(), "value" | "values");
                    if is_secret(name) || (named && is_value) {
                        hide(value);
                    } else {
                        self.json(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Strings below a secret name; numbers and the like are sizes and counts.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => *text = REDACTED.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let redactor = Redactor::new().unwrap();
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
        for (text, expected) in [
            ("GET /a?token=abc&x=1 HTTP", "GET /a?token=(redacted)&x=1 HTTP"),
            ("authorization: Bearer abcdefgh1234, next", "authorization: Bearer (redacted), next"),
            (&format!("seen {jwt} here"), "seen (redacted) here"),
            (&format!("t={jwt}"), "t=(redacted)"),
            ("to https://u:p@host/x", "to https://(redacted)@host/x"),
            ("10.0.0.1:80 -> a/b denied by policy p", "10.0.0.1:80 -> a/b denied by policy p"),
            ("cannot read the token: no such file", "cannot read the token: no such file"),
            ("client_secret='x y' z", "client_secret='(redacted)' z"),
            (
                r#"{"level":"INFO","apiKey":"k","n":1}"#,
                "{\"apiKey\":\"(redacted)\",\"level\":\"INFO\",\"n\":1}\n",
            ),
        ] {
            assert_eq!(redactor.text(text), expected, "{text}");
        }
    }

    #[test]
    fn a_private_key_goes_as_a_whole() {
        let redactor = Redactor::new().unwrap();
        let text = "a\n-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb\n\
                    -----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        let redacted = redactor.text(text);
        assert!(!redacted.contains("MHc") && redacted.contains("MII"), "{redacted}");
        assert!(redacted.starts_with("a\n(redacted)\nb\n"), "{redacted}");
        let redacted = redactor.text("x -----BEGIN PRIVATE KEY-----\\nMHc is cut off");
        assert_eq!(redacted, "x (redacted)");
    }

    #[test]
    fn values_are_secret_where_their_names_are() {
        let mut value = json!({
            "requestSet": [["x-api-key", "k"], ["x-color", "blue"]],
            "headers": [{"name": "Cookie", "value": "a=b"}, {"name": "accept", "value": "*/*"}],
            "token": {"file": "/t", "attempts": 3},
            "passwordFile": "",
            "path": "/x?session=1&page=2",
        });
        Redactor::new().unwrap().json(&mut value);
        assert_eq!(
            value,
            json!({
                "requestSet": [["x-api-key", REDACTED], ["x-color", "blue"]],
                "headers": [{"name": "Cookie", "value": REDACTED}, {"name": "accept", "value": "*/*"}],
                "token": {"file": REDACTED, "attempts": 3},
                "passwordFile": "",
                "path": format!("/x?session={REDACTED}&page=2"),
            })
        );
    }
}
