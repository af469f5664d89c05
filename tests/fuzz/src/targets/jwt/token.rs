//! Tokens that are signed here, and then perhaps changed.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use undermesh_model::{JwtRule, TokenLocation};

use crate::source::Source;

/// Signs.
const SECRET: &[u8] = b"a secret of thirty-two octets...";
/// Is not in the set.
const OTHER: &[u8] = b"another one that nobody knows...";
/// The secret; and the point of P-256 that everybody knows, as somebody's public key.
pub(super) const KEYS: &str = r#"{"keys":[
{"kty":"oct","kid":"one","alg":"HS256","k":"YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBvY3RldHMuLi4"},
{"kty":"EC","kid":"two","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"},
{"kty":"oct","use":"enc","kid":"three","alg":"RSA-OAEP","k":"YW5vdGhlciBvbmUgdGhhdCBub2JvZHkga25vd3MuLi4"}
]}"#;
/// What the public key is, as octets that somebody may try to sign with.
const PUBLIC: &[u8] = b"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY";

/// A token as a client sends it.
pub(super) struct Made {
    pub(super) text: String,
    pub(super) claims: Map<String, Value>,
    /// As it was signed with the secret; nothing for one that was signed with something else.
    signed: Option<String>,
}

/// Whether a token says what a rule wants.
#[derive(PartialEq, Eq)]
pub(super) enum Meant {
    Yes,
    No,
    /// Claims that are no such claims.
    Unclear,
}

impl Made {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let claims = claims(source);
        let mut header = Header::new(Algorithm::HS256);
        header.kid = source
            .pick(&[Some("one"), None, Some("two"), Some("four"), Some("three")])
            .map(str::to_owned);
        let named = matches!(header.kid.as_deref(), Some("one") | None);
        let secret = match source.below(6) {
            4 => OTHER,
            5 => PUBLIC,
            _ => SECRET,
        };
        let key = EncodingKey::from_secret(secret);
        let text = encode(&header, &claims, &key).expect("a token");
        let signed = (secret == SECRET && named).then(|| text.clone());
        let text = changed(source, text);
        Self { text, claims, signed }
    }

    /// Whether what stands at a place of a request is what was signed, byte by byte.
    pub(super) fn is_signed_here(&self, place: &TokenLocation) -> bool {
        let Some(signed) = &self.signed else { return false };
        let ends: &[char] = match place {
            TokenLocation::Header(..) => &[',', ' '],
            TokenLocation::Parameter(_) => &['&', '#'],
            TokenLocation::Cookie(_) => &[';'],
        };
        let mut parts = self.text.trim().split(ends).map(str::trim);
        let text = match place {
            // Of a header without a prefix, whatever is in the list is a token.
            TokenLocation::Header(_, prefix) if prefix.is_empty() => {
                parts.find(|part| !part.is_empty())
            }
            _ => parts.next(),
        };
        let text = text.unwrap_or_default();
        // The one encoding that mutations know.
        let plain = text.replace("%2e", ".").replace("%2E", ".");
        text == signed || (matches!(place, TokenLocation::Parameter(_)) && plain == *signed)
    }

    /// Its claims as they were signed.
    pub(super) fn payload(&self) -> &str {
        self.signed.as_deref().and_then(|signed| signed.split('.').nth(1)).unwrap_or_default()
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.signed.as_deref() == Some(self.text.as_str())
    }

    pub(super) fn meant(&self, rule: &JwtRule) -> Meant {
        let time = |name: &str| match self.claims.get(name) {
            None => Some(None),
            Some(value) => value.as_u64().map(Some),
        };
        let (Some(expires), Some(begins)) = (time("exp"), time("nbf")) else { return Meant::No };
        if self.claims.get("sub").is_some_and(Value::is_object) {
            return Meant::Unclear;
        }
        let issuer = match self.claims.get("iss") {
            Some(Value::String(text)) => text,
            None => "",
            _ => return Meant::Unclear,
        };
        let audience = match self.claims.get("aud") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            None => Vec::new(),
            _ => return Meant::Unclear,
        };
        let in_time = expires.is_none_or(|at| at > 1 << 33) && begins.is_none_or(|at| at < 1 << 20);
        let of_issuer = rule.issuer.is_empty() || rule.issuer == issuer;
        let for_here =
            rule.audiences.is_empty() || rule.audiences.iter().any(|one| audience.contains(one));
        if in_time && of_issuer && for_here { Meant::Yes } else { Meant::No }
    }
}

fn claims(source: &mut Source<'_>) -> Map<String, Value> {
    let pairs = [
        ("iss", source.pick(&[0, 0, 1, 2, 3, 4])),
        ("aud", 10 + source.pick(&[0, 0, 1, 2, 3])),
        ("exp", 20 + source.pick(&[0, 0, 1, 2, 3, 4, 5])),
        ("nbf", 30 + source.pick(&[0, 0, 1, 2])),
        ("sub", 40 + source.pick(&[0, 1, 2, 3, 4])),
    ];
    let mut claims = Map::new();
    claims.insert("scope".to_owned(), json!("read  write"));
    for (name, kind) in pairs {
        let value = match kind {
            0 => json!("issuer"),
            1 => json!("other"),
            2 => json!(["issuer"]),
            3 => json!(7),
            10 => json!("shop"),
            11 => json!(["x", "shop"]),
            12 => json!(["x", 3]),
            20 => json!(1_u64 << 40),
            21 => json!(1),
            22 => json!("4102444800"),
            23 => json!(-1),
            24 => json!(1e30),
            30 => json!(1),
            31 => json!(1_u64 << 40),
            40 => json!("somebody"),
            41 => json!(5),
            42 => json!(true),
            43 => json!({"a": "b"}),
            _ => continue,
        };
        claims.insert(name.to_owned(), value);
    }
    claims
}

/// What somebody on the way may have made of it.
fn changed(source: &mut Source<'_>, token: String) -> String {
    let mut bytes = token.into_bytes();
    let changes = source.below(4);
    for _ in 0..changes {
        let at = usize::from(source.word()) % (bytes.len() + 1);
        let with = source.byte();
        match source.below(8) {
            0 => drop(bytes.get_mut(at).map(|byte| *byte = with)),
            1 => bytes.insert(at, with),
            2 => drop((at < bytes.len()).then(|| bytes.remove(at))),
            3 => bytes.truncate(at),
            4 => drop(bytes.get_mut(at).map(|byte| *byte ^= 1 << (with & 7))),
            5 => bytes.extend_from_slice(source.raw(8)),
            6 => bytes = with_header(&bytes, with),
            // Bits that the encoding does not use.
            _ => drop(bytes.last_mut().map(|byte| *byte = byte.wrapping_add(1))),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The same claims and signature under another header.
fn with_header(token: &[u8], kind: u8) -> Vec<u8> {
    let headers = [
        // {"alg":"none"}, {"alg":"HS384"}, {"alg":"ES256","kid":"two"}, {"alg":"HS256","kid":"two"}, {}
        &b"eyJhbGciOiJub25lIn0"[..],
        b"eyJhbGciOiJIUzM4NCJ9",
        b"eyJhbGciOiJFUzI1NiIsImtpZCI6InR3byJ9",
        b"eyJhbGciOiJIUzI1NiIsImtpZCI6InR3byJ9",
        b"e30",
    ];
    let header = headers[usize::from(kind) % headers.len()];
    let rest = token.iter().position(|byte| *byte == b'.').map_or(&[][..], |at| &token[at..]);
    [header, rest].concat()
}
