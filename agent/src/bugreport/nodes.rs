//! `undermesh bugreport --all-nodes`: what all agents and controllers know, in one archive, asked for through the API server
//! that leads to their loopback. One that cannot be asked keeps no other out.

use anyhow::{Context as _, Error, Result, anyhow};
use serde_json::Value;
use undermesh_control::ApiServer;
use undermesh_datapath::READABLE_MAPS;

use super::{MAP_ENTRIES, PAGES, archive::Archive};
use crate::cluster::{self, CONTROLLER_PORT, Place, Ports, Reach, Refused, each_as_it_comes};

/// Pods that are asked at once.
const AT_ONCE: usize = 4;
/// Most that is taken of one pod, and in all, in bytes before compression.
const MOST_OF_POD: usize = 64 << 20;
const MOST: usize = 512 << 20;

/// Port of a controller's metrics where its pod says no other; that of its dashboard has its log, too.
const CONTROLLER_METRICS_PORT: u16 = 15014;
const CONTROLLER_PAGES: [(&str, &str); 5] = [
    ("/status", "status.json"),
    ("/findings", "findings.json"),
    ("/mesh", "mesh.json"),
    ("/logging", "logging.json"),
    ("/logs", "controller.log"),
];

/// A page of a pod: its port, its address, and what it is called in the archive.
type Page = (u16, String, String);
type Said = Vec<(String, Result<String>)>;

/// Where to ask, and for what.
pub(super) struct Cluster<'a> {
    pub(super) api: &'a ApiServer,
    pub(super) namespace: &'a str,
    /// Port of the agents' admin pages, where somebody has said it.
    pub(super) admin: Option<u16>,
    pub(super) flows: bool,
}

impl Cluster<'_> {
    /// Fills an archive; what could not be had is said in it.
    pub(super) async fn collect(&self, archive: &mut Archive) {
        eprintln!("collecting: the API server at {}", self.api.server());
        self.pods_of_the_mesh(archive).await;
        let mut asked: Vec<(String, Place, Vec<Page>)> = Vec::new();
        match cluster::agents(self.api, self.namespace).await {
            Ok(agents) => {
                self.nodes_without(archive, &agents).await;
                let agents = agents.into_iter();
                asked.extend(agents.map(|it| {
                    let pages = self.of_agent(&it.ports);
                    (format!("nodes/{}", it.node), it, pages)
                }));
            }
            Err(error) => archive.missing("nodes", &error),
        }
        match cluster::controllers(self.api, self.namespace).await {
            Ok(found) if found.is_empty() => {
                archive.missing("controllers", &anyhow!("none runs in {}", self.namespace));
            }
            Ok(found) => {
                let found = found.into_iter();
                asked.extend(found.map(|it| {
                    let pages = of_controller(&it.ports);
                    (format!("controllers/{}", it.pod), it, pages)
                }));
            }
            Err(error) => archive.missing("controllers", &error),
        }
        eprintln!("collecting: {} agents and controllers, {AT_ONCE} at a time", asked.len());
        let ask = |(folder, place, pages): (String, Place, Vec<Page>)| {
            let (api, namespace) = (self.api.clone(), self.namespace.to_owned());
            async move { (folder, ask(&api, &namespace, &place, pages).await) }
        };
        each_as_it_comes(asked, AT_ONCE, ask, |(folder, said)| keep(archive, &folder, said, MOST))
            .await;
    }

    /// The mesh's pods as the API server has them: versions, restarts, why one is not ready.
    async fn pods_of_the_mesh(&self, archive: &mut Archive) {
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        match self.api.objects(&path, "app.kubernetes.io/name=undermesh").await {
            Ok(pods) => archive.json("pods.json", &Value::from(pods).to_string()),
            Err(error) => archive.missing("pods.json", &Error::from(error)),
        }
    }

    async fn nodes_without(&self, archive: &mut Archive, agents: &[Place]) {
        match cluster::node_names(self.api).await {
            Ok(names) => {
                for name in names {
                    if !agents.iter().any(|place| place.node == name) {
                        let error = anyhow!("no agent runs there");
                        archive.missing(&format!("nodes/{name}"), &error);
                    }
                }
            }
            Err(error) => archive.missing("nodes without an agent", &Error::from(error)),
        }
    }

    fn of_agent(&self, ports: &Ports) -> Vec<Page> {
        let admin = self.admin.unwrap_or_else(|| ports.agent_admin());
        let metrics = ports.agent_metrics();
        let page = |page: &str, name: &str| (admin, page.to_owned(), name.to_owned());
        let mut pages: Vec<Page> = PAGES.iter().map(|(path, name)| page(path, name)).collect();
        if self.flows {
            pages.push(page("/flows", "flows.ndjson"));
        }
        pages.push((metrics, "/metrics".to_owned(), "metrics.txt".to_owned()));
        pages.extend(READABLE_MAPS.iter().map(|map| {
            page(&format!("/maps?name={map}&limit={MAP_ENTRIES}"), &format!("maps/{map}.json"))
        }));
        pages
    }
}

