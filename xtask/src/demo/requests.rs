//! What the demo shows of requests: a route at the client's node, a policy at the server's.

use anyhow::{Result, ensure};

use super::{
    show::{Steps, quoted, say, typed},
    story::{Demo, MARKER, SECOND},
};

/// How often a request is made of which it is said where it goes.
const TIMES: usize = 5;

const ROUTE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: recipes, namespace: shop}
spec:
  host: recipes
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: recipes, namespace: shop}
spec:
  hosts: [recipes]
  http:
  - match: [{headers: {version: {exact: v2}}}]
    route: [{destination: {host: recipes, subset: v2}}]
  - route: [{destination: {host: recipes, subset: v1}}]
";

const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*]}}]
";

/// Paths by which somebody might hope to get around the policy.
const DETOURS: [&str; 3] = ["/admin", "/x/../admin", "/%61dmin"];

/// Requests with a header go to another version.
pub(super) fn routed(demo: &Demo, steps: &mut Steps) -> Result<()> {
    steps.next(
        "A route: requests with the header \"version: v2\" go to server-v2, others to server",
    );
    typed("manifests", "a DestinationRule with two subsets, and a VirtualService:");
    let rules = ROUTE.lines().skip_while(|line| *line != "  http:");
    quoted(&rules.collect::<Vec<_>>().join("\n"), 4);
    demo.rig.apply("route", ROUTE)?;
    let url = format!("http://{}/recipe", demo.rig.vip("recipes", 80)?);
    for (options, is_second) in [(&[][..], false), (&["-H", "version: v2"], true)] {
        let (succeeded, body) = demo.try_curl_with("client", options, &url)?;
        ensure!(succeeded, "curl failed: {body}");
        ensure!(body.contains(SECOND) == is_second, "the wrong version answered: {body:?}");
        quoted(&body, 1);
        for _ in 1..TIMES {
            let (_, again) = demo.ask("client", options, &url)?;
            ensure!(again == body, "another version answered: {again:?}");
        }
    }
    say(&format!("Each was made {TIMES} times. The access log of the client's node has them all:"));
    let request = [("event", "request"), ("reporter", "source"), ("destination.pod", "server-v2")];
    let fields = ["method", "path", "status", "route", "cluster", "attempts", "duration_ms"];
    show_line(demo, "a", &request, &fields)
}

/// Requests that a policy refuses get no further than the server's node.
pub(super) fn judged(demo: &Demo, steps: &mut Steps) -> Result<()> {
    steps.next("A policy about requests: nobody may ask server for /admin, by whatever spelling");
    demo.rig.apply("no-admin", POLICY)?;
    for path in DETOURS {
        let url = format!("{}{path}", demo.server()?);
        let options = ["--path-as-is", "-w", " (%{http_code})"];
        let (_, answer) = demo.try_curl_with("client", &options, &url)?;
        ensure!(answer.ends_with("(403)"), "the server was asked for {path}: {answer}");
        quoted(&answer, 1);
    }
    let (_, body) = demo.ask("client", &[], &demo.server_url()?)?;
    ensure!(body.contains(MARKER), "the policy refuses too much: {body:?}");
    say("Everything else is served as before. The access log of the server's node says why:");
    let request = [("event", "request"), ("reason", "policy_denied")];
    show_line(demo, "b", &request, &["source.identity", "path", "status", "reason", "policy"])
}

/// Some fields of a line of the access log.
fn show_line(demo: &Demo, node: &str, wanted: &[(&str, &str)], fields: &[&str]) -> Result<()> {
    let line = demo.rig.agent(node)?.access_log().wait(wanted)?;
    for field in fields {
        say(&format!("{field:22} {}", line.get(field)));
    }
    Ok(())
}
