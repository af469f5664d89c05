//! The manifest directory as a source: read whole, watched, published when it has changed.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use undermesh_model::{Cluster, Diagnostic, Generation};

use crate::{
    assemble::assemble,
    files::{self, Texts},
    objects::{Objects, parse_manifests},
    report::Report,
};

/// Events of one change come together; what follows within this time is read with it.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the directory is read even if no event says so: file systems and mounts exist that
/// send none.
const POLL: Duration = Duration::from_secs(1);

/// A directory of Kubernetes manifests.
#[derive(Clone, Debug)]
pub struct ManifestSource {
    dir: PathBuf,
}

/// A state that has been read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The state, if there is no error in it.
    pub cluster: Option<Cluster>,
    /// Every finding.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a watched source says.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    /// A new state, complete and without errors.
    State {
        /// The state.
        cluster: Arc<Cluster>,
        /// Its number.
        generation: Generation,
        /// Warnings.
        diagnostics: Vec<Diagnostic>,
    },
    /// What is there cannot be used; the last state stays in force.
    Rejected {
        /// Why not.
        diagnostics: Vec<Diagnostic>,
    },
}

impl ManifestSource {
    /// A source that reads `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Reads the directory once.
    pub fn load(&self) -> Loaded {
        let mut report = Report::default();
        let texts = files::read(&self.dir, &mut report);
        load(&texts, report)
    }

    /// Reads the directory now and whenever it changes, on a thread of its own, until the receiver
    /// is dropped. The first update comes at once.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn watch(self) -> io::Result<mpsc::Receiver<SourceUpdate>> {
        let (updates, receiver) = mpsc::channel(1);
        thread::Builder::new().name("manifests".to_owned()).spawn(move || self.run(&updates))?;
        Ok(receiver)
    }

    fn run(&self, updates: &mpsc::Sender<SourceUpdate>) {
        let (events, changes) = channel();
        let mut watcher = notify::recommended_watcher(move |_| {
            let _ = events.send(());
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "cannot watch files; reading them every second instead");
        }
        let mut state = State::default();
        loop {
            // Again every time: the directory may have been replaced.
            if let Ok(watcher) = &mut watcher {
                let _ = watcher.watch(&self.dir, RecursiveMode::Recursive);
            }
            let mut report = Report::default();
            let texts = files::read(&self.dir, &mut report);
            if let Some(update) = state.next(texts, report)
                && updates.blocking_send(update).is_err()
            {
                return;
            }
            if updates.is_closed() {
                return;
            }
            wait(&changes);
        }
    }
}

/// Waits for a change, and then until the changes stop.
fn wait(changes: &Receiver<()>) {
    match changes.recv_timeout(POLL) {
        Ok(()) => while changes.recv_timeout(DEBOUNCE).is_ok() {},
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
    }
}

/// What has been read and published so far.
#[derive(Default)]
struct State {
    read: Option<(Texts, Report)>,
    published: Option<Arc<Cluster>>,
    rejected: bool,
    diagnostics: Vec<Diagnostic>,
    generation: Generation,
}

impl State {
    /// What to publish of a new reading; nothing where it says what is known already.
    fn next(&mut self, texts: Texts, report: Report) -> Option<SourceUpdate> {
        let reading = (texts, report);
        if self.read.as_ref() == Some(&reading) {
            return None;
        }
        let loaded = load(&reading.0, reading.1.clone());
        self.read = Some(reading);
        let diagnostics = loaded.diagnostics;
        let Some(cluster) = loaded.cluster else {
            self.rejected = true;
            return Some(SourceUpdate::Rejected { diagnostics });
        };
        let unchanged = self.published.as_deref() == Some(&cluster);
        if unchanged && !self.rejected && self.diagnostics == diagnostics {
            return None;
        }
        self.generation = self.generation.next();
        self.rejected = false;
        self.diagnostics.clone_from(&diagnostics);
        let cluster = Arc::new(cluster);
        self.published = Some(Arc::clone(&cluster));
        Some(SourceUpdate::State { cluster, generation: self.generation, diagnostics })
    }
}

fn load(texts: &Texts, mut report: Report) -> Loaded {
    let mut objects = Objects::default();
    for (path, text) in texts {
        parse_manifests(text, path, &mut objects, &mut report);
    }
    let cluster = assemble(&objects, &mut report);
    let cluster = (!report.has_errors()).then_some(cluster);
    Loaded { cluster, diagnostics: report.into_diagnostics() }
}

#[cfg(test)]
mod tests;
