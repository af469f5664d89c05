//! Whoever has been told everything has what he is to have: checked against what he would be told from the start.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::distribution::{
    catalogue::{Block, Catalogue},
    scope::Terms,
};

/// Somebody who believes what he is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reader(BTreeMap<String, String>);

impl Reader {
    fn told(&mut self, diff: &Diff) {
        for name in &diff.removed {
            self.0.remove(name);
        }
        for record in &diff.records {
            self.0.insert(record.resource_name(), record.version.clone());
        }
        for (name, version) in
            diff.groups.iter().flat_map(|group| group.blocks()).flat_map(unpacked)
        {
            self.0.insert(name, version);
        }
    }
}

fn unpacked(block: &Block) -> Vec<(String, String)> {
    use crate::distribution::{frames, proto::DeltaDiscoveryResponse};
    let mut frames_ = frames::Frames::default();
    let members = [block.packed.clone()];
    frames_.push(&frames::prefix(&members));
    frames_.push(&members[0]);
    let response: DeltaDiscoveryResponse = frames_.next().unwrap().unwrap();
    response.resources.into_iter().map(|one| (one.name, one.version)).collect()
}

fn terms(narrow: bool) -> Terms {
    Terms { node: "n0".to_owned(), root: "ns0".to_owned(), narrow }
}

/// A change of something.
#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    namespace: usize,
    name: usize,
    /// `None` takes it away.
    detail: Option<usize>,
}

const KINDS: [&str; 8] = [
    "Pod",
    "Namespace",
    "Service",
    "AuthorizationPolicy",
    "ServiceEntry",
    "Sidecar",
    "Secret",
    "PeerAuthentication",
];

impl Step {
    fn make(&self, catalogue: &mut Catalogue) {
        let kind = KINDS[self.kind];
        let (namespace, name) = match kind {
            "Namespace" => (String::new(), format!("ns{}", self.namespace)),
            _ => (format!("ns{}", self.namespace), format!("o{}", self.name)),
        };
        let Some(detail) = self.detail else {
            catalogue.remove(kind, &namespace, &name);
            return;
        };
        let mode = if detail % 2 == 0 { "ambient" } else { "none" };
        let spec: Value = match kind {
            "Pod" => json!({"nodeName": (["", "n0", "n1"][detail % 3])}),
            "ServiceEntry" => json!({"exportTo": ([["."], ["*"], ["ns1"]][detail % 3])}),
            "Sidecar" => {
                json!({"egress": [{"hosts": ([["./*"], ["ns2/*"], ["*/*"]][detail % 3])}]})
            }
            _ => json!({"detail": detail}),
        };
        let labels = match kind {
            "Namespace" => json!({"istio.io/dataplane-mode": mode}),
            "Pod" if detail > 2 => json!({"istio.io/dataplane-mode": mode}),
            _ => Value::Null,
        };
        let object = json!({
            "kind": kind, "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": spec,
        });
        catalogue.put(kind, &object);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (0..KINDS.len(), 0..3_usize, 0..3_usize, proptest::option::weighted(0.8, 0..6_usize))
            .prop_map(|(kind, namespace, name, detail)| Step { kind, namespace, name, detail });
    proptest::collection::vec(step, 1..60)
}

fn from_the_start(catalogue: &Catalogue, scope: &Scope) -> Reader {
    let mut reader = Reader::default();
    reader.told(&diff(catalogue, Has::These(HashMap::new()), scope));
    reader
}

proptest! {
    #[test]
    fn whoever_follows_has_what_he_would_be_told_from_the_start(
        steps in steps(),
        narrow in any::<bool>(),
        looks in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut catalogue = Catalogue::default();
        let terms = terms(narrow);
        let (mut seq, mut scope, mut reader) = (0, catalogue.places().scope(&terms), Reader::default());
        for (index, step) in steps.iter().enumerate() {
            step.make(&mut catalogue);
            if !looks[index] && index + 1 < steps.len() {
                continue;
            }
            let now = catalogue.places().scope(&terms);
            reader.told(&diff(&catalogue, Has::UpTo { seq, scope }, &now));
            (seq, scope) = (catalogue.seq(), now);
            let whole = from_the_start(&catalogue, &scope);
            prop_assert_eq!(&reader, &whole, "after {:?}", &steps[..=index]);
        }
    }

    #[test]
    fn whoever_comes_back_is_told_what_has_changed_and_nothing_else(
        before in steps(),
        after in steps(),
        narrow in any::<bool>(),
    ) {
        let mut catalogue = Catalogue::default();
        let terms = terms(narrow);
        before.iter().for_each(|step| step.make(&mut catalogue));
        let mut reader = from_the_start(&catalogue, &catalogue.places().scope(&terms));
        let known = reader.clone();
        // Another replica numbers its changes in another way.
        let mut other = Catalogue::default();
        before.iter().chain(&after).for_each(|step| step.make(&mut other));
        let now = other.places().scope(&terms);
        let has = known.0.clone().into_iter().collect();
        let news = diff(&other, Has::These(has), &now);
        for record in &news.records {
            prop_assert_ne!(known.0.get(&record.resource_name()), Some(&record.version));
        }
        prop_assert!(news.removed.iter().all(|name| known.0.contains_key(name)));
        reader.told(&news);
        prop_assert_eq!(reader, from_the_start(&other, &now));
    }
}

#[test]
fn a_node_is_not_told_of_what_is_none_of_its_business() {
    let mut catalogue = Catalogue::default();
    let put = |catalogue: &mut Catalogue, kind: &'static str, namespace: &str, spec: Value| {
        let labels = json!({"istio.io/dataplane-mode": "ambient"});
        let metadata = json!({"namespace": namespace, "name": "x", "labels": labels});
        catalogue.put(kind, &json!({"metadata": metadata, "spec": spec}));
    };
    put(&mut catalogue, "Pod", "shop", json!({"nodeName": "n0"}));
    let scope = catalogue.places().scope(&terms(false));
    let seq = catalogue.seq();
    put(&mut catalogue, "AuthorizationPolicy", "bank", json!({"a": 1}));
    put(&mut catalogue, "ServiceEntry", "bank", json!({"exportTo": ["."]}));
    put(&mut catalogue, "Secret", "bank", json!({}));
    catalogue.remove("Secret", "bank", "x");
    put(&mut catalogue, "AuthorizationPolicy", "bank", json!({"a": 2}));
    let now = catalogue.places().scope(&terms(false));
    assert!(diff(&catalogue, Has::UpTo { seq, scope: scope.clone() }, &now).is_empty());
    // And of what becomes it, and ceases to be.
    put(&mut catalogue, "ServiceEntry", "bank", json!({"exportTo": ["shop"]}));
    let told = diff(&catalogue, Has::UpTo { seq, scope: scope.clone() }, &now);
    assert_eq!((told.resources(), told.removed.len()), (1, 0));
    let seq = catalogue.seq();
    put(&mut catalogue, "ServiceEntry", "bank", json!({"exportTo": ["."]}));
    let told = diff(&catalogue, Has::UpTo { seq, scope }, &now);
    assert_eq!((told.resources(), told.removed), (0, vec!["ServiceEntry/bank/x".to_owned()]));
}
