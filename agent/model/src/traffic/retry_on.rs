//! Names of the conditions for a retry, as they are written and shown.
//!
//! Source: Envoy, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.

use super::RetryOn;

/// Each condition's name, and where it stands.
type Named = (&'static str, fn(&mut RetryOn) -> &mut bool);

const CONDITIONS: [Named; 8] = [
    ("5xx", |on| &mut on.server_errors),
    ("gateway-error", |on| &mut on.gateway_errors),
    ("reset", |on| &mut on.reset),
    ("reset-before-request", |on| &mut on.reset_before_request),
    ("connect-failure", |on| &mut on.connect_failure),
    ("refused-stream", |on| &mut on.refused_stream),
    ("retriable-4xx", |on| &mut on.conflict),
    ("envoy-ratelimited", |on| &mut on.rate_limited),
];

/// Statuses of gRPC.
const GRPC: [(&str, u16); 5] = [
    ("cancelled", 1),
    ("deadline-exceeded", 4),
    ("resource-exhausted", 8),
    ("internal", 13),
    ("unavailable", 14),
];

impl RetryOn {
    /// Adds the condition of this name; says whether there is one.
    pub fn add(&mut self, name: &str) -> bool {
        if let Some((_, condition)) = CONDITIONS.iter().find(|(known, _)| *known == name) {
            *condition(self) = true;
            return true;
        }
        let status = GRPC.iter().find(|(known, _)| *known == name);
        self.grpc.extend(status.map(|(_, status)| status));
        status.is_some()
    }

    /// The names of its conditions; codes and statuses that have none, as numbers.
    pub fn names(&self) -> Vec<String> {
        let mut on = self.clone();
        let named = CONDITIONS.iter().filter(|(_, condition)| *condition(&mut on));
        let mut names: Vec<String> = named.map(|(name, _)| (*name).to_owned()).collect();
        names.extend(self.codes.iter().map(ToString::to_string));
        names.extend(self.grpc.iter().map(|status| {
            let named = GRPC.iter().find(|(_, known)| known == status);
            named.map_or_else(|| format!("grpc-status {status}"), |(name, _)| (*name).to_owned())
        }));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_shown_by_the_name_that_it_is_written_with() {
        let names = CONDITIONS.iter().map(|(name, _)| *name).chain(GRPC.map(|(name, _)| name));
        let mut all = RetryOn::default();
        for name in names.clone() {
            let mut on = RetryOn::default();
            assert!(on.add(name) && all.add(name));
            assert_ne!(on, RetryOn::default());
            assert_eq!(on.names(), [name]);
        }
        assert_eq!(all.names(), names.collect::<Vec<_>>());
        assert!(!all.add("503") && !all.add("grpc-status 14"));
        let others = RetryOn { codes: vec![409], grpc: vec![2], ..RetryOn::default() };
        assert_eq!(others.names(), ["409", "grpc-status 2"]);
    }
}
