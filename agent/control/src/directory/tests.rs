//! Hot reload: what changes is published, what is wrong is rejected, what is the same is not said.

use std::{
    fs,
    time::{Duration, Instant},
};

use undermesh_model::Generation;

use super::*;
use crate::fixtures::{ACCOUNT, Dir, POD, documents, name};

const DEADLINE: Duration = Duration::from_secs(20);

struct Watched(mpsc::Receiver<SourceUpdate>);

impl Watched {
    fn start(source: ManifestSource) -> Self {
        Self(source.watch().unwrap())
    }

    async fn next(&mut self) -> SourceUpdate {
        tokio::time::timeout(DEADLINE, self.0.recv()).await.unwrap().unwrap()
    }

    /// The next state: its generation, and the names of its service accounts.
    async fn state(&mut self) -> (u64, Vec<String>) {
        match self.next().await {
            SourceUpdate::State { cluster, generation: Generation(number), .. } => {
                (number, cluster.service_accounts.keys().map(|key| key.name.clone()).collect())
            }
            SourceUpdate::Rejected { diagnostics } => panic!("rejected: {diagnostics:#?}"),
        }
    }

    async fn rejection(&mut self) -> Vec<String> {
        match self.next().await {
            SourceUpdate::Rejected { diagnostics } => {
                diagnostics.iter().map(ToString::to_string).collect()
            }
            SourceUpdate::State { .. } => panic!("nonsense was accepted"),
        }
    }
}

fn account(name: &str) -> String {
    ACCOUNT.replace("cart", name)
}

#[tokio::test]
async fn the_last_good_state_stays_in_force_across_a_bad_edit() {
    let dir =
        Dir::new(&[("pods.yaml", &documents(&[POD, ACCOUNT])), ("other.yaml", &account("a"))]);
    let mut updates = Watched::start(dir.source());
    assert_eq!(updates.state().await, (1, vec!["a".to_owned(), "cart".to_owned()]));

    dir.write("pods.yaml", &documents(&[&POD.replace("10.1.0.2", "10.1.0.256"), ACCOUNT]));
    let found = updates.rejection().await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("pods.yaml:18: Pod shop/cart: status.podIPs[0].ip \"10.1.0.256\""));
    assert!(found[0].ends_with("; write an IPv4 or IPv6 address"), "{found:?}");

    // A good edit elsewhere does not get past the bad one.
    dir.write("other.yaml", &account("b"));
    dir.write("pods.yaml", "kind: [");
    assert!(updates.rejection().await[0].contains("pods.yaml:"));

    dir.write("pods.yaml", &documents(&[&POD.replace("10.1.0.2", "10.1.0.9"), ACCOUNT]));
    let SourceUpdate::State { cluster, generation, .. } = updates.next().await else {
        panic!("the correction was rejected");
    };
    assert_eq!(generation, Generation(2));
    assert_eq!(cluster.workloads[&name("cart")].addresses[0].to_string(), "10.1.0.9");
    assert!(cluster.service_accounts.contains_key(&name("b")));
}

#[tokio::test]
async fn a_directory_may_come_late_vanish_and_return() {
    let dir = Dir::new(&[]);
    let below = dir.0.join("later");
    let mut updates = Watched::start(ManifestSource::new(&below));
    assert!(updates.rejection().await[0].contains("cannot be read"));
    fs::create_dir(&below).unwrap();
    fs::write(below.join("a.yaml"), account("a")).unwrap();
    assert_eq!(updates.state().await.1, ["a"]);
    fs::rename(&below, dir.0.join("away")).unwrap();
    assert!(updates.rejection().await[0].contains("cannot be read"));
    fs::create_dir(&below).unwrap();
    fs::write(below.join("a.yaml"), account("b")).unwrap();
    assert_eq!(updates.state().await.1, ["b"]);
}

#[tokio::test]
async fn a_swapped_config_map_is_noticed() {
    let dir = Dir::new(&[]);
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(dir.0.join(version)).unwrap();
        dir.write(&format!("{version}/sa.yaml"), &account(name));
    }
    std::os::unix::fs::symlink("..1", dir.0.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/sa.yaml", dir.0.join("sa.yaml")).unwrap();
    let mut updates = Watched::start(dir.source());
    assert_eq!(updates.state().await.1, ["a"]);
    std::os::unix::fs::symlink("..2", dir.0.join("..new")).unwrap();
    fs::rename(dir.0.join("..new"), dir.0.join("..data")).unwrap();
    assert_eq!(updates.state().await.1, ["b"]);
}

/// The edit that changes nothing is followed by one that does: had it been published, it would
/// come first.
#[tokio::test]
async fn an_edit_that_says_nothing_new_is_not_published() {
    let dir = Dir::new(&[("a.yaml", &account("a"))]);
    let mut updates = Watched::start(dir.source());
    assert_eq!(updates.state().await.0, 1);
    let before = files::read(&dir.0).digest();
    dir.write("a.yaml", &format!("# comment\n{}", account("a")));
    assert_ne!(files::read(&dir.0).digest(), before);
    dir.write("b.yaml", "# nothing\n");
    dir.write("c.yaml", &account("c"));
    assert_eq!(updates.state().await, (2, vec!["a".to_owned(), "c".to_owned()]));
}

#[test]
fn a_comment_gives_the_publisher_nothing_to_say() {
    let dir = Dir::new(&[("a.yaml", &account("a"))]);
    let mut publisher = Publisher::default();
    assert!(publisher.publish(dir.source().load()).is_some());
    dir.write("a.yaml", &format!("# comment\n{}", account("a")));
    assert!(publisher.publish(dir.source().load()).is_none());
    dir.write("a.yaml", &account("b"));
    assert!(publisher.publish(dir.source().load()).is_some());
}

fn reading(text: &str) -> Reading {
    Reading { texts: vec![("a.yaml".into(), text.to_owned())], report: Report::default() }
}

fn settled(texts: &[&str]) -> (String, usize) {
    let mut rest = texts.iter();
    let mut next = || reading(rest.next().unwrap());
    let first = next();
    let digest = first.digest();
    let (last, digest) = settle((first, digest), next);
    assert_eq!(digest, last.digest());
    (last.texts[0].1.clone(), texts.len() - rest.len())
}

#[test]
fn a_change_is_taken_when_two_readings_agree() {
    for (texts, expected) in
        [(&["new", "new"][..], ("new", 2)), (&["", "ne", "new", "new"], ("new", 4))]
    {
        assert_eq!(settled(texts), (expected.0.to_owned(), expected.1), "{texts:?}");
    }
}

#[test]
fn a_file_that_never_rests_is_read_in_the_end() {
    let texts: Vec<String> = (0..=MAX_DEBOUNCES).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(settled(&texts), (MAX_DEBOUNCES.to_string(), MAX_DEBOUNCES + 1));
}

#[tokio::test]
async fn the_thread_ends_with_its_receiver() {
    let dir = Dir::new(&[("a.yaml", &account("a"))]);
    let (updates, mut receiver) = mpsc::channel(1);
    let source = dir.source();
    let thread = thread::spawn(move || source.run(&updates));
    assert!(receiver.recv().await.is_some());
    drop(receiver);
    let deadline = Instant::now() + DEADLINE;
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "the thread goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    thread.join().unwrap();
}
