//! What is hashed, and the cookies that are made for it.

use std::time::Duration;

use http::Method;

use super::*;

fn of(rule: &HashKey, headers: &[(&'static str, &'static str)], query: Option<&str>) -> Key {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        authority: "cart",
        path: "/",
        query,
        headers: &map,
    };
    key(rule, &request, "10.0.0.1".parse().unwrap())
}

fn session(ttl: Option<Duration>) -> HashKey {
    HashKey::Cookie { name: "session".to_owned(), path: Some("/shop".to_owned()), ttl }
}

#[test]
fn agents_of_all_versions_hash_alike() {
    assert_eq!(bytes(b""), 0xefd0_1f60_ba99_2926);
    assert_eq!(bytes(b"undermesh"), bytes(b"undermesh"));
    assert_ne!(bytes(b"a"), bytes(b"b"));
}

#[test]
fn the_order_of_a_headers_values_does_not_matter() {
    let rule = HashKey::Header("x-user".to_owned());
    let one = of(&rule, &[("x-user", "a"), ("x-user", "b")], None);
    let other = of(&rule, &[("x-user", "b"), ("x-user", "a")], None);
    assert!(one.hash.is_some());
    assert_eq!(one, other);
    assert_eq!(of(&rule, &[("x-other", "a")], None), Key::default());
}

#[test]
fn the_first_parameter_of_the_name_counts() {
    let rule = HashKey::Query("user".to_owned());
    let wanted = Some(bytes(b"7"));
    assert_eq!(of(&rule, &[], Some("a=1&user=7&user=8")).hash, wanted);
    assert_eq!(of(&rule, &[], Some("users=7")).hash, None);
    assert_eq!(of(&rule, &[], None).hash, None);
}

#[test]
fn an_address_is_the_same_in_both_notations() {
    let mapped = address("::ffff:10.0.0.1".parse().unwrap());
    assert_eq!(of(&HashKey::SourceIp, &[], None).hash, Some(mapped));
}

#[test]
fn a_cookie_that_is_there_is_used_and_not_set() {
    let key = of(&session(Some(Duration::ZERO)), &[("cookie", "a=b; session=\"x1\"; c=d")], None);
    assert_eq!(key, Key { hash: Some(bytes(b"x1")), set_cookie: None });
}

#[test]
fn a_cookie_is_made_only_where_it_has_a_life_time() {
    assert_eq!(of(&session(None), &[], None), Key::default());
    let key = of(&session(Some(Duration::from_secs(60))), &[("cookie", "other=1")], None);
    let line = key.set_cookie.as_ref().unwrap().to_str().unwrap();
    let (pair, rest) = line.split_once("; ").unwrap();
    assert_eq!(rest, "Max-Age=60; Path=/shop; HttpOnly");
    let value = pair.strip_prefix("session=\"").unwrap().strip_suffix('"').unwrap();
    // The client comes back with it to where it was sent first.
    assert_eq!(key.hash, Some(bytes(value.as_bytes())));
}

#[test]
fn a_session_cookie_has_no_age() {
    let key = of(&session(Some(Duration::ZERO)), &[], None);
    assert!(!key.set_cookie.unwrap().to_str().unwrap().contains("Max-Age"));
}

#[test]
fn a_cookie_that_cannot_be_written_is_left_out() {
    let name = "bad\nname".to_owned();
    let rule = HashKey::Cookie { name, path: None, ttl: Some(Duration::ZERO) };
    let key = of(&rule, &[], None);
    assert!(key.hash.is_some() && key.set_cookie.is_none());
}
