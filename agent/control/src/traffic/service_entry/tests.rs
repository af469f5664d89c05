//! Manifests in, nouns and findings out.

mod objects;
mod refused;
mod unsupported;

use undermesh_model::traffic::ServiceEntry;

use crate::fixtures::load;

/// An entry in `shop` with this `spec`.
fn entry(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: e, namespace: shop}}\nspec: {spec}\n"
    )
}

/// An entry for `a.example.com`, port 80, with these fields more.
fn with(fields: &str) -> String {
    entry(&format!(
        "{{hosts: [a.example.com], ports: [{{number: 80, name: http, protocol: HTTP}}], {fields}}}"
    ))
}

/// The entry, if nothing is refused, and the findings without place and object.
fn read(text: &str) -> (Option<ServiceEntry>, Vec<String>) {
    let loaded = load(text);
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    let entry = loaded.cluster.and_then(|cluster| cluster.service_entries.into_values().next());
    (entry, said.collect())
}

/// The entry of a text that nothing is said against.
fn quiet(text: &str) -> ServiceEntry {
    let (entry, said) = read(text);
    assert_eq!(said, Vec::<String>::new(), "{text}");
    entry.unwrap()
}
