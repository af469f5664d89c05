//! Which endpoint a request goes to, and what it is when it gets there.

use http::StatusCode;

use super::rig::{Rig, route, rules, to};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_where_its_path_leads() {
    let rig = Rig::new(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    rig.rules(rules(&v1, vec![("/new", route(to(&v2))), ("/", route(to(&v1)))]));
    assert_eq!(rig.get("/new/x?y=z").await, (StatusCode::OK, "v2".to_owned()));
    assert_eq!(rig.get("/").await, (StatusCode::OK, "v1".to_owned()));
    let seen = &rig.backends[1].requests()[0];
    assert_eq!(seen.target, "/new/x?y=z");
    assert_eq!(seen.headers["host"], "cart");
}
