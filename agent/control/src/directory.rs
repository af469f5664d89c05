//! The manifest directory as a source: read whole, watched, published when it has changed.

mod changes;

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use tokio::sync::mpsc;
use undermesh_model::{Cluster, Diagnostic};

use self::changes::Changes;
use crate::{
    assemble::assemble,
    files::{self, Reading},
    manifests,
    objects::Objects,
    report::Report,
    source::{Loaded, Publisher, SourceUpdate},
};

/// How often a change is waited out before it is read as it is: a file that is written all the
/// time must not keep the others from being read.
const MAX_DEBOUNCES: usize = 20;
/// A directory of Kubernetes manifests.
#[derive(Clone, Debug)]
pub struct ManifestSource {
    dir: PathBuf,
}

impl ManifestSource {
    /// A source that reads `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Reads the directory once.
    pub fn load(&self) -> Loaded {
        load(files::read(&self.dir))
    }

    /// Reads the directory now and whenever it changes, on a thread of its own, until the receiver
    /// is dropped. The first update comes at once, a rejection if need be.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn watch(self) -> io::Result<mpsc::Receiver<SourceUpdate>> {
        let (updates, receiver) = mpsc::channel(1);
        thread::Builder::new().name("manifests".to_owned()).spawn(move || self.run(&updates))?;
        Ok(receiver)
    }

    fn run(&self, updates: &mpsc::Sender<SourceUpdate>) {
        let mut changes = Changes::new();
        let mut publisher = Publisher::default();
        let mut read = None;
        while !updates.is_closed() {
            changes.watch(&self.dir);
            let (reading, digest) = self.look(read, &changes);
            if read.replace(digest) != Some(digest)
                && let Some(update) = publisher.publish(load(reading))
                && updates.blocking_send(update).is_err()
            {
                return;
            }
            changes.wait();
        }
    }

    /// Reads the directory, and where it has changed, until it stays as it is.
    fn look(&self, known: Option<u64>, changes: &Changes) -> (Reading, u64) {
        let reading = files::read(&self.dir);
        let digest = reading.digest();
        if known.is_none_or(|known| known == digest) {
            return (reading, digest);
        }
        settle((reading, digest), || {
            changes.rest();
            files::read(&self.dir)
        })
    }
}

/// Waits until two readings in a row are the same: an editor may be half way through, and half a
/// file can be a valid one.
fn settle(first: (Reading, u64), mut again: impl FnMut() -> Reading) -> (Reading, u64) {
    let (mut reading, mut digest) = first;
    for _ in 0..MAX_DEBOUNCES {
        reading = again();
        let before = std::mem::replace(&mut digest, reading.digest());
        if before == digest {
            break;
        }
    }
    (reading, digest)
}

/// Reads the manifests in `text` as if `file` were alone in its directory. Pure: whatever the
/// text, it returns.
pub fn parse_manifests(text: &str, file: &Path) -> Loaded {
    load(Reading { texts: vec![(file.to_owned(), text.to_owned())], report: Report::default() })
}

/// Reads objects, each by itself: one with a mistake in it is left out of the cluster, and its findings say
/// why. Positions in findings are of no file.
pub fn read_objects(objects: &[serde_json::Value]) -> (Cluster, Vec<Diagnostic>) {
    let (mut good, mut report) = (Objects::default(), Report::default());
    let nowhere = Path::new("");
    for object in objects {
        let text = object.to_string();
        let mut alone = Report::default();
        manifests::read(&text, nowhere, &mut Objects::default(), &mut alone);
        if alone.has_errors() {
            alone.into_diagnostics().into_iter().for_each(|finding| report.add(finding));
        } else {
            manifests::read(&text, nowhere, &mut good, &mut report);
        }
    }
    let cluster = assemble(good, &mut report);
    (cluster, report.into_diagnostics())
}

fn load(reading: Reading) -> Loaded {
    let mut objects = Objects::default();
    let mut report = reading.report;
    for (file, text) in &reading.texts {
        manifests::read(text, file, &mut objects, &mut report);
    }
    Loaded::new(objects, report)
}

#[cfg(test)]
mod tests;
