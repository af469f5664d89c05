//! Manifests in, nouns and findings out.

use undermesh_model::{
    Cluster, Condition, JwtKeys, JwtRule, MtlsMode, PolicyAction, PrincipalMatch,
    ServiceAccountMatch, TextMatch, TokenLocation, Values,
};

use crate::fixtures::{findings, load};

/// The cluster (an empty one where there are errors), and the findings without place and object.
fn read(text: &str) -> (Cluster, Vec<String>) {
    let loaded = load(text);
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    (loaded.cluster.unwrap_or_default(), said.collect())
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn peer(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\n\
         metadata: {{name: p, namespace: shop, creationTimestamp: '2024-01-01T00:00:01Z'}}\nspec: {spec}\n"
    )
}

#[test]
fn a_peer_authentication_is_read_with_ports_as_numbers_and_as_text() {
    let text = peer(
        "{selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT},
          portLevelMtls: {80: {mode: DISABLE}, '81': {mode: PERMISSIVE}, 82: {}}}",
    );
    let (cluster, said) = read(&text);
    assert_eq!(said, Vec::<String>::new());
    let read = cluster.peer_authentications.values().next().unwrap();
    assert_eq!(read.selector, [("app".to_owned(), "cart".to_owned())].into());
    assert_eq!(read.mode, Some(MtlsMode::Strict));
    assert_eq!(read.created, Some(1_704_067_201));
    let ports: Vec<_> = read.ports.clone().into_iter().collect();
    let expected = [(80, Some(MtlsMode::Disable)), (81, Some(MtlsMode::Permissive)), (82, None)];
    assert_eq!(ports, expected);
    let (cluster, said) = read_unset();
    assert_eq!((cluster.peer_authentications.values().next().unwrap().mode, said), (None, vec![]));
}

fn read_unset() -> (Cluster, Vec<String>) {
    read(&peer("{mtls: {mode: UNSET}}"))
}

#[test]
fn an_authorization_policy_is_read_field_by_field() {
    let (cluster, said) = read(&policy(
        "
  action: DENY
  selector: {matchLabels: {app: cart}}
  rules:
  - from:
    - source: {principals: ['*/sa/web'], notNamespaces: [other, 'o*'], ipBlocks: [10.0.0.0/8]}
    - source: {serviceAccounts: [web, other/web]}
    to:
    - operation: {ports: ['80'], notPorts: ['81']}
    when:
    - {key: source.ip, notValues: [fd00::1]}
    - {key: destination.port, values: ['80']}
    - {key: source.serviceAccount, values: [web]}",
    ));
    assert_eq!(said, Vec::<String>::new());
    let read = cluster.authorization_policies.values().next().unwrap();
    assert_eq!((read.action, read.dry_run), (PolicyAction::Deny, false));
    let rule = &read.rules[0];
    assert_eq!(rule.from[0].principals.any_of, [TextMatch::Suffix("/sa/web".to_owned())]);
    assert_eq!(rule.from[0].namespaces.none_of[1], TextMatch::Prefix("o".to_owned()));
    assert_eq!(rule.from[0].addresses.any_of, ["10.0.0.0/8".parse().unwrap()]);
    let account = |namespace: &str| ServiceAccountMatch {
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
    };
    assert_eq!(rule.from[1].service_accounts.any_of, [account("shop"), account("other")]);
    assert_eq!(rule.to[0].ports, Values { any_of: vec![80], none_of: vec![81] });
    let values = Values { any_of: vec![], none_of: vec!["fd00::1/128".parse().unwrap()] };
    assert_eq!(rule.when[0], Condition::SourceAddress(values));
    assert_eq!(rule.when.len(), 3);
    assert!(rule.unknown.is_empty());
}

#[test]
fn an_empty_policy_is_an_allow_without_rules() {
    for spec in ["{}", "{action: ALLOW}", "{rules: []}"] {
        let (cluster, said) = read(&policy(spec));
        let read = cluster.authorization_policies.values().next().unwrap();
        assert_eq!((read.action, read.rules.len(), said), (PolicyAction::Allow, 0, vec![]));
    }
    let text = policy("{}")
        .replace("namespace: shop}", "namespace: shop, annotations: {istio.io/dry-run: 'true'}}");
    assert!(read(&text).0.authorization_policies.values().next().unwrap().dry_run);
}

