//! Which endpoint a request goes to, and what it is when it gets there.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use undermesh_model::traffic::{
    AllowedOrigins, Cors, DirectResponse, Millionths, PathRewrite, Redirect, TextPattern,
};
use undermesh_snapshot::traffic::{HeaderEdits, RouteAction, Target};

use super::rig::{Rig, get, route, rules, to, weighted};
use crate::tests::mesh::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_where_its_path_leads() {
    let rig = Rig::new(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    rig.rules(rules(&v1, vec![("/new", route(to(&v2))), ("/old", route(to(&v1)))]));
    assert_eq!(rig.get("/new/x?y=z").await, (StatusCode::OK, "v2".to_owned()));
    assert_eq!(rig.get("/old").await, (StatusCode::OK, "v1".to_owned()));
    assert_eq!(rig.get("/elsewhere").await, (StatusCode::NOT_FOUND, String::new()));
    let seen = &rig.backends[1].requests()[0];
    assert_eq!(seen.target, "/new/x?y=z");
    assert_eq!(seen.headers["host"], "cart");
    assert_eq!(seen.headers["x-envoy-attempt-count"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_routes_all_goes_to_the_default() {
    let rig = Rig::new(&["v1"]).await;
    rig.rules(rules(&rig.cluster(&["v1"]), Vec::new()));
    assert_eq!(rig.get("/any").await, (StatusCode::OK, "v1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_shares_and_zero_is_none() {
    let rig = Rig::new(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    let split = RouteAction::Forward(vec![weighted(&v1, 3), weighted(&v2, 1)]);
    let none = RouteAction::Forward(vec![weighted(&v1, 0)]);
    rig.rules(rules(&v1, vec![("/none", route(none)), ("/", route(split))]));
    for _ in 0..200 {
        rig.get("/").await;
    }
    let share = rig.backends[1].requests().len();
    assert!((20..90).contains(&share), "{share} of 200");
    assert_eq!(rig.get("/none").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_authorities_and_headers_are_rewritten() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let mut changed = route(to(&v1));
    changed.path = Some(PathRewrite::Matched("/v2".to_owned()));
    changed.authority = Some(HeaderValue::from_static("inner:8080"));
    changed.headers = HeaderEdits {
        request_remove: vec![HeaderName::from_static("x-secret")],
        request_set: vec![pair("x-set", "route")],
        response_add: vec![pair("x-added", "route")],
        response_remove: vec![HeaderName::from_static("x-from")],
        ..HeaderEdits::default()
    };
    if let RouteAction::Forward(targets) = &mut changed.action {
        targets[0].headers.request_set = vec![pair("x-set", "target")];
    }
    rig.rules(rules(&v1, vec![("/api", changed)]));
    let mut request = get("/api/items?q");
    request.headers_mut().insert("x-secret", HeaderValue::from_static("1"));
    let response = rig.send(request).await;
    assert_eq!(response.headers()["x-added"], "route");
    assert!(!response.headers().contains_key("x-from"));
    let seen = &rig.backends[0].requests()[0];
    assert_eq!(seen.target, "/v2/items?q");
    assert_eq!(seen.headers["host"], "inner:8080");
    assert_eq!(seen.headers["x-set"], "target");
    assert_eq!(seen.headers["x-envoy-original-path"], "/api/items?q");
    assert!(!seen.headers.contains_key("x-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_direct_responses_reach_no_endpoint() {
    let rig = Rig::new(&["v1"]).await;
    let redirect = Redirect { code: 302, scheme: Some("https".to_owned()), ..Redirect::default() };
    let direct = DirectResponse { status: 418, body: b"short and stout".to_vec() };
    let routes = vec![
        ("/away", route(RouteAction::Redirect(redirect))),
        ("/tea", route(RouteAction::Direct(direct))),
        ("/broken", route(unusable(500))),
    ];
    rig.rules(rules(&rig.cluster(&["v1"]), routes));
    let response = rig.send(get("/away?x")).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "https://cart/away?x");
    assert_eq!(rig.get("/tea").await, (StatusCode::IM_A_TEAPOT, "short and stout".to_owned()));
    assert_eq!(rig.get("/broken").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(rig.backends[0].requests().len(), 0);
}

fn unusable(status: u16) -> RouteAction {
    let target = Target::Unusable(status);
    let headers = HeaderEdits::default();
    RouteAction::Forward(vec![undermesh_snapshot::traffic::Weighted { target, weight: 1, headers }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_a_copy_and_its_answer_is_nobodys() {
    let rig = Rig::new(&["v1", "shadow"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut mirrored = route(to(&v1));
    let shadow = Target::Cluster(rig.cluster(&["shadow"]));
    mirrored.mirrors = vec![(shadow, Millionths::ALL)];
    rig.rules(rules(&v1, vec![("/", mirrored)]));
    let body = vec![b'x'; 200_000];
    let request = Request::post("/copy").header("host", "cart").body(Full::from(body)).unwrap();
    assert_eq!(rig.send(request).await.body(), "v1");
    eventually("the copy arrives", || !rig.backends[1].requests().is_empty()).await;
    let copy = &rig.backends[1].requests()[0];
    assert_eq!((copy.target.as_str(), copy.body.len()), ("/copy", 200_000));
    assert_eq!(copy.headers["host"], "cart-shadow");
    assert_eq!(rig.backends[0].requests()[0].body.len(), 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_origins_are_told_so_and_preflights_end_here() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut shared = route(to(&v1));
    shared.cors = Some(Cors {
        origins: AllowedOrigins(vec![TextPattern::Exact("https://shop".to_owned())]),
        methods: vec!["PUT".to_owned()],
        ..Cors::default()
    });
    rig.rules(rules(&v1, vec![("/", shared)]));
    let mut request = get("/");
    request.headers_mut().insert("origin", HeaderValue::from_static("https://shop"));
    let response = rig.send(request.clone()).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "https://shop");
    *request.method_mut() = Method::OPTIONS;
    let asked = HeaderValue::from_static("PUT");
    request.headers_mut().insert("access-control-request-method", asked);
    let response = rig.send(request).await;
    assert_eq!(response.headers()["access-control-allow-methods"], "PUT");
    assert_eq!(rig.backends[0].requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_rules_hold_for_the_next_request_of_a_connection() {
    let rig = Rig::new(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    rig.rules(rules(&v1, vec![("/", route(to(&v1)))]));
    let mut sender = rig.http1().await;
    let first = super::rig::collect(sender.send_request(get("/")).await.unwrap()).await;
    rig.rules(rules(&v1, vec![("/", route(to(&Arc::clone(&v2))))]));
    sender.ready().await.unwrap();
    let second = super::rig::collect(sender.send_request(get("/")).await.unwrap()).await;
    assert_eq!((&first.body()[..], &second.body()[..]), (&b"v1"[..], &b"v2"[..]));
}