fn of_controller(ports: &Ports) -> Vec<Page> {
    let port = ports.admin.unwrap_or(CONTROLLER_PORT);
    let page = |(path, name): &(&str, &str)| (port, (*path).to_owned(), (*name).to_owned());
    let mut pages: Vec<Page> = CONTROLLER_PAGES.iter().map(page).collect();
    let metrics = ports.metrics.unwrap_or(CONTROLLER_METRICS_PORT);
    pages.push((metrics, "/metrics".to_owned(), "metrics.txt".to_owned()));
    pages
}

/// Its pages, one after the other. Where nobody answers at a port, nobody is asked there again.
async fn ask(api: &ApiServer, namespace: &str, place: &Place, pages: Vec<Page>) -> Said {
    let mut said: Said = Vec::new();
    let mut left = MOST_OF_POD;
    let mut reach: Option<Reach> = None;
    let mut silent: Vec<u16> = Vec::new();
    for (port, path, name) in pages {
        if silent.contains(&port) {
            continue;
        }
        let mut way = match reach.take() {
            Some(way) if way.port() == port => way,
            _ => Reach::new(api, namespace, &place.pod, port),
        };
        let page = way.get(&path, left).await;
        match page {
            Ok(text) => {
                left -= text.len().min(left);
                said.push((name, Ok(text)));
            }
            Err(error) if error.is::<Refused>() => {
                said.push((name, Err(error)));
            }
            Err(error) => {
                silent.push(port);
                let error = error.context(format!("and all else of port {port}"));
                said.push((name, Err(error)));
            }
        }
        reach = Some(way);
    }
    said
}

/// Puts pages into a folder of the archive, as long as that has no more than `most` bytes.
fn keep(archive: &mut Archive, folder: &str, said: Said, most: usize) {
    for (name, page) in said {
        let name = format!("{folder}/{name}");
        let page = page.and_then(|text| {
            let fits = archive.len() + text.len() <= most;
            fits.then_some(text).with_context(|| {
                format!("left out, since there are {} MiB already", archive.len() >> 20)
            })
        });
        match page {
            Ok(text) if name.ends_with(".json") => archive.json(&name, &text),
            Ok(text) => archive.text(&name, &text),
            Err(error) => archive.missing(&name, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_said_and_what_came_before_stays() {
        const MOST: usize = 3 << 20;
        let mut archive = Archive::new(SystemTime::now()).unwrap();
        let text = |name: &str, bytes| vec![(name.to_owned(), Ok(" ".repeat(bytes)))];
        keep(&mut archive, "nodes/a", text("0.txt", 2 << 20), MOST);
        keep(&mut archive, "nodes/a", text("1.txt", 2 << 20), MOST);
        keep(&mut archive, "nodes/a", text("2.txt", 1 << 20), MOST);
        assert_eq!(archive.len(), MOST);
        assert_eq!(archive.problems(), ["nodes/a/1.txt: left out, since there are 2 MiB already"]);
        keep(&mut archive, "nodes/b", vec![("x.json".to_owned(), Err(anyhow!("gone")))], MOST);
        assert_eq!(archive.problems()[1], "nodes/b/x.json: gone");
    }
}
