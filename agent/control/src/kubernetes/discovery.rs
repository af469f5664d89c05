//! Which of the kinds that are read the server has, and in which version.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::api::{Api, Trouble};
use crate::kinds::{KINDS, Kind};

const JSON: &str = "application/json";
/// Kinds of the core, and what is watched by name alone.
const CORE: &str = "v1";

/// A kind that the server has.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) kind: &'static Kind,
    /// The first of the versions that are read.
    pub(crate) api_version: String,
    /// Its name in addresses.
    pub(crate) plural: String,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Asks what there is. That something is missing has to be said by the server: who cannot ask knows
/// nothing.
pub(crate) async fn discover(
    api: &Api,
    also: Option<&'static Kind>,
) -> Result<Vec<Served>, Trouble> {
    let groups: Groups = read(api, "/apis").await?;
    let there: BTreeSet<String> = groups
        .groups
        .into_iter()
        .flat_map(|group| group.versions)
        .map(|version| version.group_version)
        .collect();
    let mut lists: BTreeMap<&str, Vec<Resource>> = BTreeMap::new();
    let kinds = || kinds().chain(also);
    for version in kinds().flat_map(|kind| kind.description.api_versions) {
        if there.contains(*version) && !lists.contains_key(version) {
            let list = match read::<Resources>(api, &format!("/apis/{version}")).await {
                Ok(list) => list.resources,
                Err(trouble) if trouble.is_missing() => Vec::new(),
                Err(trouble) => return Err(trouble),
            };
            lists.insert(version, list);
        }
    }
    Ok(kinds().filter_map(|kind| served(kind, &lists)).collect())
}

/// Those that a server may or may not have.
fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS
        .iter()
        .filter(|kind| kind.api_version() != CORE && kind.description.kind != "EndpointSlice")
}

fn served(kind: &'static Kind, lists: &BTreeMap<&str, Vec<Resource>>) -> Option<Served> {
    kind.description.api_versions.iter().find_map(|version| {
        let found = lists.get(version)?.iter().find(|resource| {
            let can = |verb: &str| resource.verbs.iter().any(|own| own == verb);
            resource.kind == kind.description.kind
                && !resource.name.contains('/')
                && can("list")
                && can("watch")
        })?;
        Some(Served { kind, api_version: (*version).to_owned(), plural: found.name.clone() })
    })
}

async fn read<T: for<'de> Deserialize<'de>>(api: &Api, path: &str) -> Result<T, Trouble> {
    let answer = api.get(path, JSON).await?;
    T::deserialize(answer).map_err(|error| Trouble::Lost(format!("{path}: {error}")))
}
