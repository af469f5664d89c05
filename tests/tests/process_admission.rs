//! The admission webhook, over HTTPS, as the API server asks it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use undermesh_tests::{CONTROLLER, Controller, Plane, wait_for};

const SOON: Duration = Duration::from_secs(20);

fn connect(
    controller: &Controller,
    roots: &str,
    name: &str,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let stream = TcpStream::connect(controller.address("webhookAddress")?)?;
    stream.set_read_timeout(Some(SOON))?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream))
}

/// Posts a body; status and content.
fn post(controller: &Controller, roots: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = connect(controller, roots, CONTROLLER)?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {CONTROLLER}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    // What is too large is refused before its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer)?;
    let (head, content) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{ended:?} {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, content.to_owned()))
}

fn review(operation: &str, object: &Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "networking.istio.io", "version": "v1", "kind": object["kind"]},
            "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
            "operation": operation,
            "userInfo": {"username": "alice", "groups": ["dev"]},
            "object": object, "oldObject": null, "dryRun": false,
        },
    });
    review.to_string().into_bytes()
}

/// The `response` of an answer.
fn ask(controller: &Controller, roots: &str, operation: &str, object: &Value) -> Result<Value> {
    let (status, content) = post(controller, roots, "/validate", &review(operation, object))?;
    ensure!(status == 200, "{status} {content}");
    let answer: Value = serde_json::from_str(&content)?;
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    Ok(answer["response"].clone())
}

fn route(regex: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"hosts": ["cart"], "http": [{
            "match": [{"uri": {"regex": regex}}], "route": [{"destination": {"host": "cart"}}],
        }]},
    })
}

fn policy(action: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "guard", "namespace": "shop"},
        "spec": {"action": action, "rules": [{}]},
    })
}

fn started() -> Result<(Plane, Controller, String)> {
    let plane = Plane::new()?;
    plane.api.put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
    }))?;
    let mut controller = plane.controller("one", &[])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    Ok((plane, controller, roots))
}

#[test]
fn what_an_agent_could_not_use_is_refused_in_its_words_and_audited() -> Result<()> {
    let (_plane, controller, roots) = started()?;
    for (object, parts) in [
        (policy("MAYBE"), ["AuthorizationPolicy shop/guard", "MAYBE"]),
        (route("/(a"), ["VirtualService shop/cart", "/(a"]),
    ] {
        for operation in ["CREATE", "UPDATE"] {
            let response = ask(&controller, &roots, operation, &object)?;
            assert_eq!(response["allowed"], false, "{response}");
            assert_eq!(response["status"]["code"], 422);
            let words = response["status"]["message"].as_str().context("no words")?;
            for part in parts {
                ensure!(words.contains(part), "{words}");
            }
        }
        assert_eq!(ask(&controller, &roots, "DELETE", &object)?["allowed"], true);
    }
    for object in [policy("DENY"), route("/a.*")] {
        let response = ask(&controller, &roots, "CREATE", &object)?;
        assert_eq!(response["allowed"], true, "{response}");
        assert!(response["warnings"].is_null(), "{response}");
    }
    let audited = wait_for("the audit lines", SOON, || {
        Ok(Some(controller.audit("object_refused")).filter(|lines| lines.len() == 4))
    })?;
    assert_eq!(audited[0]["user"], "alice");
    assert_eq!(audited[0]["name"], "guard");
    ensure!(audited[0]["findings"][0].as_str().is_some_and(|it| it.contains("MAYBE")));
    let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
    let line = "undermesh_controller_admissions_total{result=\"refused\"} 4";
    ensure!(metrics.contains(line), "{metrics}");
    Ok(())
}

