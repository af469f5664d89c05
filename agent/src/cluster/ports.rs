//! Ports of the pages of agents and controllers, as their pods say: on their command lines, in their environment, or by the
//! name of a container's port. What stands in configuration files is not in pods.

use serde_json::Value;

/// Port of the agents' admin pages where nothing else is said.
pub(crate) const ADMIN_PORT: u16 = 15000;

/// Ports of a pod; nothing for those that it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ports {
    /// Of an agent's admin pages, or of a controller's dashboard.
    pub(crate) admin: Option<u16>,
    pub(crate) metrics: Option<u16>,
}

/// Names of a setting of an address: option, variable, and the name of the container's port.
type Names = [&'static str; 3];

const ADMIN: Names = ["--admin-address", "UNDERMESH_ADMIN_ADDRESS", "http-admin"];
const DASHBOARD: Names = ["--dashboard-address", "UNDERMESH_DASHBOARD_ADDRESS", "http-dashboard"];
const METRICS: Names = ["--metrics-address", "UNDERMESH_METRICS_ADDRESS", "http-metrics"];

impl Ports {
    /// What a pod, as the API server has it, says.
    pub(super) fn of(pod: &Value) -> Self {
        let containers = pod["spec"]["containers"].as_array();
        let first = |names| containers?.iter().find_map(|it| port(it, names));
        Self { admin: first(ADMIN).or_else(|| first(DASHBOARD)), metrics: first(METRICS) }
    }
}

/// The port that a container says; what is nearer to the program counts.
fn port(container: &Value, [option, variable, name]: Names) -> Option<u16> {
    let words = ["command", "args"].into_iter().flat_map(|list| container[list].as_array());
    let words: Vec<&str> = words.flatten().filter_map(Value::as_str).collect();
    let given = words.iter().enumerate().find_map(|(at, word)| {
        match word.strip_prefix(option)?.strip_prefix('=') {
            Some(value) => Some(value),
            None if *word == option => words.get(at + 1).copied(),
            None => None,
        }
    });
    let mut set = container["env"].as_array().into_iter().flatten();
    let set = || set.find(|it| it["name"] == variable)?["value"].as_str();
    if let Some(address) = given.or_else(set) {
        return address.rsplit_once(':')?.1.parse().ok();
    }
    let mut ports = container["ports"].as_array()?.iter();
    let port = ports.find(|it| it["name"] == name)?["containerPort"].as_u64()?;
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(container: &Value) -> (Option<u16>, Option<u16>) {
        let Ports { admin, metrics } = Ports::of(&json!({"spec": {"containers": [container]}}));
        (admin, metrics)
    }

    #[test]
    fn a_pod_says_its_ports_in_any_of_three_places() {
        let controller = |more: Value| {
            let mut container =
                json!({"ports": [{"name": "http-metrics", "containerPort": 15014}]});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            of(&container)
        };
        assert_eq!(controller(json!({})), (None, Some(15014)));
        let named = json!({"ports": [{"name": "http-dashboard", "containerPort": 1}]});
        assert_eq!(controller(named), (Some(1), None));
        let args = json!({"args": ["controller", "--metrics-address", "[::]:1", "--dashboard-address=127.0.0.1:2"]});
        assert_eq!(controller(args), (Some(2), Some(1)));
        let env = json!({"env": [{"name": "UNDERMESH_METRICS_ADDRESS", "value": "0.0.0.0:3"}]});
        assert_eq!(controller(env), (None, Some(3)));
        let both = json!({
            "args": ["--metrics-address=[::]:4"],
            "env": [{"name": "UNDERMESH_METRICS_ADDRESS", "value": "0.0.0.0:3"}],
        });
        assert_eq!(controller(both), (None, Some(4)));
        // A port of an address that is somewhere else, or none.
        for other in ["--metrics-address-of=[::]:1", "--dashboard-address=off"] {
            assert_eq!(controller(json!({"args": [other]})), (None, Some(15014)), "{other}");
        }
        let agent = json!({"command": ["/undermesh", "agent", "--admin-address", "127.0.0.1:5"]});
        assert_eq!(of(&agent), (Some(5), None));
        assert_eq!(Ports::of(&json!({})), Ports::default());
    }
}