#[test]
fn what_is_asked_of_requests_is_read() {
    let (cluster, said) = read(&policy(
        "
  action: CUSTOM
  provider: {name: guard}
  rules:
  - from:
    - source: {requestPrincipals: ['https://a.example/*'], notRemoteIpBlocks: [10.0.0.1]}
    to:
    - operation: {hosts: ['Cart.Shop'], notMethods: [GET], paths: ['/a/{*}', '/b*']}
    when:
    - {key: 'request.headers[X-User]', values: [b]}
    - {key: 'request.auth.claims[a][b]', notValues: [c]}
    - {key: request.auth.audiences, values: [d]}
    - {key: request.auth.presenter, values: [e]}
    - {key: remote.ip, values: [10.0.0.0/8]}
    - {key: source.trustDomain, values: [cluster.local]}",
    ));
    assert_eq!(said, Vec::<String>::new());
    let read = cluster.authorization_policies.values().next().unwrap();
    assert_eq!((read.action, read.provider.as_deref()), (PolicyAction::Custom, Some("guard")));
    let rule = &read.rules[0];
    assert_eq!(
        rule.from[0].request_principals.any_of,
        [PrincipalMatch::parse("https://a.example/*")]
    );
    assert_eq!(rule.from[0].remote_addresses.none_of, ["10.0.0.1/32".parse().unwrap()]);
    let to = &rule.to[0];
    assert_eq!(to.hosts.any_of, [TextMatch::Exact("cart.shop".to_owned())]);
    assert_eq!(to.methods.none_of, [TextMatch::Exact("GET".to_owned())]);
    assert!(to.paths.any_of[0].matches("/a/x") && to.paths.any_of[1].matches("/bc"));
    let names: Vec<String> = rule.when.iter().map(named).collect();
    assert_eq!(names, ["x-user", "a.b", "aud", "azp", "remote", "domain"]);
}

fn named(condition: &Condition) -> String {
    match condition {
        Condition::RequestHeader(name, _) => name.clone(),
        Condition::RequestClaim(path, _) => path.join("."),
        Condition::RemoteAddress(_) => "remote".to_owned(),
        Condition::SourceTrustDomain(_) => "domain".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_is_for_waypoints_alone_has_no_effect_and_that_is_said() {
    for spec in [
        "{targetRefs: [{kind: Service, name: a, group: ''}]}",
        "{targetRef: {kind: Gateway, name: a, group: g}}",
    ] {
        let (cluster, said) = read(&policy(spec));
        assert!(cluster.authorization_policies.is_empty());
        assert!(said.len() == 1 && said[0].starts_with("Warning not-enforced"), "{said:?}");
    }
}

#[test]
fn fields_that_nobody_knows_are_warnings_and_never_widen_a_rule() {
    for (text, unknown) in [
        (policy("{slector: {matchLabels: {a: b}}, action: DENY}"), "\"slector\" of spec"),
        (policy("{rules: [{form: []}]}"), "\"form\" of spec.rules.[]"),
        (peer("{mtls: {mode: STRICT, level: 3}}"), "\"level\" of spec.mtls"),
        (policy("{rules: [{from: [{source: {principles: [a]}}]}]}"), "\"principles\" of a source"),
        (policy("{rules: [{when: [{key: source.port, values: [a]}]}]}"), "\"source.port\""),
        (policy("{rules: [{when: [{key: 'source.x[]', values: [a]}]}]}"), "\"source.x[]\""),
    ] {
        let (cluster, said) = read(&text);
        assert!(said.iter().all(|one| one.starts_with("Warning ")), "{said:?}");
        assert!(said.iter().any(|one| one.contains(unknown)), "{unknown} is not in {said:?}");
        for policy in cluster.authorization_policies.values() {
            let in_rule = unknown.contains("source");
            let is_kept = policy.rules.iter().all(|rule| rule.unknown.len() == 1);
            assert!(!in_rule || is_kept, "{unknown} was passed over");
        }
    }
}

#[test]
fn mistakes_reject_the_state() {
    for text in [
        policy("{rules: [{from: [{source: {}}]}]}"),
        policy("{rules: [{from: [{}]}]}"),
        policy("{action: CUSTOM}"),
        policy("{provider: {name: x}}"),
        policy("{rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]}"),
        policy("{rules: [{to: [{operation: {ports: []}}]}]}"),
        policy("{rules: [{to: [{operation: {ports: ['http']}}]}]}"),
        policy("{rules: [{to: [{operation: {ports: ['0']}}]}]}"),
        policy("{rules: [{to: [{operation: {ports: ['70000']}}]}]}"),
        policy("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}"),
        policy("{rules: [{from: [{source: {principals: ['']}}]}]}"),
        policy("{rules: [{from: [{source: {serviceAccounts: ['*']}}]}]}"),
        policy("{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}"),
        policy("{rules: [{when: [{key: source.ip}]}]}"),
        policy("{rules: {from: []}}"),
        policy("{action: PERHAPS}"),
        policy("{rules: [{from: [{source: {principals: web}}]}]}"),
        policy("{}").replace(
            "namespace: shop}",
            "namespace: shop, annotations: {istio.io/dry-run: 'yes'}}",
        ),
        policy("{}").replace("security.istio.io/v1", "security.istio.io/v2"),
        peer("{mtls: {mode: SOMETIMES}}"),
        peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}"),
        peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}"),
        peer("{selector: {}, portLevelMtls: {80: {mode: STRICT}}}"),
    ] {
        let (_, said) = read(&text);
        assert!(said.iter().any(|one| one.starts_with("Error ")), "accepted: {text}{said:?}");
    }
}

