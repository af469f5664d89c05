//! The last good state on disk, so that an agent serves that starts while the API server is away.
//!
//! One file, of which every line is JSON: a head, the objects, and an end that says how many there were.
//! It is written beside its place and moved there when it is complete. Secrets are never in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{entry::Entry, slot::SlotId, state::State};
use crate::kinds::Kind;

/// Changes with what is in the file.
const VERSION: u32 = 1;
/// Largest file, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    node: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    node: String,
    /// The server that the state came from: objects of another cluster are of no use.
    server: String,
    /// Seconds since 1970.
    written: u64,
}

#[derive(Deserialize)]
struct Line {
    list: String,
    kind: String,
    /// The last good version, where the object has mistakes.
    good: Option<Value>,
    object: Value,
}

#[derive(Serialize, Deserialize)]
struct End {
    objects: usize,
}

/// What was in the file.
pub(crate) struct Restored {
    pub(crate) state: State,
    pub(crate) server: String,
    pub(crate) written: SystemTime,
}

impl Cache {
    /// The cache of a source, by the name of its kind.
    pub(crate) fn new(dir: &Path, source: &str, node: &str) -> Self {
        Self { path: dir.join(format!("{source}.cache")), node: node.to_owned() }
    }

    /// Writes the state.
    pub(crate) fn write(&self, state: &State, server: &str) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let beside = self.path.with_extension("new");
        let written = self.write_to(&beside, state, server);
        let moved = written.and_then(|()| fs::rename(&beside, &self.path));
        if moved.is_err() {
            let _ = fs::remove_file(&beside);
        }
        moved
    }

    fn write_to(&self, path: &Path, state: &State, server: &str) -> io::Result<()> {
        // Whatever stands there has been left by somebody who died, or is a trap.
        let _ = fs::remove_file(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = Limited { inner: BufWriter::new(file), left: MAX_FILE };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = Head {
            version: VERSION,
            node: self.node.clone(),
            server: server.to_owned(),
            written: now,
        };
        line(&mut out, &head)?;
        let mut objects = 0;
        for (id, list) in &state.lists {
            let kind = list.kind.description.kind;
            if kind == "Secret" {
                continue;
            }
            for entry in list.entries.values() {
                write_entry(&mut out, id, kind, entry)?;
                objects += 1;
            }
        }
        line(&mut out, &End { objects })?;
        out.inner.into_inner()?.sync_all()
    }

    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// Where it is there and cannot be used; the text says why.
    pub(crate) fn read(&self) -> Result<Option<Restored>, String> {
        let told = |error: io::Error| error.to_string();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if file.metadata().map_err(told)?.len() > MAX_FILE {
            return Err(format!("it has more than {MAX_FILE} bytes"));
        }
        let mut lines = BufReader::new(file).lines();
        let mut next = || lines.next().transpose().map_err(told);
        let first = next()?.ok_or("it is empty")?;
        let head: Head = serde_json::from_str(&first).map_err(|_| "it has no head".to_owned())?;
        if head.version != VERSION {
            return Err(format!("it is of version {}, and this is {VERSION}", head.version));
        }
        if head.node != self.node {
            return Err(format!("it is of node {}", head.node));
        }
        let mut state = State::new(&self.node);
        let mut objects = 0;
        while let Some(text) = next()? {
            if let Ok(End { objects: expected }) = serde_json::from_str(&text) {
                let written = UNIX_EPOCH + Duration::from_secs(head.written);
                return if expected == objects {
                    Ok(Some(Restored { state, server: head.server, written }))
                } else {
                    Err(format!("it has {objects} objects instead of {expected}"))
                };
            }
            restore(&mut state, &text)?;
            objects += 1;
        }
        Err("it ends before its end".to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn restore(state: &mut State, text: &str) -> Result<(), String> {
    let line: Line =
        serde_json::from_str(text).map_err(|_| "a line of it cannot be read".to_owned())?;
    // A kind that is not read any more.
    let Some(kind) = Kind::find(&line.kind) else { return Ok(()) };
    let versions: Vec<Value> = line.good.into_iter().chain([line.object]).collect();
    state.restore(SlotId::new(&line.list), kind, &versions);
    Ok(())
}

/// As [`Line`] reads it. Objects are text already.
fn write_entry(out: &mut impl Write, id: &SlotId, kind: &str, entry: &Entry) -> io::Result<()> {
    write!(out, "{{\"list\":{},\"kind\":\"{kind}\"", serde_json::to_string(id.as_str())?)?;
    if let Some(good) = &entry.good {
        out.write_all(b",\"good\":")?;
        out.write_all(good)?;
    }
    out.write_all(b",\"object\":")?;
    out.write_all(&entry.raw)?;
    out.write_all(b"}\n")
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A writer that takes no more than so many bytes.
struct Limited<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(io::Error::other(format!("the state has more than {MAX_FILE} bytes")));
        };
        self.left = left;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
