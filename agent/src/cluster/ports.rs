//! Ports of the pages of agents and controllers, as their pods say: on their command lines, in their environment, or by the
//! name of a container's port. What stands in configuration files is not in pods.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use serde_json::Value;

/// Port of the agents' admin pages where nothing else is said.
const ADMIN_PORT: u16 = 15000;
/// Port of the agents' metrics where nothing else is said.
const METRICS_PORT: u16 = 15020;

/// The option of commands that ask the agent of this node, or through an API server those of others.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct AdminArgs {
    /// Admin address of the agent, or for `log` and `dashboard` the controller's `dashboardAddress`; of agents of other nodes,
    /// its port alone [default: 127.0.0.1:15000, or the port that their pods say].
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl AdminArgs {
    /// Of this node.
    pub(crate) fn here(self) -> SocketAddr {
        self.admin.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)))
    }

    /// Of the agent in a pod.
    pub(crate) fn port(self, ports: Ports) -> u16 {
        self.admin.map_or_else(|| ports.agent_admin(), |address| address.port())
    }
}

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
    /// What a pod, as the API server has it, says. Only the mesh's own containers are asked, where they can be told from
    /// others that somebody has put beside them.
    pub(crate) fn of(pod: &Value) -> Self {
        let all = || pod["spec"]["containers"].as_array().into_iter().flatten();
        let best = all().map(Likeness::of).max().unwrap_or(Likeness::None);
        let first =
            |names| all().filter(|it| Likeness::of(it) == best).find_map(|it| port(it, names));
        Self { admin: first(ADMIN).or_else(|| first(DASHBOARD)), metrics: first(METRICS) }
    }

    /// Of an agent's admin pages.
    pub(crate) fn agent_admin(self) -> u16 {
        self.admin.unwrap_or(ADMIN_PORT)
    }

    /// Of an agent's metrics.
    pub(crate) fn agent_metrics(self) -> u16 {
        self.metrics.unwrap_or(METRICS_PORT)
    }
}

/// How surely a container is the mesh's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    None,
    /// It runs `agent` or `controller` of whatever its image starts.
    Role,
    /// It has the name that the manifest gives it.
    Name,
    /// It runs `undermesh`.
    Program,
}

impl Likeness {
    fn of(container: &Value) -> Self {
        let words = words(container);
        let is_role = |word: &&str| ["agent", "controller"].contains(word);
        let program = container["command"][0].as_str().and_then(|it| it.rsplit('/').next());
        let name = container["name"].as_str();
        if program == Some("undermesh") {
            Self::Program
        } else if name.as_ref().is_some_and(is_role) {
            Self::Name
        } else if words.iter().take(2).any(is_role) {
            Self::Role
        } else {
            Self::None
        }
    }
}

/// Its command line.
fn words(container: &Value) -> Vec<&str> {
    let lists = ["command", "args"].into_iter().flat_map(|list| container[list].as_array());
    lists.flatten().filter_map(Value::as_str).collect()
}

/// The port that a container says; what is nearer to the program counts.
fn port(container: &Value, [option, variable, name]: Names) -> Option<u16> {
    let words = words(container);
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

    #[test]
    fn containers_that_are_not_the_meshs_say_nothing() {
        let port =
            |containers: Value| Ports::of(&json!({"spec": {"containers": containers}})).metrics;
        let other =
            json!({"name": "proxy", "ports": [{"name": "http-metrics", "containerPort": 1}]});
        let vault = json!({"name": "vault", "command": ["vault", "agent"],
            "ports": [{"name": "http-metrics", "containerPort": 2}]});
        let ours = |own: Value| {
            let mut it = json!({"ports": [{"name": "http-metrics", "containerPort": 3}]});
            it.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            it
        };
        let role = ours(json!({"args": ["controller", "--config", "x"]}));
        let name = ours(json!({"name": "agent"}));
        let program = ours(json!({"command": ["/usr/bin/undermesh", "agent"]}));
        for own in [&role, &name, &program] {
            assert_eq!(port(json!([other, own])), Some(3), "{own}");
            assert_eq!(port(json!([own, other])), Some(3), "{own}");
        }
        for own in [&name, &program] {
            assert_eq!(port(json!([vault, own])), Some(3), "{own}");
        }
        // It has the port of the default, whatever stands beside it.
        assert_eq!(port(json!([other, {"name": "agent"}])), None);
        // None can be told from another.
        assert_eq!(port(json!([{"name": "a"}, other])), Some(1));
    }

    #[test]
    fn what_somebody_says_counts_and_then_what_the_pod_says() {
        let said = Ports { admin: Some(1), metrics: None };
        let named = AdminArgs { admin: Some("127.0.0.1:2".parse().unwrap()) };
        let args = AdminArgs { admin: None };
        assert_eq!((named.port(said), named.here().port()), (2, 2));
        assert_eq!((args.port(said), args.port(Ports::default())), (1, ADMIN_PORT));
        assert_eq!(args.here().to_string(), crate::cli::DEFAULT_ADMIN);
    }
}
