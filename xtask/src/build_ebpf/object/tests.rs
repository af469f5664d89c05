//! The listing, read from small ELF files that are assembled here.

use super::*;

const FUNCTION: u8 = 2;
const OBJECT: u8 = 1;
const DEFAULT: u8 = 0;
const HIDDEN: u8 = 2;
const EXECUTABLE: u64 = 6;
const WRITABLE: u64 = 3;
const EM_BPF: u16 = 247;
const EM_X86_64: u16 = 62;

/// A relocatable ELF file: sections with their flags and bytes, and global symbols in them.
#[derive(Default)]
struct Elf {
    sections: Vec<(&'static str, u64, Vec<u8>)>,
    /// name, type, visibility, section (from 0), value, size
    symbols: Vec<(&'static str, u8, u8, usize, u64, u64)>,
}

impl Elf {
    fn section(&mut self, name: &'static str, flags: u64, bytes: Vec<u8>) -> usize {
        self.sections.push((name, flags, bytes));
        self.sections.len() - 1
    }

    /// A function that fills a section of its own.
    fn function(&mut self, name: &'static str, section: &'static str, visibility: u8, count: u64) {
        let size = count * INSTRUCTION;
        let index = self.section(section, EXECUTABLE, vec![0; usize::try_from(size).unwrap()]);
        self.symbols.push((name, FUNCTION, visibility, index, 0, size));
    }

    fn build(&self, machine: u16) -> Vec<u8> {
        let mut strings = vec![0];
        let mut intern = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let mut symbols = vec![0; 24];
        for (name, kind, visibility, section, value, size) in &self.symbols {
            symbols.extend_from_slice(&intern(name).to_le_bytes());
            symbols.extend_from_slice(&[(1 << 4) | kind, *visibility]);
            symbols.extend_from_slice(&u16::try_from(section + 1).unwrap().to_le_bytes());
            symbols.extend_from_slice(&value.to_le_bytes());
            symbols.extend_from_slice(&size.to_le_bytes());
        }
        let names: Vec<u32> = self.sections.iter().map(|section| intern(section.0)).collect();
        let (symtab, strtab) = (intern(".symtab"), intern(".strtab"));
        // Everything between the header and the section table, and the table's rows.
        let mut body = Vec::new();
        let mut table = vec![0; 64];
        let mut row = |name: u32, kind: u32, flags: u64, link: u32, entry: u64, bytes: &[u8]| {
            let offset = 64 + body.len() as u64;
            body.extend_from_slice(bytes);
            table.extend_from_slice(&name.to_le_bytes());
            table.extend_from_slice(&kind.to_le_bytes());
            for word in [flags, 0, offset, bytes.len() as u64] {
                table.extend_from_slice(&word.to_le_bytes());
            }
            table.extend_from_slice(&link.to_le_bytes());
            table.extend_from_slice(&1_u32.to_le_bytes());
            for word in [8, entry] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        };
        for (name, (_, flags, bytes)) in names.iter().zip(&self.sections) {
            row(*name, 1, *flags, 0, 0, bytes);
        }
        let strtab_index = u16::try_from(self.sections.len() + 2).unwrap();
        row(symtab, 2, 0, strtab_index.into(), 24, &symbols);
        row(strtab, 3, 0, 0, 0, &strings);
        body.resize(body.len().next_multiple_of(8), 0);
        let mut file = header(machine, 64 + body.len() as u64, strtab_index);
        file.extend_from_slice(&body);
        file.extend_from_slice(&table);
        file
    }
}

fn header(machine: u16, section_table: u64, strtab_index: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    for half in [1, machine] {
        header.extend_from_slice(&half.to_le_bytes());
    }
    header.extend_from_slice(&1_u32.to_le_bytes());
    for word in [0, 0, section_table] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    header.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64, 0, 0, 64, strtab_index + 1, strtab_index] {
        header.extend_from_slice(&half.to_le_bytes());
    }
    header
}

fn map(kind: u32, max_entries: u32) -> Vec<u8> {
    let words = [kind, 8, 8, max_entries, 0, 0, 1];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn programs_are_listed_with_hook_and_instructions_and_maps_with_type_and_entries() {
    let mut elf = Elf::default();
    elf.function("mesh_connect4", "cgroup/connect4", DEFAULT, 12);
    elf.function("memcpy", ".text", HIDDEN, 5);
    let maps = elf.section("maps", WRITABLE, [map(1, 1024), map(27, 4096)].concat());
    elf.symbols.push(("PODS", OBJECT, DEFAULT, maps, 0, 28));
    elf.symbols.push(("EVENTS", OBJECT, DEFAULT, maps, 28, 28));
    let btf = elf.section(".maps", WRITABLE, vec![0; 40]);
    elf.symbols.push(("STORAGE", OBJECT, DEFAULT, btf, 0, 40));

    let listing = Listing::parse(&elf.build(EM_BPF)).unwrap();
    let lines: Vec<String> = listing
        .to_string()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "programs mesh_connect4 cgroup/connect4 12 instructions",
            "(shared functions) 5 instructions",
            "maps EVENTS ring buffer 4096 entries",
            "PODS hash 1024 entries",
            "STORAGE described by BTF",
        ]
    );
}

#[test]
fn hidden_functions_and_the_licence_are_not_programs() {
    let mut elf = Elf::default();
    elf.function("steer", "sk_lookup", DEFAULT, 3);
    elf.function("helper", "helpers", HIDDEN, 9);
    let license = elf.section("license", WRITABLE, b"GPL\0".to_vec());
    elf.symbols.push(("LICENSE", OBJECT, DEFAULT, license, 0, 4));
    let listing = Listing::parse(&elf.build(EM_BPF)).unwrap();
    assert_eq!(listing.programs.len(), 1);
    assert_eq!(listing.programs[0].name, "steer");
    assert_eq!(listing.maps, []);
}

#[test]
fn an_object_without_a_program_is_refused() {
    let error = Listing::parse(&Elf::default().build(EM_BPF)).unwrap_err();
    assert!(error.to_string().contains("no program"), "{error}");
}

#[test]
fn an_object_for_another_machine_is_refused() {
    let mut elf = Elf::default();
    elf.function("main", "cgroup/connect4", DEFAULT, 1);
    let error = Listing::parse(&elf.build(EM_X86_64)).unwrap_err();
    assert!(error.to_string().contains("not for eBPF"), "{error}");
}

#[test]
fn a_map_definition_that_is_cut_short_is_named() {
    let mut elf = Elf::default();
    elf.function("steer", "sk_lookup", DEFAULT, 1);
    let maps = elf.section("maps", WRITABLE, map(1, 16)[..12].to_vec());
    elf.symbols.push(("PODS", OBJECT, DEFAULT, maps, 0, 12));
    let error = Listing::parse(&elf.build(EM_BPF)).unwrap_err();
    assert!(error.to_string().contains("map PODS is cut short"), "{error}");
}

#[test]
fn bytes_that_are_not_an_elf_file_are_refused() {
    let error = Listing::parse(b"not an object").unwrap_err();
    assert!(error.to_string().contains("not a 64-bit ELF file"), "{error}");
}
