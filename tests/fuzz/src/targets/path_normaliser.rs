//! Paths as policies judge them: what is passed on was judged, in every way a server may read it.

use http::{Request, uri::PathAndQuery};
use undermesh_proxy::fuzzing::guard::readings;

use crate::source::{Source, spell};

/// Pieces of paths.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"/", b"a", b"admin", b".", b"..", b"%", b"%2e", b"%2E", b"%2f", b"%5c", b"%25", b"%3b",
    b"%61", b"\\", b";", b";x=y", b"//", b"/../", b"/./", b"2", b"5", b"e", b"?", b"%00",
    b"%c3%a9", b"%ff", b"%3f", b"%23", b"~",
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let spelled = source.flag();
    let text = if spelled { source.spelled(DICTIONARY) } else { source.rest().to_vec() };
    let Some(judged) = judged(&text) else { return };
    let (passed, all) = (&judged.passed, &judged.all);
    assert!(all.contains(passed), "{passed:?} is passed on, judged was {all:?}");
    assert!(all.iter().all(|reading| reading.starts_with('/')), "{all:?}");
    assert!(all.len() <= 85, "{} readings", all.len());
    assert_eq!(judged.query_before, judged.query_after, "the query");
    // Whoever judges it again, at the next proxy for example, judges the same.
    let again = self::judged(passed.as_bytes()).expect("what is passed on is a path");
    assert_eq!(&again.passed, passed, "normalised again");
    for server in servers(passed) {
        assert!(all.contains(&server), "a server may read {passed:?} as {server:?}: {all:?}");
    }
}

struct Judged {
    all: Vec<String>,
    passed: String,
    query_before: Option<String>,
    query_after: Option<String>,
}

fn judged(target: &[u8]) -> Option<Judged> {
    let target = if target.starts_with(b"/") { target.to_vec() } else { [b"/", target].concat() };
    let target = PathAndQuery::try_from(target.as_slice()).ok()?;
    let query_before = target.query().map(str::to_owned);
    let request = Request::get(target.as_str()).header("host", "a").body(()).ok()?;
    let (all, parts) = readings(request.into_parts().0, ([10, 0, 0, 1], 80).into())?;
    let query_after = parts.uri.query().map(str::to_owned);
    Some(Judged { all, passed: parts.uri.path().to_owned(), query_before, query_after })
}

/// What servers make of a path that they get: so many rounds of decoding, then slashes, parameters and
/// dots in the orders that are common.
fn servers(path: &str) -> Vec<String> {
    let mut read = Vec::new();
    let mut form = path.replace('\\', "/");
    let mut early = without_parameters(&form);
    for _ in 0..3 {
        for form in [&form, &without_parameters(&form), &early] {
            read.push(without_dots(form));
            read.push(without_dots(&one_slash(form)));
        }
        form = decoded(&form).replace('\\', "/");
        early = decoded(&early).replace('\\', "/");
    }
    read
}

fn without_parameters(path: &str) -> String {
    let parts = path.split('/').map(|part| part.split(';').next().unwrap_or_default());
    parts.collect::<Vec<_>>().join("/")
}

fn one_slash(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        match *part {
            "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
        if index + 1 == parts.len() && matches!(*part, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let paths = [
        "/a/b?c=d",
        "/x/../admin",
        "//admin",
        "/x//../admin",
        "/%2fadmin",
        "/x%2f..%2fadmin",
        "/x/%252e%252e/admin",
        "/%2561dmin",
        "/x;a/..;b/admin",
        "/x\\..\\admin",
        "/x%5c..%5cadmin?x=%2f",
        "/%zz%",
        "/%%32%65",
    ];
    let plain = paths.iter().map(|path| [&[0][..], path.as_bytes()].concat());
    let spelled = paths.iter().map(|path| [&[1][..], &spell(path.as_bytes(), DICTIONARY)].concat());
    plain.chain(spelled).collect()
}
