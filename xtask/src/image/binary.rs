//! What an executable needs, and what is in it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use object::{
    elf::{DT_NEEDED, FileHeader64, PT_INTERP},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

/// Of the programs' object, as many bytes from its middle are looked for.
const PIECE: usize = 512;

/// An executable.
pub(super) struct Binary {
    bytes: Vec<u8>,
}

impl Binary {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { bytes })
    }

    /// Whether it asks for a loader or for a library.
    pub(super) fn asks_for_others(&self) -> Result<bool> {
        let data = self.bytes.as_slice();
        let header = FileHeader64::<object::Endianness>::parse(data)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, data)? {
            if segment.p_type(endian) == PT_INTERP {
                return Ok(true);
            }
            let entries = segment.dynamic(endian, data)?.unwrap_or_default();
            if entries.iter().any(|entry| entry.d_tag(endian) == DT_NEEDED) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the programs' object is in it, as it is.
    pub(super) fn holds(&self, object: &[u8]) -> bool {
        let middle = object.len() / 2;
        let piece = object.get(middle..middle + PIECE).unwrap_or(object);
        !piece.is_empty() && self.bytes.windows(piece.len()).any(|window| window == piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_asks_for_the_c_library_and_a_text_is_no_executable() {
        let this = Binary::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(this.asks_for_others().unwrap());
        assert!(Binary { bytes: b"#!/bin/sh\n".to_vec() }.asks_for_others().is_err());
    }

    #[test]
    fn an_object_is_found_by_its_middle() {
        let object: Vec<u8> = (0..2000_u32).flat_map(u32::to_le_bytes).collect();
        let bytes = [&[1, 2, 3], object.as_slice(), &[4]].concat();
        assert!(Binary { bytes: bytes.clone() }.holds(&object));
        assert!(!Binary { bytes: bytes[..4000].to_vec() }.holds(&object));
        assert!(!Binary { bytes }.holds(&[]));
    }
}
