//! What is in an eBPF object: its programs and maps, read from the ELF file that the loader will
//! read. A program is a global function in a section named after its hook; functions in `.text` are
//! called by programs and copied into each of them by the loader.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind,
    SymbolKind, SymbolScope,
    elf::FileHeader64,
    read::elf::{ElfFile, ElfSymbol},
};

/// Bytes of one instruction.
const INSTRUCTION: u64 = 8;
/// The section of maps in aya's first format: 28 bytes each, seven 32-bit words.
const MAPS: &str = "maps";
/// The section of maps that describe themselves by BTF types.
const BTF_MAPS: &str = ".maps";
/// Functions that are called by programs.
const SHARED: &str = ".text";

type Elf<'data> = ElfFile<'data, FileHeader64<Endianness>>;

/// An object's programs and maps, in the order of their names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    programs: Vec<Program>,
    maps: Vec<Map>,
    /// Instructions in functions that programs share.
    shared: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Program {
    name: String,
    hook: String,
    instructions: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Map {
    name: String,
    /// Type and capacity; `None` where they stand in BTF only.
    definition: Option<Definition>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Definition {
    kind: u32,
    max_entries: u32,
}

impl Listing {
    /// Reads `bytes`, a little-endian eBPF ELF file with at least one program.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let elf = Elf::parse(bytes).context("not a 64-bit ELF file")?;
        if elf.architecture() != Architecture::Bpf {
            bail!("built for {:?}, not for eBPF", elf.architecture());
        }
        let mut listing = Self { programs: Vec::new(), maps: Vec::new(), shared: 0 };
        for symbol in elf.symbols() {
            listing.add(&elf, &symbol)?;
        }
        if listing.programs.is_empty() {
            bail!("it holds no program: was the right package built?");
        }
        listing.programs.sort();
        listing.maps.sort();
        Ok(listing)
    }

    fn add(
        &mut self,
        elf: &Elf<'_>,
        symbol: &ElfSymbol<'_, '_, FileHeader64<Endianness>>,
    ) -> Result<()> {
        let Some(index) = symbol.section_index() else {
            return Ok(());
        };
        let section = elf.section_by_index(index)?;
        let hook = section.name()?;
        let name = symbol.name()?.to_owned();
        let exported = symbol.is_global() && symbol.scope() == SymbolScope::Dynamic;
        match (symbol.kind(), section.kind()) {
            (SymbolKind::Text, SectionKind::Text) if hook == SHARED => {
                self.shared += symbol.size() / INSTRUCTION;
            }
            (SymbolKind::Text, SectionKind::Text) if exported => self.programs.push(Program {
                name,
                hook: hook.to_owned(),
                instructions: symbol.size() / INSTRUCTION,
            }),
            (SymbolKind::Data, _) if hook == MAPS => {
                let data = section.data_range(symbol.address(), symbol.size())?;
                let definition = data.and_then(Definition::parse);
                let definition = definition.with_context(|| format!("map {name} is cut short"))?;
                self.maps.push(Map { name, definition: Some(definition) });
            }
            (SymbolKind::Data, _) if hook == BTF_MAPS => {
                self.maps.push(Map { name, definition: None });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Definition {
    /// Words: type, key size, value size, entries, flags, id, pinning.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self { kind: word(0)?, max_entries: word(3)? })
    }
}

/// `enum bpf_map_type` of the kernel's `bpf.h`, as far as a data path uses it.
fn kind_name(kind: u32) -> &'static str {
    match kind {
        1 => "hash",
        2 => "array",
        3 => "prog array",
        4 => "perf event array",
        5 => "per-CPU hash",
        6 => "per-CPU array",
        9 => "LRU hash",
        10 => "per-CPU LRU hash",
        11 => "LPM trie",
        12 => "array of maps",
        13 => "hash of maps",
        15 => "sockmap",
        18 => "sockhash",
        24 => "socket storage",
        27 => "ring buffer",
        _ => "other",
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.programs.iter().map(|program| &program.name);
        let names = names.chain(self.maps.iter().map(|map| &map.name));
        let width = names.map(String::len).max().unwrap_or(0);
        for (index, program) in self.programs.iter().enumerate() {
            let head = if index == 0 { "programs" } else { "" };
            let Program { name, hook, instructions } = program;
            writeln!(f, "{head:<9}  {name:<width$}  {hook:<20}  {instructions:>5} instructions")?;
        }
        if self.shared > 0 {
            let name = "(shared functions)";
            writeln!(f, "{:<9}  {name:<width$}  {:<20}  {:>5} instructions", "", "", self.shared)?;
        }
        for (index, map) in self.maps.iter().enumerate() {
            let head = if index == 0 { "maps" } else { "" };
            let name = &map.name;
            match &map.definition {
                Some(Definition { kind, max_entries }) => {
                    let kind = kind_name(*kind);
                    writeln!(f, "{head:<9}  {name:<width$}  {kind:<20}  {max_entries:>5} entries")?;
                }
                None => writeln!(f, "{head:<9}  {name:<width$}  described by BTF")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
