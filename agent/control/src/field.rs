//! How findings write the place of a field in its object.

/// Joins keys and positions: `spec.ports[0].port`, `metadata.labels["istio.io/dataplane-mode"]`.
pub(crate) fn name(path: &[&str]) -> String {
    let mut name = String::new();
    for step in path {
        if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
            name += &format!("[{step}]");
        } else if step.is_empty() || !step.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            name += &format!("[{step:?}]");
        } else {
            let dot = if name.is_empty() { "" } else { "." };
            name += &format!("{dot}{step}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_users_look_for_them() {
        for (path, expected) in [
            (&["spec", "ports", "0", "port"][..], "spec.ports[0].port"),
            (&["metadata", "labels", "istio.io/x"], "metadata.labels[\"istio.io/x\"]"),
            (&["items", "12"], "items[12]"),
            (&[], ""),
        ] {
            assert_eq!(name(path), expected);
        }
    }
}
