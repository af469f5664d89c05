//! `undermesh explain` on files: what it says, how it says it, and its exit codes.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use undermesh_tests::{Files, locate};

/// Pods `client`, `near` (node a) and `cart-v1`, `cart-v2` (node b) in the mesh, `stranger` outside of it.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: a, serviceAccountName: client}
status: {podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop, labels: {app: near}}
spec: {nodeName: a, serviceAccountName: near}
status: {podIPs: [{ip: 10.1.0.2}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-v1, namespace: shop, labels: {app: cart, version: v1}}
spec: {nodeName: b, serviceAccountName: cart}
status: {podIPs: [{ip: 10.2.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-v2, namespace: shop, labels: {app: cart, version: v2}}
spec: {nodeName: b, serviceAccountName: cart}
status: {podIPs: [{ip: 10.2.0.2}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: other}
spec: {nodeName: b}
status: {podIPs: [{ip: 10.2.0.9}]}
";
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec:
  clusterIP: 10.96.0.2
  selector: {app: near}
  ports: [{name: tcp, port: 80, targetPort: 8080}, {name: tcp-two, port: 81, targetPort: 8081}]
";
const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - name: second
    match: [{headers: {version: {exact: v2}}}]
    route: [{destination: {host: cart, subset: v2}}]
  - name: half
    match: [{uri: {prefix: /half}}]
    route: [{destination: {host: cart, subset: v1}, weight: 75}, {destination: {host: cart, subset: v2}, weight: 25}]
  - name: first
    match: [{uri: {prefix: /}}]
    route: [{destination: {host: cart, subset: v1}}]
";
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: near-only, namespace: shop}
spec: {selector: {matchLabels: {app: near}}, rules: [{from: [{source: {serviceAccounts: [cart]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

fn files() -> Result<Files> {
    Files::new(&[
        ("pods.yaml", PODS),
        ("services.yaml", SERVICES),
        ("routes.yaml", ROUTES),
        ("policies.yaml", POLICIES),
    ])
}

/// The steps of one way, by their names.
fn step<'a>(answer: &'a Value, name: &str) -> Result<&'a Value> {
    let steps = answer["ways"][0]["steps"].as_array().context("no steps")?;
    steps
        .iter()
        .find(|step| step["step"] == name)
        .with_context(|| format!("no step {name}: {steps:?}"))
}

/// `Kind namespace/name rule: why` of each rule of a list.
fn rules(step: &Value, list: &str) -> Vec<String> {
    let word = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
    let text = |rule: &Value| {
        let [kind, namespace, name, rule, why] =
            ["kind", "namespace", "name", "rule", "why"].map(|field| word(rule, field));
        format!("{kind} {namespace}/{name} {rule}: {why}")
    };
    step[list].as_array().map(|rules| rules.iter().map(text).collect()).unwrap_or_default()
}

#[test]
fn verdicts_and_their_reasons_decide_the_exit_code() -> Result<()> {
    let files = files()?;
    for (args, code, said) in [
        (&["shop/client", "cart", "GET", "/x"][..], 0, "carried proxied"),
        (&["shop/client", "cart", "GET", "/admin/x"], 1, "refused policy_denied"),
        (&["shop/client", "cart", "GET", "/x/../admin/y"], 1, "refused policy_denied"),
        (&["shop/client", "cart"], 2, "depends at_requests"),
        (&["shop/client", "near:80"], 1, "refused policy_denied"),
        (&["10.2.0.1", "near.shop:80"], 0, "carried proxied"),
        (&["other/stranger", "shop/cart"], 1, "refused strict_plaintext"),
        (&["other/stranger", "10.1.0.2:8080"], 1, "refused strict_plaintext"),
        (&["shop/client", "192.0.2.7:443"], 0, "carried outside_mesh"),
        (&["shop/client", "10.1.0.1:80"], 0, "carried own_address"),
        (
            &["shop/client", "192.0.2.7:443", "--outbound-traffic-policy", "REGISTRY_ONLY"],
            1,
            "refused not_registered",
        ),
        (&["shop/near", "shop/client:9000"], 0, "carried local"),
        (&["shop/near", "shop/client:9000", "--same-node", "encrypt"], 0, "carried proxied"),
    ] {
        let (found, words, answer) = files.explained(args)?;
        assert_eq!((found, words.as_str()), (Some(code), said), "{args:?}: {answer:#}");
    }
    Ok(())
}

#[test]
fn a_route_is_named_with_those_that_lost_and_why() -> Result<()> {
    let files = files()?;
    let (_, _, answer) =
        files.explained(&["shop/client", "cart", "GET", "/half", "-H", "version: v2"])?;
    let route = step(&answer, "route")?;
    assert_eq!(rules(route, "won"), ["VirtualService shop/cart second: the first that matches"]);
    let lost = [
        "VirtualService shop/cart half: it matches, and comes later",
        "VirtualService shop/cart first: it matches, and comes later",
    ];
    assert_eq!(rules(route, "lost"), lost);
    let destination = step(&answer, "destination")?;
    assert_eq!(
        rules(destination, "won"),
        ["DestinationRule shop/cart v2: is about the destination"]
    );
    assert_eq!(answer["ways"][0]["endpoints"], serde_json::json!(["10.2.0.2:8080"]));

    let (_, _, answer) = files.explained(&["shop/client", "cart", "GET", "/x"])?;
    let lost = [
        "VirtualService shop/cart second: the header version does not match",
        "VirtualService shop/cart half: the path does not match",
    ];
    assert_eq!(rules(step(&answer, "route")?, "lost"), lost);

    // Both ways end in the same way: they are told as one.
    let (_, _, answer) = files.explained(&["shop/client", "cart", "GET", "/half"])?;
    let mut endpoints: Vec<&Value> =
        answer["ways"][0]["endpoints"].as_array().context("none")?.iter().collect();
    endpoints.sort_by_key(ToString::to_string);
    assert_eq!(endpoints, ["10.2.0.1:8080", "10.2.0.2:8080"]);
    assert_eq!(answer["ways"][0]["percent"], 100.0);
    Ok(())
}

#[test]
fn policies_are_named_with_what_has_matched_or_has_not() -> Result<()> {
    let files = files()?;
    let (_, _, answer) = files.explained(&["shop/client", "near:80"])?;
    let arrive = step(&answer, "arrive")?;
    assert_eq!(arrive["at"], "the kernel of node a");
    let lost = "AuthorizationPolicy shop/near-only : ALLOW does not match: rule[0] from[0] serviceAccounts";
    assert_eq!(rules(arrive, "lost"), [lost]);
    assert_eq!(rules(arrive, "won"), ["PeerAuthentication shop/strict : port 8080 is STRICT"]);
    let maps = arrive["lookups"].as_array().context("no lookups")?;
    assert!(maps.iter().any(|one| one["map"] == "POLICY" && one["value"] == "none"), "{maps:?}");
    let detail =
        "not allowed by AuthorizationPolicy shop/near-only, rule[0] from[0] serviceAccounts";
    assert_eq!(answer["detail"], detail);

    let (_, _, answer) = files.explained(&["shop/client", "cart", "GET", "/admin/x"])?;
    assert_eq!(
        (&answer["status"], &answer["decidedAt"]),
        (&403.into(), &"the agent of node b".into())
    );
    let won = "AuthorizationPolicy shop/no-admin 0: DENY matches: rule[0] to[0] paths";
    assert_eq!(rules(step(&answer, "judge")?, "won"), [won]);
    let text =
        String::from_utf8(files.explain(&["shop/client", "cart", "GET", "/admin/x"])?.stdout)?;
    for part in [
        "REFUSED (policy_denied, status 403, by the agent of node b)",
        "VirtualService shop/cart, rule first",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    Ok(())
}

#[test]
fn who_cannot_be_meant_is_told_who_may_be() -> Result<()> {
    let files = files()?;
    for (args, part) in [
        (&["shop/clinet", "cart"][..], "there is no pod shop/clinet; is it shop/client?"),
        (&["shop/client", "crat"], "is called \"crat\"; is it cart?"),
        (&["shop/client", "shop/caart"], "neither a service nor a pod shop/caart; is it shop/cart"),
        (&["shop/client", "near"], "say which port of service shop/near, NAME:PORT; it has 80, 81"),
        (&["shop/client", "near:82"], "has no TCP port 82; it has 80, 81"),
        (&["shop/client", "10.1.0.2"], "services lead to it at 8080, 8081"),
        (&["10.9.9.9", "cart"], "no pod has the address 10.9.9.9"),
        (&["shopp", "cart"], "is it shop?"),
        (&["shop", "near:80"], "pods of shop get different answers"),
        (&["shop/client", "cart", "GET", "x"], "PATH begins with a slash"),
        (&["shop/client", "cart", "GET", "/", "-H", "nonsense"], "is not NAME: VALUE"),
    ] {
        let output = files.explain(args)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(complaint.contains(part), "{args:?}: {complaint}");
    }
    let nobody = Command::new(locate("undermesh")?)
        .args(["explain", "--admin", "127.0.0.1:1", "shop/client", "cart"])
        .output()?;
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no agent answers at 127.0.0.1:1"));
    Ok(())
}
