//! Step *readings*: the ways in which a server may read a request's path.
//!
//! Istio compares a path after one normalisation, and an application that reads it in another way can be
//! tricked: `/public/%2e%2e/admin`, `//admin`, `/admin;x`. Here a path is passed on in Istio's default
//! form (`BASE`), and policies are asked about every form that common servers make of it.

/// Percent-encodings that are undone at most; what is encoded more often than that is read by nobody.
const ROUNDS: usize = 2;

/// A path as it is passed on, and all readings of it, that one first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Readings {
    /// Without duplicates; never empty.
    pub(super) all: Vec<String>,
}

impl Readings {
    /// Reads a path without a query. Pure and total: a client chooses it.
    pub(super) fn new(path: &str) -> Self {
        let base = resolved(&unreserved(&path.replace('\\', "/")));
        let mut readings = Self { all: vec![base.clone()] };
        if !is_ambiguous(path) {
            return readings;
        }
        // Servers see what is passed on; policies may be about what was asked for as well. Some drop
        // parameters before they decode, some afterwards.
        let mut forms = vec![base];
        extend(&mut forms, [path.replace('\\', "/")]);
        for round in 0..=ROUNDS {
            let bare: Vec<String> = forms.iter().map(|form| without_parameters(form)).collect();
            extend(&mut forms, bare);
            for form in &forms {
                readings.add(resolved(form));
                readings.add(resolved(&merged(form)));
                readings.add(merged(&resolved(form)));
            }
            if round < ROUNDS {
                forms = forms.iter().map(|form| decoded(form).replace('\\', "/")).collect();
            }
        }
        readings
    }

    /// The path that is passed on.
    pub(super) fn base(&self) -> &str {
        self.all.first().map_or("/", String::as_str)
    }

    fn add(&mut self, reading: String) {
        extend(&mut self.all, [reading]);
    }
}

/// Appends what is not there yet.
fn extend(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
}

/// Whether there is anything in a path that servers read differently.
fn is_ambiguous(path: &str) -> bool {
    path.contains(['%', '\\', ';']) || path.contains("//") || path.contains("/.")
}

/// Resolves `.` and `..` (RFC 3986, section 5.2.4).
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Several slashes in a row are one.
fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
}

/// Drops what follows a `;` in each segment.
fn without_parameters(path: &str) -> String {
    let bare = |part: &str| part.split(';').next().unwrap_or_default().to_owned();
    path.split('/').map(bare).collect::<Vec<_>>().join("/")
}

/// Undoes the encoding of characters that need none (RFC 3986, section 2.3), until none is left: what
/// is decoded may be part of another encoding, as in `%%36%31`.
fn unreserved(path: &str) -> String {
    let mut plain = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        plain.push(byte);
        while let Some((start, last)) = plain.split_last_chunk::<3>()
            && let Some(meant) = escaped(last)
            && (meant.is_ascii_alphanumeric() || b"-._~".contains(&meant))
        {
            let length = start.len();
            plain.truncate(length);
            plain.push(meant);
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Undoes all encodings, once.
pub(super) fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let meant = escaped(&bytes[at..]);
        decoded.push(meant.unwrap_or(*byte));
        at += if meant.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The byte that `%41` stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_path_has_one_reading() {
        for path in ["/", "/a/b", "/a/", "/a.b/c~d", "/a:b@c"] {
            assert_eq!(Readings::new(path).all, [path]);
        }
    }

    #[test]
    fn a_path_is_passed_on_as_istio_normalises_it() {
        for (path, base) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61%7Eb", "/a~b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a\\b", "/a/b"),
            ("//a", "//a"),
            ("/a;b", "/a;b"),
            ("/%zz%", "/%zz%"),
            ("", "/"),
        ] {
            assert_eq!(Readings::new(path).base(), base, "{path}");
        }
    }

    #[test]
    fn what_a_server_may_take_for_another_path_is_read_as_that_too() {
        for path in [
            "/x/../admin",
            "//admin",
            "/x//../admin",
            "/%2fadmin",
            "/x%2f..%2fadmin",
            "/x/%2e%2e/admin",
            "/x/%252e%252e/admin",
            "/%61dmin",
            "/%2561dmin",
            "/admin;a=b",
            "/x;a/..;b/admin",
            "/x\\..\\admin",
            "/x%5c..%5cadmin",
            "/./admin",
        ] {
            let readings = Readings::new(path);
            assert!(readings.all.iter().any(|one| one == "/admin"), "{path}: {readings:?}");
        }
    }

    #[test]
    fn what_decoding_makes_is_decoded_as_well() {
        for (path, base) in
            [("/%%36%31dmin", "/admin"), ("/%%32%65%2e/", "/"), ("/%%32%66", "/%2f")]
        {
            assert_eq!(Readings::new(path).base(), base, "{path}");
        }
    }

    #[test]
    fn what_is_passed_on_is_read_and_not_what_came() {
        // Passed on as `/%252fadmin`, which is `//admin` to whoever decodes twice.
        let readings = Readings::new("/%%32%35%32%66admin");
        assert_eq!(readings.base(), "/%252fadmin");
        assert!(readings.all.iter().any(|one| one == "/admin"), "{readings:?}");
    }

    #[test]
    fn parameters_may_be_dropped_before_decoding() {
        let readings = Readings::new("/a%2fadmin;x%2fy");
        assert!(readings.all.iter().any(|one| one == "/a/admin"), "{readings:?}");
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in "[/a.%2fFeE5cC;\\\\~é\u{0}-\u{7f}]{0,64}") {
            let readings = Readings::new(&path);
            prop_assert!(readings.all.iter().all(|one| one.starts_with('/')));
            prop_assert!(readings.all.len() <= 85);
            // What is passed on is what was judged: it is read as itself again.
            let again = Readings::new(readings.base());
            prop_assert_eq!(again.base(), readings.base());
            prop_assert!(again.all.iter().all(|one| readings.all.contains(one)));
        }
    }
}
