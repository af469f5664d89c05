//! What is kept on disk, and what is not believed of it.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::{fixtures::Dir, kubernetes::slot::Slot};

fn state() -> State {
    let mut state = State::new("n");
    let slot = Slot::secrets("cert").unwrap();
    state.add(&slot);
    let put = |state: &mut State, list: &str, object: Value| {
        let kind = Kind::find(object["kind"].as_str().unwrap()).unwrap();
        state.restore(SlotId::new(list), kind, &[object]);
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "shop"},
        "data": {"tls.key": "c2VjcmV0"},
    });
    put(&mut state, "secret/cert", secret);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    put(&mut state, "namespace", namespace);
    for mode in ["DISABLE", "NONSENSE"] {
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": {"mtls": {"mode": mode}},
        });
        put(&mut state, "peerauthentication", policy);
    }
    state
}

#[test]
fn what_was_in_force_is_in_force_again_and_secrets_are_nowhere() {
    let dir = Dir::new(&[]);
    let cache = Cache::new(&dir.0.join("deep/cache"), "kubernetes", "n");
    assert!(cache.read().unwrap().is_none());
    let state = state();
    cache.write(&state, "https://a").unwrap();
    let restored = cache.read().unwrap().unwrap();
    assert_eq!(restored.server, "https://a");
    assert!(restored.written.elapsed().unwrap() < Duration::from_secs(60));
    let policies = restored.state.load().cluster.unwrap().peer_authentications;
    assert_eq!(policies, state.load().cluster.unwrap().peer_authentications);
    assert_eq!(format!("{:?}", policies.values().next().unwrap().mode), "Some(Disable)");
    let text = fs::read_to_string(cache.path()).unwrap();
    assert!(text.contains("PeerAuthentication") && !text.contains("c2VjcmV0"));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(cache.path()), mode(cache.path().parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_file_that_is_not_whole_or_of_somebody_else_is_not_used() {
    let dir = Dir::new(&[]);
    let cache = Cache::new(&dir.0, "kubernetes", "n");
    cache.write(&state(), "https://a").unwrap();
    let whole = fs::read_to_string(cache.path()).unwrap();
    let problem = |text: &str| {
        fs::write(cache.path(), text).unwrap();
        cache.read().err().unwrap_or_else(|| "none".to_owned())
    };
    assert_eq!(problem(&whole), "none");
    let without_end = whole.rsplit_once("{\"objects\"").unwrap().0;
    assert_eq!(problem(without_end), "it ends before its end");
    assert_eq!(problem(&whole[..whole.len() / 2]), "a line of it cannot be read");
    assert_eq!(problem(&whole.replace("\"node\":\"n\"", "\"node\":\"m\"")), "it is of node m");
    let newer = whole.replace("{\"version\":1,", "{\"version\":2,");
    assert_eq!(problem(&newer), "it is of version 2, and this is 1");
    let lines: Vec<&str> = whole.lines().collect();
    let fewer = [&lines[..1], &lines[2..]].concat().join("\n");
    assert_eq!(problem(&fewer), "it has 1 objects instead of 2");
    assert_eq!(problem(""), "it is empty");
}

#[test]
fn a_state_that_is_too_large_is_not_written_and_the_former_file_stays() {
    let mut out = Limited { inner: Vec::new(), left: 4 };
    assert!(out.write_all(b"1234").is_ok() && out.write_all(b"5").is_err());
    let dir = Dir::new(&[]);
    let cache = Cache::new(&dir.0, "kubernetes", "n");
    cache.write(&state(), "a").unwrap();
    // A directory in the way of the new file.
    fs::create_dir(dir.0.join("kubernetes.new")).unwrap();
    assert!(cache.write(&state(), "b").is_err());
    assert_eq!(cache.read().unwrap().unwrap().server, "a");
}
