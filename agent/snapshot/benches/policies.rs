//! Policy check: one connection, or one request, judged by so many policies, of which none or only the last is
//! about it.
//!
//! `cargo bench -p undermesh-snapshot --bench policies`. Claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{hint::black_box, sync::Arc};

use criterion::Criterion;
use http::HeaderMap;
use undermesh_model::{
    AuthorizationPolicy, NamespacedName, Operation, PathMatch, PolicyAction, ResourceRef, Rule,
    Source, TextMatch, Values,
};
use undermesh_snapshot::{
    CompiledPolicy, ConnectionAttributes, RequestAttributes, Statement, evaluate, evaluate_request,
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for policies in [0, 1, 10, 100, 1000] {
        judged(&mut criterion, policies);
    }
    criterion.final_summary();
}

/// Half of the policies are DENY, half are ALLOW; the last of these lets the request pass.
fn judged(criterion: &mut Criterion, policies: usize) {
    let mut policy = CompiledPolicy::default();
    for number in 0..policies {
        let (action, list) = if number % 2 == 0 && number + 1 < policies {
            (PolicyAction::Deny, &mut policy.deny)
        } else {
            (PolicyAction::Allow, &mut policy.allow)
        };
        let path = if number + 1 == policies { "/shop/*".to_owned() } else { path(number) };
        list.push(Arc::new(Statement::new(&about(number, action, &path))));
    }
    let client = "spiffe://cluster.local/ns/shop/sa/client".parse().unwrap();
    let connection = ConnectionAttributes {
        source: Some(&client),
        source_address: [10, 0, 0, 1].into(),
        destination: ([10, 0, 0, 2], 8080).into(),
    };
    let mut group = criterion.benchmark_group("policy check");
    group.bench_function(format!("connection, {policies} policies"), |bencher| {
        bencher.iter(|| evaluate(&policy, black_box(&connection)));
    });
    let headers = HeaderMap::new();
    let hosts = ["cart:8080".to_owned(), "cart".to_owned()];
    // A path that servers may read in several ways is judged in all of them.
    for readings in [1, 4] {
        let paths: Vec<String> = (0..readings).map(|number| format!("/shop/{number}")).collect();
        let request = RequestAttributes {
            method: "GET",
            hosts: &hosts,
            paths: &paths,
            headers: &headers,
            claims: None,
            remote: [10, 0, 0, 1].into(),
        };
        let decision = evaluate_request(&policy, &connection, &request);
        assert!(decision.allowed, "{decision}");
        let of = if readings == 1 { "" } else { " of 4 readings" };
        group.bench_function(format!("request{of}, {policies} policies"), |bencher| {
            bencher.iter(|| evaluate_request(&policy, &connection, black_box(&request)));
        });
    }
}

fn path(number: usize) -> String {
    format!("/admin/{number}/*")
}

fn about(number: usize, action: PolicyAction, path: &str) -> AuthorizationPolicy {
    let of = |text: &str| Values { any_of: vec![TextMatch::parse(text)], none_of: Vec::new() };
    let paths = Values { any_of: vec![PathMatch::parse(path).unwrap()], none_of: Vec::new() };
    AuthorizationPolicy {
        origin: ResourceRef::namespaced("AuthorizationPolicy", "shop", "policy"),
        name: NamespacedName::new("shop", format!("policy-{number}")),
        action,
        provider: None,
        selector: [].into(),
        dry_run: false,
        rules: vec![Rule {
            from: vec![Source { namespaces: of("shop"), ..Source::default() }],
            to: vec![Operation { paths, ..Operation::default() }],
            ..Rule::default()
        }],
    }
}
