//! What a rule is about, and for whom.

use undermesh_model::traffic::{Scope, SimpleBalancer};

use super::{quiet, read, rule};
use crate::fixtures::{findings, name};

#[test]
fn a_rule_is_read_in_every_version_with_its_age_and_its_precedence() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = rule("{host: cart}").replace("io/v1", &format!("io/{version}")).replace(
            "namespace: shop}",
            "namespace: shop, creationTimestamp: '2024-01-01T00:00:01Z', \
             annotations: {undermesh.io/precedence: '-7'}}",
        );
        let read = quiet(&text);
        assert_eq!((read.name, read.precedence), (name("r"), -7));
        assert_eq!(read.created, 1_704_067_201);
        assert_eq!(read.origin.to_string(), "DestinationRule shop/r");
    }
}

#[test]
fn hosts_are_full_names() {
    for (host, expected) in [
        ("cart", "cart.shop.svc.cluster.local"),
        ("cart.bank.svc.cluster.local", "cart.bank.svc.cluster.local"),
        ("API.example.com", "api.example.com"),
        ("'*.example.com'", "*.example.com"),
    ] {
        assert_eq!(quiet(&rule(&format!("{{host: {host}}}"))).host, expected);
    }
}

#[test]
fn a_rule_is_for_the_namespaces_that_it_names() {
    let only =
        |names: &[&str]| Scope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());
    for (spec, expected) in [
        ("{host: cart}", Scope::Everywhere),
        ("{host: cart, exportTo: ['*']}", Scope::Everywhere),
        ("{host: cart, exportTo: ['.', bank]}", only(&["bank", "shop"])),
        ("{host: cart, workloadSelector: {matchLabels: {app: web}}}", only(&["shop"])),
        (
            "{host: cart, exportTo: [shop], workloadSelector: {matchLabels: {app: web}}}",
            only(&["shop"]),
        ),
    ] {
        assert_eq!(quiet(&rule(spec)).scope, expected, "{spec}");
    }
    let read = quiet(&rule("{host: cart, workloadSelector: {matchLabels: {app: web}}}"));
    assert_eq!(read.selector, [("app".to_owned(), "web".to_owned())].into());
}

#[test]
fn a_selector_without_labels_selects_all_and_that_is_said() {
    let (read, said) = read(&rule("{host: cart, workloadSelector: {}}"));
    assert!(read.unwrap().selector.is_empty());
    assert!(said.len() == 1 && said[0].starts_with("Warning empty-selector"), "{said:?}");
}

#[test]
fn subsets_have_labels_and_policies_of_their_own() {
    let read = quiet(&rule(
        "{host: cart, subsets: [
           {name: v1, labels: {version: v1}},
           {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]}",
    ));
    let names: Vec<_> = read.subsets.iter().map(|subset| subset.name.as_str()).collect();
    assert_eq!(names, ["v1", "v2"]);
    assert_eq!(read.subsets[0].labels, [("version".to_owned(), "v1".to_owned())].into());
    assert_eq!(read.subsets[0].policy.balancer, None);
    let balancer = read.subsets[1].policy.balancer.clone().unwrap();
    assert_eq!(balancer.simple, Some(SimpleBalancer::Random));
}

#[test]
fn findings_name_the_line_of_the_field() {
    let head = rule("").replace("spec: \n", "spec:\n  host: cart\n");
    for (rest, expected) in [
        (
            "  trafficPolicy:\n    loadBalancer:\n      consistentHash:\n        httpHeaderName: x\n\
             \x20       maglev:\n          tableSize: 10\n",
            "Error all.yaml:11: DestinationRule shop/r: \
             spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: 10 is no prime",
        ),
        (
            "  subsets:\n  - name: v1\n  - name: v2\n    trafficPolicy:\n      portLevelSettings:\n\
             \x20     - port: {number: 80}\n        outlierDetection:\n          \
             outlierDetectionHttpErrorCodes: [429]\n",
            "Warning all.yaml:13: DestinationRule shop/r: \
             spec.subsets[1].trafficPolicy.portLevelSettings[0].outlierDetection.\
             outlierDetectionHttpErrorCodes: is not supported",
        ),
        (
            "  subsets:\n  - name: v1\n    trafficPolicy:\n      tls:\n        mod: SIMPLE\n",
            "Warning all.yaml:10: DestinationRule shop/r: field \"mod\" of \
             spec.subsets.[].trafficPolicy.tls is not known",
        ),
        (
            "  trafficPolicy:\n    connectionPool:\n      http:\n        maxRetries: many\n",
            "Error all.yaml:9: DestinationRule shop/r: \
             spec.trafficPolicy.connectionPool.http.maxRetries: invalid type",
        ),
    ] {
        let found = findings(&format!("{head}{rest}"));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected:?}: {found:#?}");
    }
}
