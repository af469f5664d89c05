//! What the lines look like, and what becomes of a file that is full, moved away or cut off.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("um-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn event(reason: &str) -> AuditEvent {
    AuditEvent::CertificateRefused {
        identity: None,
        reason: reason.to_owned(),
        message: "no".to_owned(),
        asker: Asker { address: "10.0.0.1".to_owned(), ..Asker::default() },
    }
}

const SECOND: Duration = Duration::from_secs(5);

#[test]
fn a_line_says_when_who_and_what_and_leaves_out_what_is_not_known() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let audit = Audit::start("controller", AuditSink::Memory(Arc::clone(&lines))).unwrap();
    audit.record(&event("rate"));
    assert!(audit.flush(SECOND));
    let line: serde_json::Value = serde_json::from_str(&lines.lock().unwrap()[0]).unwrap();
    assert!(OffsetDateTime::parse(line["time"].as_str().unwrap(), &Rfc3339).is_ok());
    let rest = serde_json::json!({
        "time": line["time"], "component": "controller", "event": "certificate_refused",
        "reason": "rate", "message": "no", "asker": {"address": "10.0.0.1"},
    });
    assert_eq!(line, rest);
}

#[test]
fn a_full_file_makes_room_and_so_many_are_kept() {
    let dir = Dir::new();
    let path = dir.0.join("audit.log");
    let sink = AuditSink::File { path: path.clone(), max_bytes: 400, keep: 2 };
    let audit = Audit::start("controller", sink).unwrap();
    for number in 0..20 {
        audit.record(&event(&format!("n{number}")));
    }
    assert!(audit.flush(SECOND));
    let mut names: Vec<_> =
        fs::read_dir(&dir.0).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
    let all: String = ["audit.log.2", "audit.log.1", "audit.log"]
        .map(|name| fs::read_to_string(dir.0.join(name)).unwrap())
        .concat();
    let numbers: Vec<u32> = all
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["reason"].as_str().unwrap()[1..].parse().unwrap()
        })
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&19));
    assert_eq!(audit.lost(), 0);
}

#[test]
fn a_file_that_is_moved_away_or_ends_in_the_middle_of_a_line_loses_no_other() {
    let dir = Dir::new();
    let path = dir.0.join("audit.log");
    fs::write(&path, "{\"cut").unwrap();
    let sink = AuditSink::File { path: path.clone(), max_bytes: 1 << 20, keep: 1 };
    let audit = Audit::start("controller", sink).unwrap();
    audit.record(&event("one"));
    assert!(audit.flush(SECOND));
    fs::rename(&path, dir.0.join("elsewhere")).unwrap();
    audit.record(&event("two"));
    assert!(audit.flush(SECOND));
    let read = |name: &str| fs::read_to_string(dir.0.join(name)).unwrap();
    assert_eq!(read("elsewhere").lines().count(), 2);
    assert!(read("audit.log").contains("\"two\""));
}
