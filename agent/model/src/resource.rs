//! References to the configuration objects that rules and diagnostics come from.

use std::fmt;

use serde::Serialize;

/// Namespace and name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NamespacedName {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name, unique in the namespace for its kind.
    pub name: String,
}

impl NamespacedName {
    /// Joins a namespace and a name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names one configuration object the way users write it: `Pod shop/cart-0`, `Node worker-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ResourceRef {
    /// The Kubernetes kind, `Pod` for example.
    pub kind: &'static str,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ResourceRef {
    /// A namespaced object.
    pub fn namespaced(
        kind: &'static str,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// A cluster-scoped object.
    pub fn cluster_scoped(kind: &'static str, name: impl Into<String>) -> Self {
        Self { kind, namespace: String::new(), name: name.into() }
    }

    /// The same, borrowed.
    pub fn named(&self) -> ObjectName<'_> {
        ObjectName { kind: self.kind, namespace: &self.namespace, name: &self.name }
    }
}

/// What a [`ResourceRef`] says, in text of somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectName<'a> {
    /// The Kubernetes kind.
    pub kind: &'a str,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl<'a> ObjectName<'a> {
    /// How it is written, `KIND NAMESPACE/NAME`, in its parts: for whoever has none of its own text to format.
    pub fn words(self) -> [&'a str; 5] {
        let Self { kind, namespace, name } = self;
        [kind, " ", namespace, if namespace.is_empty() { "" } else { "/" }, name]
    }
}

impl fmt::Display for ObjectName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().into_iter().try_for_each(|word| f.write_str(word))
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named().fmt(f)
    }
}
