//! The archive: everything that gets into it goes through the [`Redactor`] first.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::redact::Redactor;

/// Directory in the archive.
const ROOT: &str = "undermesh-bugreport";

/// Files in memory, and what could not be had.
pub(super) struct Archive {
    redactor: Redactor,
    time: u64,
    files: Vec<(String, Vec<u8>)>,
    problems: Vec<String>,
}

impl Archive {
    pub(super) fn new(now: SystemTime) -> Result<Self> {
        let time = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let redactor = Redactor::new().context("cannot tell what is secret")?;
        Ok(Self { redactor, time, files: Vec::new(), problems: Vec::new() })
    }

    /// A file of text; lines may be JSON.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.files.push((name.to_owned(), self.redactor.text(text).into_bytes()));
    }

    /// A file with one JSON value; what is none is taken for text.
    pub(super) fn json(&mut self, name: &str, text: &str) {
        let Ok(mut value) = serde_json::from_str::<Value>(text) else {
            return self.text(name, text);
        };
        self.redactor.json(&mut value);
        self.files.push((name.to_owned(), format!("{value:#}\n").into_bytes()));
    }

    /// A file that should be there.
    pub(super) fn missing(&mut self, name: &str, error: &anyhow::Error) {
        self.problems.push(self.redactor.text(&format!("{name}: {error:#}")));
    }

    /// Bytes of all files.
    pub(super) fn len(&self) -> usize {
        self.files.iter().map(|(_, contents)| contents.len()).sum()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// A tar archive, compressed.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, contents) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(self.time);
            let path = format!("{ROOT}/{name}");
            tar.append_data(&mut header, &path, contents.as_slice())
                .with_context(|| format!("cannot put {name} into the archive"))?;
        }
        let mut gzip = tar.into_inner().context("cannot end the archive")?;
        gzip.flush().context("cannot end the archive")?;
        gzip.finish().context("cannot end the archive")
    }
}
