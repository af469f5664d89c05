//! RuntimeClass: what runs the containers of pods that name it.

use k8s_openapi::api::node::v1 as kube;

use crate::{objects::Placed, report::Subject};

/// Handlers, or beginnings of their names, that run a pod on a kernel of its own.
const OWN_KERNEL: [&str; 4] = ["kata", "runsc", "gvisor", "firecracker"];

/// The name of what runs the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeClass {
    handler: String,
}

/// Reads a RuntimeClass.
pub(crate) fn runtime_class(
    class: kube::RuntimeClass,
    subject: &Subject<'_>,
) -> Placed<RuntimeClass> {
    Placed::new(RuntimeClass { handler: class.handler }, subject)
}

/// Why pods of this class cannot be in the mesh; `None` where they can. Sockets of a pod with a kernel of
/// its own are none of the node's kernel. Where nobody has described the class, its name says what it is.
pub(crate) fn obstacle(name: &str, class: Option<&RuntimeClass>) -> Option<String> {
    let handler = class.map_or(name, |class| &class.handler);
    let has_own = OWN_KERNEL.iter().any(|known| handler.to_ascii_lowercase().starts_with(known));
    has_own.then(|| {
        format!("runtime class {name} ({handler}) gives it a kernel of its own, which programs of the node do not see")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_handler_and_without_one_the_name() {
        let class = |handler: &str| RuntimeClass { handler: handler.to_owned() };
        for (name, class, is_in_the_way) in [
            ("kata-qemu", None, true),
            ("gvisor", None, true),
            ("nvidia", None, false),
            ("secure", Some(class("kata-clh")), true),
            ("secure", Some(class("runsc")), true),
            ("kata", Some(class("runc")), false),
            ("wasm", Some(class("spin")), false),
        ] {
            assert_eq!(obstacle(name, class.as_ref()).is_some(), is_in_the_way, "{name} {class:?}");
        }
    }
}
