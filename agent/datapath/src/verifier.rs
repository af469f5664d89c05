//! What the kernel's verifier makes of every program: whether it takes it, and what looking at it
//! has cost. Programs are loaded for a moment and attached to nothing; an agent that runs is not
//! touched.
//!
//! The numbers show how near a program is to the verifier's limits (a million instructions looked
//! at), which differ in effect from kernel to kernel: `cargo xtask vm` compares them with a budget.

mod statistics;

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process,
};

use aya_obj::{Object, ProgramSection, generated::bpf_insn, programs::CgroupSockAddrAttachType};
use serde::Serialize;

use crate::{
    Config, DatapathError, MapSizes, attach,
    bpffs::PinDir,
    error::chain,
    load::{OBJECT, load_object, tail},
    probe::KernelFeatures,
    sys::{
        self,
        verifier::{LogLevel, ProgramImage, btf_load, prog_load, prog_size},
    },
};
use statistics::Statistics;

/// Room for the verifier's statistics and a refusal in a few words.
const STATISTICS_LOG: usize = 64 << 10;
/// Room for the path to an instruction that is refused.
const PATH_LOG: usize = 4 << 20;

/// What the verifier has said about one program.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramCost {
    /// Name in the object.
    pub name: String,
    /// Kind of hook.
    pub hook: &'static str,
    /// Why the kernel refuses it, with the verifier's last words; none where it takes it.
    pub refused: Option<String>,
    /// Instructions after the verifier has rewritten them.
    pub instructions: u32,
    /// Bytes of machine code; 0 where the kernel interprets.
    pub jited_bytes: u32,
    /// Instructions that the verifier has looked at, once per path.
    pub processed: u32,
    /// States that the verifier has kept, all in all and at most at a time.
    pub total_states: u32,
    /// The latter.
    pub peak_states: u32,
}

/// Loads every program once, with maps of its own pinned beside `pin_dir` for as long as it takes.
///
/// # Errors
/// Where the maps cannot be made. A program that is refused is part of the answer.
pub fn verify(pin_dir: &Path) -> Result<Vec<ProgramCost>, DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::NoPrograms);
    }
    attach::raise_memlock();
    let scratch = Scratch::create(pin_dir)?;
    let maps = scratch.maps()?;
    let mut object = Object::parse(OBJECT).map_err(|error| unreadable(&error))?;
    relocate(&mut object, &maps)?;
    let btf = types(&mut object);
    let mut names: Vec<&String> = object.programs.keys().collect();
    names.sort();
    names.into_iter().map(|name| try_one(&object, name, btf.as_ref())).collect()
}

/// Maps by their names in the object.
type Maps = Vec<(String, OwnedFd)>;

/// A directory of pins that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn create(beside: &Path) -> Result<Self, DatapathError> {
        let name = format!("undermesh-verify-{}", process::id());
        Ok(Self(beside.with_file_name(name)))
    }

    /// Makes the object's maps; small ones, for their size is nothing to the verifier.
    fn maps(&self) -> Result<Maps, DatapathError> {
        let pins = PinDir::create(&self.0)?;
        let sizes = MapSizes {
            pods: 1,
            workloads: 1,
            policy_entries: 1,
            services: 1,
            backends: 1,
            connections: 1 << 10,
            pod_ports: 1,
            event_bytes: 1 << 12,
        };
        let config =
            Config { pin_dir: self.0.clone(), cgroup: PathBuf::new(), sizes, kernel_log: false };
        let ebpf = load_object(&config, &pins, &KernelFeatures::probe_alternatives())?;
        ebpf.maps()
            .map(|(name, map)| {
                let pin = pins.maps.join(name);
                // Maps that the agent does not pin, `.rodata` for one; bpffs takes no dots.
                let own = pins.links.join(name.replace('.', "_"));
                let path = if pin.exists() {
                    pin
                } else {
                    map.pin(&own).map_err(|error| DatapathError::Load(chain(&error)))?;
                    own
                };
                let fd = sys::obj_get(&path);
                Ok((name.to_owned(), fd.map_err(DatapathError::file("open", path))?))
            })
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(pins = %self.0.display(), %error, "cannot remove a verifier's pins");
        }
    }
}

/// Puts the maps' descriptors and the functions' addresses into the instructions, as aya does.
fn relocate(object: &mut Object, maps: &Maps) -> Result<(), DatapathError> {
    let definitions = object.maps.clone();
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let known = maps
        .iter()
        .filter_map(|(name, fd)| Some((name.as_str(), fd.as_raw_fd(), definitions.get(name)?)));
    object.relocate_maps(known, &text).map_err(|error| unreadable(&error))?;
    object.relocate_calls(&text).map_err(|error| unreadable(&error))
}

