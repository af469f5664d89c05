//! The manifests of a large cluster, in files of a hundred objects.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::Result;
use undermesh_tests::Manifests;

/// Objects of a file.
const PER_FILE: usize = 100;
/// Pods of an application: they share a label, a service account and a service.
const PER_APP: usize = 10;
/// Pods of a node.
const PER_NODE: usize = 100;
/// The namespace of everything, which every rig has.
const NAMESPACE: &str = "shop";

/// How many of what. Pods of other nodes; those of the node that is looked at are the rig's.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Population {
    pub(in crate::bench) pods: usize,
    pub(in crate::bench) policies: usize,
    pub(in crate::bench) local: usize,
}

impl Population {
    /// Writes everything.
    pub(in crate::bench) fn write(&self, manifests: &Manifests) -> Result<()> {
        for file in 0..self.pods.div_ceil(PER_FILE) {
            manifests.write(&format!("scale-pods-{file}"), &self.pods_of(file, None))?;
        }
        let apps = 0..self.pods.div_ceil(PER_APP);
        let accounts: String = apps.clone().map(account).collect();
        manifests.write("scale-accounts", &accounts)?;
        let services: String = apps.map(service).collect();
        manifests.write("scale-services", &services)?;
        for file in 0..self.policies.div_ceil(PER_FILE) {
            manifests.write(&format!("scale-policies-{file}"), &self.policies_of(file, 0))?;
        }
        Ok(())
    }

    /// Gives a pod of another node an address that it had not before.
    pub(super) fn move_a_pod(&self, manifests: &Manifests, round: u32) -> Result<()> {
        let [_, _, high, low] = round.to_be_bytes();
        let moved = Ipv4Addr::new(10, 250, high, low);
        manifests.write("scale-pods-0", &self.pods_of(0, Some(moved)))
    }

    /// Changes the ports that a policy of a pod of this node is about.
    pub(super) fn change_a_policy(&self, manifests: &Manifests, round: u32) -> Result<()> {
        manifests.write("scale-policies-0", &self.policies_of(0, round as usize + 1))
    }

    fn pods_of(&self, file: usize, moved: Option<Ipv4Addr>) -> String {
        let numbers = file * PER_FILE..self.pods.min((file + 1) * PER_FILE);
        numbers.fold(String::new(), |mut yaml, number| {
            let moved = moved.filter(|_| number == 0);
            pod(&mut yaml, number, moved.unwrap_or_else(|| address(number)));
            yaml
        })
    }

    /// The first policies are about the pods of this node, one for each; the others about
    /// applications of other nodes.
    fn policies_of(&self, file: usize, changed: usize) -> String {
        let numbers = file * PER_FILE..self.policies.min((file + 1) * PER_FILE);
        numbers.fold(String::new(), |mut yaml, number| {
            let app = if number < self.local {
                format!("local{number}")
            } else {
                format!("app{}", number % self.pods.div_ceil(PER_APP))
            };
            let port = 8080 + if number == 0 { changed } else { 0 };
            policy(&mut yaml, number, &app, port);
            yaml
        })
    }
}

/// 10.100.0.0 onwards, which no node of a rig has.
fn address(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    Ipv4Addr::new(10, 100, high, low)
}

// Writing to a string cannot fail.
fn pod(yaml: &mut String, number: usize, address: Ipv4Addr) {
    let _ = write!(
        yaml,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod{number}\n  namespace: {NAMESPACE}\n  \
         labels:\n    app: app{app}\n    istio.io/dataplane-mode: ambient\nspec:\n  nodeName: node{node}\n  \
         serviceAccountName: app{app}\nstatus:\n  phase: Running\n  podIP: {address}\n  \
         conditions:\n  - type: Ready\n    status: \"True\"\n",
        app = number / PER_APP,
        node = number / PER_NODE,
    );
}

fn account(app: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: app{app}\n  namespace: {NAMESPACE}\n"
    )
}

fn service(app: usize) -> String {
    let [high, low] = u16::try_from(app).unwrap_or(u16::MAX).to_be_bytes();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: app{app}\n  namespace: {NAMESPACE}\nspec:\n  \
         clusterIP: 10.97.{high}.{low}\n  selector:\n    app: app{app}\n  ports:\n  - name: tcp-80\n    \
         port: 80\n    targetPort: 8080\n    protocol: TCP\n"
    )
}

fn policy(yaml: &mut String, number: usize, app: &str, port: usize) {
    let _ = write!(
        yaml,
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: policy{number}\n  \
         namespace: {NAMESPACE}\nspec:\n  selector:\n    matchLabels:\n      app: {app}\n  action: ALLOW\n  \
         rules:\n  - from:\n    - source:\n        principals:\n        \
         - cluster.local/ns/{NAMESPACE}/sa/app{number}\n        - cluster.local/ns/{NAMESPACE}/sa/local1\n    \
         to:\n    - operation:\n        ports: [\"{port}\"]\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_and_every_policy_is_in_one_file_and_a_change_is_one_line() {
        let population = Population { pods: 250, policies: 130, local: 3 };
        let pods: Vec<String> = (0..3).map(|file| population.pods_of(file, None)).collect();
        assert_eq!(pods.iter().map(|yaml| yaml.matches("kind: Pod").count()).sum::<usize>(), 250);
        let policies = [population.policies_of(0, 0), population.policies_of(1, 0)].concat();
        assert_eq!(policies.matches("kind: AuthorizationPolicy").count(), 130);
        let changed = population.policies_of(0, 1);
        let before = population.policies_of(0, 0);
        let differ = changed.lines().zip(before.lines()).filter(|(a, b)| a != b);
        assert_eq!(differ.count(), 1);
    }
}
