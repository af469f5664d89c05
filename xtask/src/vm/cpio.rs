//! An initramfs: a cpio archive of the kind `newc` (`Documentation/driver-api/early-userspace/
//! buffer-format.rst` in the kernel's sources), not compressed, because an emulated processor takes
//! longer to unpack it than QEMU takes to hand it over.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// What ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written.
pub(crate) struct Archive<W> {
    to: W,
    written: usize,
    inode: usize,
    directories: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// An archive that goes to `to`.
    pub(crate) fn new(to: W) -> Self {
        Self { to, written: 0, inode: 0, directories: BTreeSet::new() }
    }

    /// Adds a file, and the directories above it; `path` begins with a slash.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(path, PROGRAM, content)
    }

    /// Adds a directory, and those above it.
    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|dir| dir.parent().is_some() && !self.directories.contains(*dir))
            .map(Path::to_owned)
            .collect();
        for dir in missing.into_iter().rev() {
            self.entry(&dir, DIRECTORY, &[])?;
            self.directories.insert(dir);
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry(Path::new(TRAILER), 0, &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        self.inode += 1;
        let fields = [
            self.inode,
            mode as usize,
            0, // user
            0, // group
            1, // links
            0, // time
            content.len(),
            0, // device
            0,
            0, // device of a device file
            0,
            name.len() + 1,
            0, // checksum
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.padded(&[header.as_bytes(), name.as_bytes(), b"\0"])?;
        self.padded(&[content])
    }

    /// Writes, and fills up to a multiple of four bytes.
    fn padded(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.to.write_all(part)?;
            self.written += part.len();
        }
        let padding = self.written.next_multiple_of(4) - self.written;
        self.written += padding;
        self.to.write_all(&[0; 4][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file(Path::new("/usr/lib/one"), b"12345").unwrap();
        archive.file(Path::new("/usr/lib/two"), b"").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> =
            text.split("070701").skip(1).map(|it| it[104..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["usr", "usr/lib", "usr/lib/one", "usr/lib/two", TRAILER]);
        assert!(text.contains("usr/lib/one\u{0}12345") || text.contains("12345\u{0}\u{0}\u{0}"));
    }

    #[test]
    fn a_header_holds_size_and_mode_in_hexadecimal() {
        let mut bytes = Vec::new();
        Archive::new(&mut bytes).file(Path::new("/init"), &[7; 300]).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(&text[..6], "070701");
        assert_eq!(&text[14..22], "000081ed");
        assert_eq!(&text[54..62], "0000012c");
    }
}