/// The object's types, where the kernel takes them; programs load without as well.
fn types(object: &mut Object) -> Option<OwnedFd> {
    let btf = object.fixup_and_sanitize_btf(aya::features().btf()?).ok()??.to_bytes();
    btf_load(&btf).ok()
}

fn try_one(
    object: &Object,
    name: &str,
    btf: Option<&OwnedFd>,
) -> Result<ProgramCost, DatapathError> {
    let absent = || DatapathError::Load(format!("the embedded object has no {name}"));
    let program = object.programs.get(name).ok_or_else(absent)?;
    let function = object.functions.get(&program.function_key()).ok_or_else(absent)?;
    let (kind, attach_type, hook) = hook(&program.section).ok_or_else(|| {
        DatapathError::Load(format!("{name} is for a kind of hook that `verify` cannot try"))
    })?;
    let instructions: Vec<u8> = function.instructions.iter().flat_map(encode).collect();
    let records = function.func_info.func_info_bytes();
    let record_size = function.func_info_rec_size as u32;
    let image = ProgramImage {
        kind,
        attach_type,
        instructions: &instructions,
        license: &program.license,
        btf: btf
            .filter(|_| record_size > 0)
            .map(|fd| (fd.as_fd(), records.as_slice(), record_size)),
    };
    cost(name, hook, image)
}

fn cost(
    name: &str,
    hook: &'static str,
    image: ProgramImage<'_>,
) -> Result<ProgramCost, DatapathError> {
    let (loaded, log) = prog_load(image, LogLevel::Statistics, STATISTICS_LOG);
    let statistics = Statistics::read(&log);
    let mut cost = ProgramCost {
        name: name.to_owned(),
        hook,
        refused: None,
        instructions: 0,
        jited_bytes: 0,
        processed: statistics.processed,
        total_states: statistics.total_states,
        peak_states: statistics.peak_states,
    };
    match loaded {
        Ok(fd) => {
            let size = prog_size(fd.as_fd()).map_err(DatapathError::file("ask about", name))?;
            cost.instructions = size.translated / 8;
            cost.jited_bytes = size.jited;
            cost.processed = cost.processed.max(size.verified);
        }
        Err(error) => {
            let (_, path) = prog_load(image, LogLevel::Path, PATH_LOG);
            let words = if path.is_empty() { &log } else { &path };
            cost.refused = Some(format!("{error}; the verifier's last words:\n{}", tail(words)));
        }
    }
    Ok(cost)
}

/// An instruction as the kernel reads it: operation, registers, offset, constant.
fn encode(instruction: &bpf_insn) -> [u8; 8] {
    let [off_low, off_high] = instruction.off.to_le_bytes();
    let imm = instruction.imm.to_le_bytes();
    let registers = instruction.src_reg() << 4 | instruction.dst_reg();
    [instruction.code, registers, off_low, off_high, imm[0], imm[1], imm[2], imm[3]]
}

/// `enum bpf_prog_type`, `enum bpf_attach_type`, and the name that people know.
fn hook(section: &ProgramSection) -> Option<(u32, u32, &'static str)> {
    use CgroupSockAddrAttachType as Address;
    const SOCK_OPS: u32 = 13;
    const SOCK_ADDR: u32 = 18;
    const SK_LOOKUP: u32 = 30;
    Some(match section {
        ProgramSection::SockOps => (SOCK_OPS, 3, "sockops"),
        ProgramSection::SkLookup => (SK_LOOKUP, 36, "sk_lookup"),
        ProgramSection::CgroupSockAddr { attach_type } => {
            let (number, name) = match attach_type {
                Address::Connect4 => (10, "cgroup/connect4"),
                Address::Connect6 => (11, "cgroup/connect6"),
                Address::GetPeerName4 => (29, "cgroup/getpeername4"),
                Address::GetPeerName6 => (30, "cgroup/getpeername6"),
                Address::UDPSendMsg4 => (14, "cgroup/sendmsg4"),
                Address::UDPSendMsg6 => (15, "cgroup/sendmsg6"),
                Address::UDPRecvMsg4 => (19, "cgroup/recvmsg4"),
                Address::UDPRecvMsg6 => (20, "cgroup/recvmsg6"),
                Address::Bind4 => (8, "cgroup/bind4"),
                Address::Bind6 => (9, "cgroup/bind6"),
                Address::GetSockName4 => (31, "cgroup/getsockname4"),
                Address::GetSockName6 => (32, "cgroup/getsockname6"),
            };
            (SOCK_ADDR, number, name)
        }
        _ => return None,
    })
}

fn unreadable(error: &dyn std::error::Error) -> DatapathError {
    DatapathError::Load(chain(error))
}
