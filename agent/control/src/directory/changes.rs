//! Tells when a directory may have changed. Knows nothing of what is in it.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

/// Changes come in groups; what is read has to stay the same for this long.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the directory is looked at even if no event says so: file systems, mounts and links
/// exist that send none.
pub(super) const POLL: Duration = Duration::from_secs(2);

/// Events of one directory, and a look every [`POLL`] in any case.
pub(super) struct Changes {
    watcher: Option<RecommendedWatcher>,
    events: Receiver<()>,
    watched: Option<PathBuf>,
    /// Said once, not with every look.
    warned: bool,
}

impl Changes {
    pub(super) fn new() -> Self {
        let (sender, events) = channel();
        let notice = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                let _ = sender.send(());
            }
        };
        // A link can lead to the root directory: what is behind links is left to the looks.
        let config = Config::default().with_follow_symlinks(false);
        let mut changes = Self { watcher: None, events, watched: None, warned: false };
        match RecommendedWatcher::new(notice, config) {
            Ok(watcher) => changes.watcher = Some(watcher),
            Err(error) => changes.warn(&error),
        }
        changes
    }

    /// Watches what is at `dir` now. Again with every look: it may have been replaced, or be a
    /// link that leads elsewhere.
    pub(super) fn watch(&mut self, dir: &Path) {
        let (Some(watcher), Ok(target)) = (&mut self.watcher, dir.canonicalize()) else { return };
        if let Some(former) = self.watched.take_if(|former| *former != target) {
            // It may be gone, and its watch with it.
            let _ = watcher.unwatch(&former);
        }
        match watcher.watch(&target, RecursiveMode::Recursive) {
            Ok(()) => self.watched = Some(target),
            Err(error) => self.warn(&error),
        }
    }

    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(%error, every = ?POLL, "cannot watch manifests; looking at them instead");
        }
    }

    /// Waits for a change, and lets what belongs to it arrive.
    pub(super) fn wait(&self) {
        match self.events.recv_timeout(POLL) {
            Ok(()) => self.rest(),
            Err(RecvTimeoutError::Timeout) => {}
            // There is no watcher.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
        }
    }

    /// Gives a change the time to be complete.
    pub(super) fn rest(&self) {
        thread::sleep(DEBOUNCE);
        while self.events.try_recv().is_ok() {}
    }
}

/// Reading the manifests is an event as well, and must not lead to reading them again.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Instant};

    use super::*;
    use crate::fixtures::Dir;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn is_noticed(changes: &Changes) -> bool {
        changes.events.recv_timeout(DEADLINE).is_ok()
    }

    /// Opening and reading files are events too.
    #[test]
    fn reading_a_directory_is_no_change_of_it() {
        let dir = Dir::new(&[("a.yaml", "a")]);
        let (events, seen) = channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let _ = events.send(event.unwrap().kind);
        })
        .unwrap();
        watcher.watch(&dir.0, RecursiveMode::Recursive).unwrap();
        fs::read_to_string(dir.0.join("a.yaml")).unwrap();
        watcher.watch(&dir.0, RecursiveMode::Recursive).unwrap();
        dir.write("b.yaml", "");
        let deadline = Instant::now() + DEADLINE;
        let mut before = Vec::new();
        loop {
            let kind = seen.recv_timeout(deadline - Instant::now()).unwrap();
            if is_change(kind) {
                break;
            }
            before.push(kind);
        }
        // Reading was seen, and the first change is the file that came after it.
        assert!(before.iter().any(EventKind::is_access), "{before:?}");
    }

    #[test]
    fn changes_are_noticed_in_subdirectories_and_behind_a_link_to_the_directory() {
        let dir = Dir::new(&[]);
        for name in ["one/sub", "two/sub"] {
            fs::create_dir_all(dir.0.join(name)).unwrap();
        }
        let link = dir.0.join("link");
        symlink("one", &link).unwrap();
        let mut changes = Changes::new();
        changes.watch(&link);
        dir.write("one/sub/a.yaml", "a");
        assert!(is_noticed(&changes));

        fs::remove_file(&link).unwrap();
        symlink("two", &link).unwrap();
        changes.watch(&link);
        changes.rest();
        dir.write("two/b.yaml", "b");
        assert!(is_noticed(&changes));
    }

    /// The directory behind the link is written to first: had it been watched, that would be what
    /// is noticed.
    #[test]
    fn links_inside_the_directory_are_not_followed() {
        let dir = Dir::new(&[]);
        for name in ["manifests", "elsewhere"] {
            fs::create_dir(dir.0.join(name)).unwrap();
        }
        symlink("../elsewhere", dir.0.join("manifests/link")).unwrap();
        let mut changes = Changes::new();
        changes.watch(&dir.0.join("manifests"));
        dir.write("elsewhere/a.yaml", "a");
        assert!(changes.events.recv_timeout(DEBOUNCE).is_err());
        dir.write("manifests/b.yaml", "b");
        assert!(is_noticed(&changes));
    }
}
