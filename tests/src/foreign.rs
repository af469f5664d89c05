//! Programs of somebody else: an object file with one program that lets everything pass, loaded
//! and attached by `bpftool`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A loaded `cgroup/connect4` program. Dropping it detaches it and removes its pin.
#[derive(Debug)]
pub struct ForeignProgram {
    pin: PathBuf,
    cgroup: PathBuf,
}

impl ForeignProgram {
    /// Loads a program called `name`, pins it in `bpffs`, and attaches it to `cgroup`. `flags` are
    /// bpftool's: none, `multi` or `override`.
    ///
    /// # Errors
    /// Where bpftool refuses; the error quotes it.
    pub fn attach(name: &str, bpffs: &Path, cgroup: &Path, flags: &[&str]) -> Result<Self> {
        let object = std::env::temp_dir().join(format!("{name}-{}.o", std::process::id()));
        fs::write(&object, elf(name))?;
        let program = Self { pin: bpffs.join(name), cgroup: cgroup.to_owned() };
        let loaded =
            bpftool(&["prog".as_ref(), "load".as_ref(), object.as_path(), program.pin.as_path()]);
        fs::remove_file(&object)?;
        loaded?;
        program.cgroup_command("attach", flags)?;
        Ok(program)
    }

    fn cgroup_command(&self, command: &str, flags: &[&str]) -> Result<()> {
        let start = ["cgroup", command].map(Path::new);
        let middle = [self.cgroup.as_path(), Path::new("connect4"), Path::new("pinned")];
        let flags = flags.iter().map(Path::new);
        let args: Vec<&Path> =
            start.into_iter().chain(middle).chain([self.pin.as_path()]).chain(flags).collect();
        bpftool(&args)
    }
}

impl Drop for ForeignProgram {
    fn drop(&mut self) {
        // Never attached is as good.
        let _ = self.cgroup_command("detach", &[]);
        let _ = fs::remove_file(&self.pin);
    }
}

fn bpftool(args: &[&Path]) -> Result<()> {
    let output = Command::new("bpftool").args(args).output().context("cannot run bpftool")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bpftool {args:?}: {}", complaint.trim());
    Ok(())
}

const HEADER: usize = 64;
/// `r0 = 1; exit`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The smallest object that libbpf takes: ELF64, little endian, for machine 247 (BPF); sections
/// with names, the program, the licence and one symbol.
fn elf(name: &str) -> Vec<u8> {
    let mut names = vec![0];
    let mut offset_of = |text: &str| {
        let offset = names.len() as u32;
        names.extend(text.as_bytes());
        names.push(0);
        offset
    };
    let [strings_name, code_name, licence_name, symbols_name, program_name] =
        [".strtab", "cgroup/connect4", "license", ".symtab", name].map(&mut offset_of);
    let mut symbols = vec![0_u8; 24];
    symbols.extend(program_name.to_le_bytes());
    // A global function in section 2.
    symbols.extend([0x12, 0, 2, 0]);
    symbols.extend([0_u64.to_le_bytes(), (CODE.len() as u64).to_le_bytes()].concat());

    let mut body = Vec::new();
    let mut headers = vec![0_u8; HEADER];
    // Type, flags, link, information, alignment, size of an entry.
    let sections: [(u32, &[u8], [u64; 6]); 4] = [
        (strings_name, &names, [3, 0, 0, 0, 1, 0]),
        (code_name, &CODE, [1, 6, 0, 0, 8, 0]),
        (licence_name, b"GPL\0", [1, 3, 0, 0, 1, 0]),
        (symbols_name, &symbols, [2, 0, 1, 1, 8, 24]),
    ];
    for (name, content, [kind, flags, link, info, align, entry]) in sections {
        body.resize(body.len().next_multiple_of(8), 0);
        let offset = (HEADER + body.len()) as u64;
        headers.extend([name, kind as u32].map(u32::to_le_bytes).concat());
        headers.extend([flags, 0, offset, content.len() as u64].map(u64::to_le_bytes).concat());
        headers.extend([link as u32, info as u32].map(u32::to_le_bytes).concat());
        headers.extend([align, entry].map(u64::to_le_bytes).concat());
        body.extend(content);
    }
    body.resize(body.len().next_multiple_of(8), 0);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([1_u16, 247].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, (HEADER + body.len()) as u64].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 0, 0, 64, 5, 1].map(u16::to_le_bytes).concat());
    [file, body, headers].concat()
}