#[test]
fn what_is_no_review_or_too_large_is_refused_and_the_next_one_is_answered() -> Result<()> {
    let (_plane, controller, roots) = started()?;
    for (path, body, expected) in [
        ("/validate", b"".to_vec(), 400),
        ("/validate", b"{}".to_vec(), 400),
        (
            "/validate",
            b"{\"apiVersion\":\"admission.k8s.io/v1beta1\",\"kind\":\"AdmissionReview\"}".to_vec(),
            400,
        ),
        ("/elsewhere", review("CREATE", &policy("DENY")), 404),
        ("/validate", vec![b' '; 9 << 20], 413),
    ] {
        let (status, content) = post(&controller, &roots, path, &body)?;
        assert_eq!(status, expected, "{content}");
    }
    // Deeper than anybody writes by hand.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, _) = post(&controller, &roots, "/validate", deep.as_bytes())?;
    assert_eq!(status, 400);
    assert_eq!(ask(&controller, &roots, "CREATE", &policy("DENY"))?["allowed"], true);
    Ok(())
}

#[test]
fn an_answer_comes_in_time_whatever_the_api_server_does() -> Result<()> {
    let (plane, controller, roots) = started()?;
    plane.api.slow_answers(Duration::from_secs(60));
    let began = Instant::now();
    let response = ask(&controller, &roots, "CREATE", &policy("MAYBE"))?;
    assert_eq!(response["allowed"], false);
    ensure!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // A client that says nothing keeps nobody waiting.
    let mut silent = connect(&controller, &roots, CONTROLLER)?;
    write!(silent, "POST /validate HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n")?;
    assert_eq!(ask(&controller, &roots, "CREATE", &policy("MAYBE"))?["allowed"], false);
    let mut answer = String::new();
    let _ = silent.read_to_string(&mut answer);
    ensure!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    Ok(())
}

#[test]
fn a_review_that_has_begun_when_the_controller_stops_is_answered() -> Result<()> {
    let (plane, controller, roots) = started()?;
    controller.wait_leads(true, SOON)?;
    let mut stream = connect(&controller, &roots, CONTROLLER)?;
    let body = review("CREATE", &policy("MAYBE"));
    let (begin, rest) = body.split_at(body.len() / 2);
    let length = body.len();
    write!(
        stream,
        "POST /validate HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )?;
    let mut reading = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut reading)?;
    stream.write_all(begin)?;
    controller.signal(Signal::TERM)?;
    wait_for("the lease to be given back", SOON, || Ok(plane.leader().is_empty().then_some(())))?;
    ensure!(TcpStream::connect(controller.address("webhookAddress")?).is_err(), "it goes on");
    thread::sleep(Duration::from_millis(500));
    stream.write_all(rest)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("MAYBE"), "{answer}");
    controller.ended()
}

#[test]
fn its_certificate_is_of_the_mesh_and_for_its_own_name() -> Result<()> {
    let (_plane, controller, roots) = started()?;
    let mut other = connect(&controller, &roots, "istiod.istio-system.svc")?;
    ensure!(other.write_all(b"x").and_then(|()| other.flush()).is_err(), "another name was taken");
    // Every replica has one, whoever leads.
    Ok(())
}

#[test]
fn the_leader_tells_the_api_server_the_roots_and_again_when_they_are_taken_out() -> Result<()> {
    let (plane, controller, roots) = started()?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "undermesh-controller"},
        "webhooks": [{
            "name": "objects.undermesh.io", "failurePolicy": "Ignore", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "clientConfig": {"service": {
                "name": "undermesh-controller", "namespace": "undermesh-system", "path": "/validate",
            }},
            "rules": [],
        }],
    });
    let told = || {
        wait_for("the roots in the configuration", SOON, || {
            let found = plane.api.get(
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                "",
                "undermesh-controller",
            );
            let found = found.context("no configuration")?;
            let client = &found["webhooks"][0]["clientConfig"];
            assert_eq!(client["service"]["path"], "/validate");
            Ok(client["caBundle"].as_str().map(str::to_owned))
        })
    };
    plane.api.put(&configuration)?;
    let bundle = told()?;
    thread::sleep(Duration::from_millis(10));
    plane.api.put(&configuration)?;
    assert_eq!(told()?, bundle);
    // Base64 of the roots: begins with that of `-----BEGIN CERT`, and is as long.
    ensure!(bundle.starts_with("LS0tLS1CRUdJTiBDRVJU"), "{bundle}");
    assert_eq!(bundle.len(), roots.len().div_ceil(3) * 4);
    drop(controller);
    Ok(())
}