#[test]
fn findings_name_the_line_of_the_rule_or_field() {
    let head = policy("").replace("spec: \n", "spec:\n");
    for (rest, expected) in [
        ("  action: CUSTOM\n", "Error all.yaml:5: AuthorizationPolicy shop/p: action CUSTOM"),
        ("  rule: []\n", "Warning all.yaml:5: AuthorizationPolicy shop/p: field \"rule\" of spec"),
        (
            "  rules:\n  - to: [{operation: {ports: ['80']}}]\n  - to: [{operation: {ports: [x]}}]\n",
            "Error all.yaml:7: AuthorizationPolicy shop/p: \"x\" is no value of ports",
        ),
        (
            "  rules:\n  - to:\n    - operation:\n        ports:\n        - 80\n",
            "Error all.yaml:9: AuthorizationPolicy shop/p: \
             spec.rules[0].to[0].operation.ports[0]: invalid type: integer",
        ),
        ("  action: PERHAPS\n", "Error all.yaml:5: AuthorizationPolicy shop/p: spec.action: unkn"),
    ] {
        let found = findings(&format!("{head}{rest}"));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected:?}: {found:#?}");
    }
}

#[test]
fn kinds_of_other_groups_are_other_kinds_and_the_core_group_is_a_mistake() {
    let other = policy("{}").replace("security.istio.io/v1", "policy.linkerd.io/v1alpha1");
    let (cluster, said) = read(&other);
    assert!(cluster.authorization_policies.is_empty());
    assert!(said.len() == 1 && said[0].starts_with("Warning unread-kind"), "{said:?}");
    let (_, said) = read(&policy("{}").replace("security.istio.io/v1", "v1"));
    assert!(said.len() == 1 && said[0].starts_with("Error unknown-api-version"), "{said:?}");
}

#[test]
fn a_policy_that_is_written_twice_rejects_the_state() {
    let (_, said) = read(&format!("{0}---\n{0}", policy("{}")));
    assert!(said.iter().any(|one| one.starts_with("Error duplicate-object")), "{said:?}");
}

fn tokens(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn a_request_authentication_is_read_field_by_field() {
    let (cluster, said) = read(&tokens(
        "
  selector: {matchLabels: {app: cart}}
  jwtRules:
  - issuer: me
    audiences: [a]
    jwksUri: https://keys.example/set
    fromHeaders: [{name: X-Token, prefix: 'T '}]
    fromParams: [token]
    fromCookies: [session]
    outputPayloadToHeader: X-Payload
    forwardOriginalToken: true
    outputClaimToHeaders: [{header: X-Sub, claim: sub}]
    spaceDelimitedClaims: [roles]
    timeout: 2s
  - issuer: https://me.example
  - {issuer: you, jwks: '{\"keys\": []}'}",
    ));
    assert_eq!(said, Vec::<String>::new());
    let read = cluster.request_authentications.values().next().unwrap();
    assert_eq!(read.selector["app"], "cart");
    let location = |name: &str| name.to_owned();
    assert_eq!(
        read.rules[0],
        JwtRule {
            origin: read.origin.clone(),
            issuer: "me".to_owned(),
            audiences: vec!["a".to_owned()],
            keys: JwtKeys::Uri("https://keys.example/set".to_owned()),
            locations: vec![
                TokenLocation::Header(location("x-token"), "T ".to_owned()),
                TokenLocation::Parameter(location("token")),
                TokenLocation::Cookie(location("session")),
            ],
            forward: true,
            payload_header: Some("x-payload".to_owned()),
            claim_headers: vec![("x-sub".to_owned(), "sub".to_owned())],
            words: vec!["roles".to_owned()],
            timeout: std::time::Duration::from_secs(2),
        }
    );
    let plain = &read.rules[1];
    assert_eq!((&plain.keys, plain.forward), (&JwtKeys::Discovered, false));
    assert_eq!(plain.locations.len(), 2, "the places of RFC 6750");
    assert_eq!(plain.words, ["scope", "permission"]);
    assert!(matches!(read.rules[2].keys, JwtKeys::Inline(_)));
}

#[test]
fn a_request_authentication_that_cannot_be_meant_rejects_the_state() {
    for rule in [
        "{}",
        "{issuer: a, audiences: ['']}",
        "{issuer: a, jwks: 'no keys'}",
        "{issuer: a, jwks: '{}'}",
        "{issuer: a, jwksUri: 'ftp://a'}",
        "{issuer: a, fromHeaders: [{name: 'a b'}]}",
        "{issuer: a, fromParams: ['']}",
        "{issuer: a, fromCookies: ['']}",
        "{issuer: a, outputClaimToHeaders: [{header: b}]}",
        "{issuer: a, outputPayloadToHeader: 'a b'}",
        "{issuer: a, timeout: soon}",
    ] {
        let (_, said) = read(&tokens(&format!("{{jwtRules: [{rule}]}}")));
        assert!(said.iter().any(|one| one.starts_with("Error ")), "accepted: {rule}{said:?}");
    }
    let (cluster, said) = read(&tokens("{targetRefs: [{kind: Gateway, name: a, group: g}]}"));
    assert!(cluster.request_authentications.is_empty());
    assert!(said.len() == 1 && said[0].starts_with("Warning not-enforced"), "{said:?}");
}
