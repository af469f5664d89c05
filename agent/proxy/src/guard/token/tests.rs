//! Where tokens are found, and what is left of a request.

use ::http::Request;

use super::*;

/// What is found in a request with this query and these values of `authorization`, and what of them
/// is left when the token is taken away.
fn found(location: &TokenLocation, query: &str, values: &[&str]) -> (Vec<String>, String) {
    let mut builder = Request::get(format!("http://a/p?{query}"));
    for value in values {
        builder = builder.header("authorization", *value);
    }
    let request = builder.header("host", "a").body(()).unwrap();
    let mut head = Head::new(request.into_parts().0, ([10, 0, 0, 1], 80).into()).unwrap();
    let token = at(location, &head);
    take_away(location, &mut head).unwrap();
    let left = head.parts.headers.get_all("authorization").iter();
    let left: Vec<&str> = left.map(|value| value.to_str().unwrap()).collect();
    (token, format!("{}{}", head.parts.uri.query().unwrap_or_default(), left.join("|")))
}

#[test]
fn a_token_does_not_hide_behind_other_values_of_its_header() {
    let location = TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned());
    for values in [
        &["Bearer a.b.c"][..],
        &["Basic x", "Bearer a.b.c"],
        &["Basic x, Bearer a.b.c"],
        &["Bearer  a.b.c , Basic x"],
        &["bearer a.b.c"],
        &["Basic x,BEARER a.b.c,Basic y"],
    ] {
        let expected = (vec!["a.b.c".to_owned()], "q".to_owned());
        assert_eq!(found(&location, "q", values), expected, "{values:?}");
    }
    assert_eq!(found(&location, "q", &["Basic x"]), (Vec::new(), "qBasic x".to_owned()));
}

#[test]
fn a_token_does_not_hide_behind_an_encoded_name() {
    let location = TokenLocation::Parameter("access_token".to_owned());
    for query in ["q&access_token=a.b.c", "access%5ftoken=a%2Eb.c&q"] {
        let expected = (vec!["a.b.c".to_owned()], "q".to_owned());
        assert_eq!(found(&location, query, &[]), expected, "{query}");
    }
    assert!(found(&location, "q&x=access_token", &[]).0.is_empty());
}

#[test]
fn no_token_hides_behind_another() {
    let bearer = TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned());
    let bare = TokenLocation::Header("authorization".to_owned(), String::new());
    let parameter = TokenLocation::Parameter("access_token".to_owned());
    for (location, query, values) in [
        (&bearer, "", &["Bearer a, Bearer b"][..]),
        (&bearer, "", &["Bearer a", "bearer b"]),
        (&bearer, "", &["Bearer a Bearer b"]),
        (&bare, "", &["a,b"]),
        (&bare, "", &["a", "b"]),
        (&parameter, "access_token=a&access%5Ftoken=b", &[]),
    ] {
        let (tokens, left) = found(location, query, values);
        assert_eq!((&tokens[..], left.as_str()), (&["a".into(), "b".into()][..], ""));
    }
    assert_eq!(behind("Bearer ", b"Bearer a\xffb"), ["a\u{fffd}b"], "it is looked at");
    // Whoever reads on reads another token.
    assert_eq!(behind("Bearer ", b"Bearer a\tb"), ["a\tb"]);
}

#[test]
fn of_one_request_there_is_one_token() {
    let rule = JwtRule {
        origin: undermesh_model::ResourceRef::namespaced("RequestAuthentication", "a", "a"),
        issuer: "me".to_owned(),
        audiences: Vec::new(),
        keys: undermesh_model::JwtKeys::Discovered,
        locations: vec![
            TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned()),
            TokenLocation::Parameter("access_token".to_owned()),
            TokenLocation::Cookie("session".to_owned()),
        ],
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        words: Vec::new(),
        timeout: std::time::Duration::from_secs(1),
    };
    for (target, authorization, cookie, expected) in [
        ("/", "Basic a", "b=c", Ok(None)),
        ("/?access_token=a", "Bearer a", "session=a", Ok(Some("a"))),
        ("/?access_token=a&access_token=a", "Basic a", "b=c", Ok(Some("a"))),
        ("/?access_token=a&access_token=b", "Basic a", "b=c", Err(400)),
        ("/?access_token=b", "Bearer a", "b=c", Err(400)),
        ("/?access_token=", "Bearer a", "b=c", Err(400)),
        ("/", "Bearer a", "session=b", Err(400)),
        ("/", "Basic a", "session=a; b=c; session=b", Err(400)),
    ] {
        let request = Request::get(target).header("host", "a");
        let request = request.header("authorization", authorization).header("cookie", cookie);
        let parts = request.body(()).unwrap().into_parts().0;
        let head = Head::new(parts, ([10, 0, 0, 1], 80).into()).unwrap();
        let found = only(&rule, &head).map_err(|reply| reply.status.as_u16());
        assert_eq!(found.as_ref().map(Option::as_deref), expected.as_ref().copied(), "{target}");
    }
}
