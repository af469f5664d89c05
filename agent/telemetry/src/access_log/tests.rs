//! What becomes of lines: files that are moved away, sinks that fail or wait.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::atomic::AtomicUsize, time::Instant};

use super::*;
use crate::told::samples::{details, tell};

const SOON: Duration = Duration::from_secs(10);

/// A directory that is removed with everything in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("undermesh-access-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn log_to(path: &Path) -> AccessLog {
    AccessLog::start(AccessLogSink::File(path.to_owned())).unwrap()
}

fn log(log: &AccessLog, detail: &str) {
    tell(log.journal(), detail);
    assert!(log.flush(SOON), "the line was not written in time");
}

fn written(path: &Path) -> Vec<String> {
    details(fs::read_to_string(path).unwrap().lines())
}

#[test]
fn a_file_is_appended_to_and_not_for_everybody_to_read() {
    let directory = Directory::new();
    let path = directory.file("access.log");
    log(&log_to(&path), "one");
    log(&log_to(&path), "two");
    assert_eq!(written(&path), ["one", "two"]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let directory = Directory::new();
    let (path, moved) = (directory.file("access.log"), directory.file("access.log.1"));
    let access_log = log_to(&path);
    log(&access_log, "before");
    fs::rename(&path, &moved).unwrap();
    log(&access_log, "after");
    assert_eq!(written(&moved), ["before"]);
    assert_eq!(written(&path), ["after"]);
}

#[test]
fn lines_of_a_failing_file_are_counted_and_the_log_recovers() {
    let directory = Directory::new();
    let path = directory.file("access.log");
    let access_log = log_to(&path);
    let hidden = directory.file("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::rename(&path, hidden.join("access.log")).unwrap();
    // A directory in its place cannot be opened for writing.
    fs::create_dir(&path).unwrap();
    log(&access_log, "lost");
    assert_eq!(access_log.dropped(), 1);
    fs::remove_dir(&path).unwrap();
    log(&access_log, "kept");
    assert_eq!(written(&path), ["kept"]);
    assert_eq!(access_log.dropped(), 1);
}

#[test]
fn every_line_lost_to_a_full_device_is_counted() {
    let access_log = log_to(Path::new("/dev/full"));
    log(&access_log, "lost");
    log(&access_log, "lost too");
    assert_eq!(access_log.dropped(), 2);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let directory = Directory::new();
    let path = directory.file("missing").join("access.log");
    let error = AccessLog::start(AccessLogSink::File(path)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_flush_gives_up_on_a_stuck_sink() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let access_log = AccessLog::start(AccessLogSink::Memory(Arc::clone(&lines))).unwrap();
    let stuck = lines.lock().unwrap();
    tell(access_log.journal(), "waiting");
    assert!(!access_log.flush(Duration::from_millis(20)));
    drop(stuck);
    assert!(access_log.flush(SOON));
    assert_eq!(details(&*lines.lock().unwrap()), ["waiting"]);
}

#[test]
fn nothing_is_kept_or_waited_for_when_the_log_is_off() {
    let access_log = AccessLog::start(AccessLogSink::Off).unwrap();
    let started = Instant::now();
    log(&access_log, "nowhere");
    assert!(started.elapsed() < SOON);
    assert_eq!(access_log.dropped(), 0);
}
