//! The server, asked over HTTP as clients ask it.

mod client;
mod reading;
mod watching;
mod writing;

use serde_json::Value;

use super::*;
use client::{Client, Watched};

/// A server without TLS, and a client of it. The directory goes with the test.
struct Bench {
    server: ApiServer,
    client: Client,
    dir: PathBuf,
}

impl Bench {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("undermesh-apiserver-{}-{id}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let server = ApiServer::start(&dir, Options { tls: false, ..options }, None).unwrap();
        let client = Client::new(server.address(), server.token());
        Self { server, client, dir }
    }

    fn put_pod(&self, name: &str, node: &str) -> Value {
        self.server.put(&pod(name, node)).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": node},
    })
}

#[test]
fn who_has_no_token_is_told_nothing() {
    let bench = Bench::new();
    let stranger = Client::new(bench.server.address(), "none");
    assert_eq!(stranger.get("/api/v1/pods").0, 401);
    let token = bench.server.issue(Bearer::account("shop", "cart", &["mesh"]));
    let account = Client::new(bench.server.address(), &token);
    assert_eq!(account.get("/api/v1/pods").0, 200);
    let review = |token: &str, audience: &str| {
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let body = json!({"spec": {"token": token, "audiences": [audience]}});
        let (code, answer) = bench.client.send("POST", path, "application/json", &body);
        assert_eq!(code, 201);
        answer["status"].clone()
    };
    let good = review(&token, "mesh");
    assert_eq!(good["user"]["username"], "system:serviceaccount:shop:cart");
    assert_eq!(good["audiences"], json!(["mesh"]));
    assert_eq!(review(&token, "other")["authenticated"], false);
    bench.server.revoke(&token);
    assert_eq!(review(&token, "mesh")["authenticated"], false);
}

#[test]
fn a_kind_is_there_from_the_moment_of_its_definition_until_that_goes() {
    let resources = Resource::core();
    let bench = Bench::with(Options { resources, ..Options::default() });
    let path = "/apis/undermesh.io/v1alpha1/ratelimitpolicies";
    assert_eq!(bench.client.get(path).0, 404);
    assert_eq!(bench.client.get("/apis/undermesh.io/v1alpha1").0, 404);
    let [kind, _] = Resource::undermesh().try_into().unwrap();
    bench.server.install(&kind).unwrap();
    assert_eq!(bench.client.get(path).0, 200);
    let (_, listed) = bench.client.get("/apis/undermesh.io/v1alpha1");
    assert_eq!(listed["resources"][0]["name"], "ratelimitpolicies");
    let (_, groups) = bench.client.get("/apis");
    let names = groups["groups"].as_array().unwrap().iter().map(|group| group["name"].clone());
    assert!(names.into_iter().any(|name| name == "undermesh.io"));
    bench.server.uninstall(&kind);
    assert_eq!(bench.client.get(path).0, 404);
}

#[test]
fn a_server_that_went_away_comes_back_with_everything() {
    let bench = Bench::new();
    bench.put_pod("a", "n1");
    let watched = bench.client.watch("/api/v1/pods?watch=1");
    bench.server.stop();
    assert!(watched.lines().last().is_none_or(|line| !line.starts_with("{\"type\":\"MODIF")));
    assert!(std::net::TcpStream::connect(bench.server.address()).is_err());
    bench.server.resume().unwrap();
    assert_eq!(bench.client.get("/api/v1/namespaces/shop/pods/a").0, 200);
}

#[test]
fn hooks_answer_and_admit() {
    struct Reviewer;
    impl Hook for Reviewer {
        fn answer(&self, _: &ApiServer, call: &Call) -> Option<Result<(u16, Value), Refusal>> {
            (call.plural == "subjectaccessreviews")
                .then(|| Ok((201, json!({"status": {"allowed": false}}))))
        }

        fn admit(
            &self,
            server: &ApiServer,
            call: &Call,
            object: &mut Value,
        ) -> Result<(), Refusal> {
            if server.bearer(&call.token).is_none() || object["metadata"]["name"] == "bad" {
                return Err(Refusal::new(403, "Forbidden", "not this one"));
            }
            object["metadata"]["labels"]["seen"] = json!("yes");
            Ok(())
        }
    }
    let bench = Bench::new();
    bench.server.hook(Arc::new(Reviewer));
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (code, answer) = bench.client.send("POST", path, "application/json", &json!({}));
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(false)));
    bench.put_pod("there", "n");
    let path = "/api/v1/namespaces/shop/pods";
    let (code, stored) = bench.client.send("POST", path, "application/json", &pod("good", "n"));
    assert_eq!((code, &stored["metadata"]["labels"]["seen"]), (201, &json!("yes")));
    let (code, answer) = bench.client.send("POST", path, "application/json", &pod("bad", "n"));
    assert_eq!((code, &answer["message"]), (403, &json!("not this one")));
}

#[test]
fn troubles_end_when_they_should() {
    let bench = Bench::new();
    let refusal = Refusal::new(429, "TooManyRequests", "slow down");
    bench.server.trouble(Trouble::new(&["list"], "pods", refusal).times(1));
    assert_eq!(bench.client.get("/api/v1/services").0, 200);
    assert_eq!(bench.client.get("/api/v1/pods").0, 429);
    assert_eq!(bench.client.get("/api/v1/pods").0, 200);
    bench.server.trouble(Trouble::forbidden(&[], "pods"));
    assert_eq!(bench.client.get("/api/v1/pods").0, 403);
    bench.server.heal();
    assert_eq!(bench.client.get("/api/v1/pods").0, 200);
    assert_eq!(bench.server.calls().len(), 5);
}
