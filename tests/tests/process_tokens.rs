//! `undermesh explain` on files, of requests with tokens: verified with the keys that a rule has, and with none where they
//! are elsewhere.

use std::process::Output;

use anyhow::Result;
use serde_json::{Value, json};
use undermesh_tests::{Files, Issuer};

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {nodeName: b}
status: {podIPs: [{ip: 10.2.0.1}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admins, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin]}}]
    when: [{key: 'request.auth.claims[role]', notValues: [admin]}]
";

/// Who asks for what.
const ENDS: [&str; 2] = ["shop/client", "shop/cart:8080"];

/// The pods, with these rules about tokens.
fn shop(rules: &str) -> Result<Files> {
    let tokens = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: tokens, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: cart}}}}, jwtRules: [{rules}]}}\n"
    );
    Files::new(&[("pods.yaml", PODS), ("tokens.yaml", &tokens)])
}

fn explain(files: &Files, args: &[&str]) -> Result<Output> {
    files.explain(&[&ENDS[..], args].concat())
}

/// Exit code, verdict and reason; and the whole answer.
fn explained(files: &Files, args: &[&str]) -> Result<(Option<i32>, String, Value)> {
    files.explained(&[&ENDS[..], args].concat())
}

fn claims() -> Value {
    json!({"iss": "me", "aud": "shop", "sub": "you", "exp": Issuer::within(600)})
}

fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[test]
fn a_token_is_verified_where_the_rule_has_its_keys() -> Result<()> {
    let (issuer, stranger) = (Issuer::new("key")?, Issuer::new("key")?);
    let rule = format!(
        "{{issuer: me, audiences: [shop], jwks: '{}', fromHeaders: [{{name: authorization, \
         prefix: 'Bearer '}}], fromParams: [token], fromCookies: [session]}}",
        issuer.set()?
    );
    let files = shop(&rule)?;
    for (token, code, said) in [
        (issuer.token(&claims())?, 0, "carried proxied"),
        (stranger.token(&claims())?, 1, "refused jwt_bad_signature"),
        (issuer.token(&but("exp", json!(Issuer::within(-600))))?, 1, "refused jwt_expired"),
        (issuer.token(&but("nbf", json!(Issuer::within(600))))?, 1, "refused jwt_not_yet_valid"),
        (issuer.token(&but("iss", json!("you")))?, 1, "refused jwt_unknown_issuer"),
        (issuer.token(&but("aud", json!("other")))?, 1, "refused jwt_wrong_audience"),
        ("nonsense".to_owned(), 1, "refused jwt_malformed"),
    ] {
        for carried in [
            ["GET", "/", "-H", &bearer(&token)],
            ["GET", &format!("/?token={token}"), "-H", "x: y"],
            ["GET", "/", "-H", &format!("cookie: session={token}")],
        ] {
            let (found, words, answer) = explained(&files, &carried)?;
            assert_eq!((found, words.as_str()), (Some(code), said), "{carried:?}: {answer:#}");
            assert!(!answer.to_string().contains(&token), "{answer:#}");
        }
    }
    let several = ["-H", &bearer(&issuer.token(&claims())?), "-H", "cookie: session=other"];
    let (_, words, _) = explained(&files, &[&["GET", "/"][..], &several].concat())?;
    assert_eq!(words, "refused jwt_several");
    // What it claims decides only if it is good.
    let admin = bearer(&issuer.token(&but("role", json!("admin")))?);
    let forged = bearer(&stranger.token(&but("role", json!("admin")))?);
    for (token, said) in [
        (bearer(&issuer.token(&claims())?), "refused policy_denied"),
        (admin, "carried proxied"),
        (forged, "refused jwt_bad_signature"),
    ] {
        assert_eq!(explained(&files, &["GET", "/admin", "-H", &token])?.1, said);
    }
    let text = explain(&files, &["GET", "/", "-H", &bearer(&stranger.token(&claims())?)])?.stdout;
    let text = String::from_utf8(text)?;
    for part in [
        "authenticate the agent of node b            its token is not good",
        "- RequestAuthentication shop/tokens: looks for tokens of \"me\": Jwt verification fails, by the rule's keys",
        "REFUSED (jwt_bad_signature, status 401, by the agent of node b)",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("good signature"), "nothing is to be taken for granted: {text}");
    Ok(())
}

#[test]
fn what_keys_elsewhere_would_say_is_left_open() -> Result<()> {
    let issuer = Issuer::new("key")?;
    let files = shop("{issuer: me, audiences: [shop], jwksUri: 'https://me/keys'}")?;
    let ask = |path: &str, claims: &Value| {
        explained(&files, &["GET", path, "-H", &bearer(&issuer.token(claims)?)])
    };
    let (code, words, answer) = ask("/", &claims())?;
    assert_eq!((code, words.as_str()), (Some(2), "depends keys_not_at_hand"), "{answer:#}");
    let detail = "the keys of \"me\" are not at hand: nobody has fetched them; the agent of node b fetches them";
    assert_eq!(answer["detail"], detail);
    let assumed = json!("the token for \"me\" has a good signature");
    let assumes =
        |answer: &Value| answer["assumptions"].as_array().is_some_and(|all| all.contains(&assumed));
    assert!(assumes(&answer), "{answer:#}");
    // No signature makes these good.
    for (path, claims, said) in [
        ("/", but("exp", json!(Issuer::within(-600))), "refused jwt_expired"),
        ("/", but("aud", json!("other")), "refused jwt_wrong_audience"),
        ("/admin", claims(), "refused policy_denied"),
    ] {
        let (code, words, answer) = ask(path, &claims)?;
        assert_eq!((code, words.as_str()), (Some(1), said), "{answer:#}");
        assert!(assumes(&answer), "{answer:#}");
    }
    let (code, words, _) = explained(&files, &["GET", "/"])?;
    assert_eq!((code, words.as_str()), (Some(0), "carried proxied"), "without a token");
    // A rule that has keys makes up for one that has none.
    let rules = format!(
        "{{issuer: other, jwksUri: 'https://other/keys'}}, {{issuer: me, jwks: '{}'}}",
        issuer.set()?
    );
    let files = shop(&rules)?;
    let (code, words, answer) =
        explained(&files, &["GET", "/", "-H", &bearer(&issuer.token(&claims())?)])?;
    assert_eq!((code, words.as_str()), (Some(0), "carried proxied"), "{answer:#}");
    let all = answer["assumptions"].to_string();
    assert!(!all.contains("signature"), "nothing is to be taken for granted: {all}");
    Ok(())
}
