//! Loading: the object, its maps (new or adopted), its programs, and their links.

mod maps;

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf, SockHash},
    programs::{CgroupSockAddr, ProgramError, SkLookup, SockOps},
};
use undermesh_ebpf_common::{ListenerKey, Pod};
use undermesh_snapshot::DatapathTables;

use crate::{
    AgentMark, DatapathError, DeliveryTable, Events, LocalTupleTable, MapReader, MapSizes,
    OriginalDstTable, ReturnRoutes, StartupGate,
    attach::{self, Attachment, Site},
    bpffs::{self, PinDir},
    cgroup::{self, CgroupRoot},
    cleanup::{CleanupReport, cleanup_other_versions, silence_other_versions},
    cookie,
    error::chain,
    kernel_log,
    listening::ListeningPorts,
    pods::PodPrograms,
    probe::{Feature, KernelFeatures},
    table::Table,
    tables::ConfigTables,
};
use maps::{adopt, adopt_blocks, hash, sized, take};

/// The embedded object; empty where the build had none.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/undermesh-programs"));

/// Programs at the cgroup, as pairs of a name and its hook.
pub(crate) const CGROUP_PROGRAMS: [(&str, &str); 5] = [
    ("undermesh_connect4", "cgroup/connect4"),
    ("undermesh_connect6", "cgroup/connect6"),
    ("undermesh_getpeername4", "cgroup/getpeername4"),
    ("undermesh_getpeername6", "cgroup/getpeername6"),
    ("undermesh_publish", "sockops"),
];
/// Programs at the kubelet's cgroup; the last one's second link.
const KUBELET_PROGRAMS: [(&str, &str, &str); 3] = [
    ("undermesh_probe4", "cgroup/connect4", "undermesh_probe4"),
    ("undermesh_probe6", "cgroup/connect6", "undermesh_probe6"),
    ("undermesh_publish", "sockops", "undermesh_publish_kubelet"),
];
/// Programs at the cgroup on kernels whose sockops cannot ask for the netns cookie.
const BIND_PROGRAMS: [(&str, &str); 2] =
    [("undermesh_bind4", "cgroup/bind4"), ("undermesh_bind6", "cgroup/bind6")];
/// The program at the agent's own cgroup, on kernels that need it.
const COOKIE_PROGRAM: (&str, &str) = ("undermesh_cookie", "cgroup/connect4");
/// The program in every enrolled pod's network namespace.
pub(crate) const POD_PROGRAM: &str = "undermesh_steer";

/// What the data path needs to know of the node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a BPF file system; everything pinned lies below it.
    pub pin_dir: PathBuf,
    /// The cgroup to attach to.
    pub cgroup: PathBuf,
    /// Map sizes.
    pub sizes: MapSizes,
    /// Let the programs log into the agent's log. Costs time on every reported connection.
    pub kernel_log: bool,
}

/// The loaded and attached programs.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) pins: PinDir,
    pub(crate) attachments: Vec<Attachment>,
    pin_dir: PathBuf,
    tables: ConfigTables,
    pods: Option<PodPrograms>,
    gate: Option<StartupGate>,
    events: Option<Events>,
    original_dst: OriginalDstTable,
    local_tuples: LocalTupleTable,
    mark: AgentMark,
    deliveries: DeliveryTable,
    features: KernelFeatures,
    _cgroup: File,
}

impl Datapath {
    /// Loads the programs, takes pinned maps over or creates them, and replaces the programs behind
    /// pinned links or attaches new ones.
    ///
    /// # Errors
    /// Whatever keeps a single program from working: the agent must not run with half of them.
    pub fn load(config: &Config) -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoPrograms);
        }
        attach::raise_memlock();
        let pins = PinDir::create(&config.pin_dir)?;
        let (cgroup_file, cgroup_id) = cgroup::open(&config.cgroup)?;
        let features = KernelFeatures::probe_alternatives();
        let mut ebpf = load_object(config, &pins, &features)?;
        if config.kernel_log {
            kernel_log::start(&mut ebpf)?;
        }
        let tables = ConfigTables {
            policy: adopt(&mut ebpf, "POLICY")?,
            workloads: adopt(&mut ebpf, "WORKLOADS")?,
            services: adopt(&mut ebpf, "SERVICES")?,
            backends: adopt(&mut ebpf, "BACKENDS")?,
            blocks: adopt_blocks(&mut ebpf)?,
            probe_ports: adopt(&mut ebpf, "PROBE_PORTS")?,
            settings: Array::try_from(take(&mut ebpf, "SETTINGS")?)
                .map_err(DatapathError::map("open", "SETTINGS"))?,
        };
        let original_dst = OriginalDstTable::new(hash(&mut ebpf, "ORIGINAL_DST")?);
        let local_tuples = LocalTupleTable::new(hash(&mut ebpf, "LOCAL_TUPLES")?);
        let mark = AgentMark::new(
            crate::sys::obj_get(&pins.agent_sockets)
                .map_err(DatapathError::file("open pinned map", &pins.agent_sockets))?,
        );
        let deliveries = DeliveryTable::new(
            crate::sys::obj_get(&pins.maps.join("DELIVERIES"))
                .map_err(DatapathError::file("open pinned map", pins.maps.join("DELIVERIES")))?,
        );
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?)
            .map_err(DatapathError::map("open", "EVENTS"))?;
        let pods: Table<u64, Pod> = adopt(&mut ebpf, "PODS")?;
        let gate = StartupGate::new(
            Array::try_from(take(&mut ebpf, "GATE")?)
                .map_err(DatapathError::map("open", "GATE"))?,
            adopt(&mut ebpf, "GATE_MARKS")?,
            SockHash::try_from(take(&mut ebpf, "WATCHER")?)
                .map_err(DatapathError::map("open", "WATCHER"))?,
        );
        let listeners: SockHash<MapData, ListenerKey> =
            SockHash::try_from(take(&mut ebpf, "LISTENERS")?)
                .map_err(DatapathError::map("open", "LISTENERS"))?;
        let (listening, max_entries) = sized(&mut ebpf, "LISTENING")?;
        let listening = ListeningPorts::new(listening, max_entries);
        let mut datapath = Self {
            ebpf,
            attachments: Vec::new(),
            pin_dir: config.pin_dir.clone(),
            tables,
            pods: None,
            gate: Some(gate),
            events: Some(Events::new(ring)),
            original_dst,
            local_tuples,
            mark,
            deliveries,
            pins,
            features,
            _cgroup: cgroup_file,
        };
        datapath.attach_to_cgroup(config, cgroup_id)?;
        if !datapath.features.has(Feature::SocketNetnsCookie) {
            datapath.attach_to_self()?;
        }
        let steer = datapath.load_pod_program()?;
        datapath.pods =
            Some(PodPrograms::new(pods, listeners, listening, steer, datapath.pins.pods.clone()));
        Ok(datapath)
    }

    /// Makes the configuration maps equal to `desired`; returns how many entries changed.
    ///
    /// # Errors
    /// A full map, by the name of the object that found no place; what fits has been applied.
    pub fn apply(&mut self, desired: &DatapathTables) -> Result<usize, DatapathError> {
        self.tables.apply(desired)
    }

    /// Reads the configuration maps again: another agent may have written to them.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn read_again(&mut self) -> Result<(), DatapathError> {
        self.tables.read_again()
    }

    /// Takes the per-pod half out; it can be had once.
    pub fn take_pods(&mut self) -> Option<PodPrograms> {
        self.pods.take()
    }

    /// Takes the startup gate out; it can be had once.
    pub fn take_gate(&mut self) -> Option<StartupGate> {
        self.gate.take()
    }

    /// Takes the event stream out; it can be had once.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Whether another ABI version is in place, which an agent before an upgrade has left.
    pub fn is_beside_another_version(&self) -> bool {
        bpffs::is_beside_others(&self.pins.pods)
    }

    /// Detaches those programs of every other ABI version that lead connections. Both versions run
    /// side by side until then: what one has rewritten, the other leaves alone. Connections that
    /// were led before still need the rest, until [`Self::remove_other_versions`].
    ///
    /// # Errors
    /// The first pin that cannot be removed.
    pub fn silence_other_versions(&self) -> Result<usize, DatapathError> {
        silence_other_versions(&self.pin_dir)
    }

    /// Removes every program and map of every other ABI version.
    ///
    /// # Errors
    /// The first pin that cannot be removed.
    pub fn remove_other_versions(&self) -> Result<CleanupReport, DatapathError> {
        cleanup_other_versions(&self.pin_dir)
    }

    /// Where proxied connections were meant to go.
    pub fn original_dst(&self) -> OriginalDstTable {
        self.original_dst.clone()
    }

    /// Looks single entries of the pinned maps up.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub fn reader(&self) -> Result<MapReader, DatapathError> {
        MapReader::open(&self.pins.maps)
    }

    /// Which local connections are open.
    pub fn local_tuples(&self) -> LocalTupleTable {
        self.local_tuples.clone()
    }

    /// Marks the agent's own sockets.
    pub fn mark(&self) -> AgentMark {
        self.mark.clone()
    }

    /// Lets connections through that the agent delivers from their clients' own addresses.
    pub fn deliveries(&self) -> DeliveryTable {
        self.deliveries.clone()
    }

    /// Leads the answers of applications to such connections back to the agent.
    pub fn return_routes(&self) -> ReturnRoutes {
        ReturnRoutes::new(&self.pin_dir)
    }

    /// Whether the kernel tells by itself who listens, through sockops that know the pod.
    pub fn reports_listeners(&self) -> bool {
        self.features.has(Feature::SockOpsNetnsCookie)
    }

    /// Lets this process ask for netns cookies where the kernel itself does not say them.
    fn attach_to_self(&mut self) -> Result<(), DatapathError> {
        let path = cgroup::own(&CgroupRoot::find()?)?;
        let (file, cgroup_id) = cgroup::open(&path)?;
        let (name, hook) = COOKIE_PROGRAM;
        let pin = self.pins.links.join(name);
        let site = Site { name, hook, cgroup: &file, path: &path, cgroup_id, pin: &pin };
        let attachment = self.attach(site)?;
        self.attachments.push(attachment);
        let storage = self.pins.maps.join("CONN_META");
        let storage = crate::sys::obj_get(&storage)
            .map_err(DatapathError::file("open pinned map", &storage))?;
        cookie::answers_in(storage);
        Ok(())
    }

    /// Publishes the connections of the kubelet, which runs in `cgroup`, to ports that it probes.
    /// Doing it again, for the same cgroup or for another, leaves one set of programs.
    ///
    /// # Errors
    /// Where the cgroup is not there or the kernel refuses.
    pub fn attach_to_kubelet(&mut self, cgroup: &Path) -> Result<(), DatapathError> {
        let (file, cgroup_id) = cgroup::open(cgroup)?;
        self.attachments.retain(|attachment| !attachment.kubelet);
        for (name, hook, pin) in KUBELET_PROGRAMS {
            let pin = self.pins.links.join(pin);
            let site = Site { name, hook, cgroup: &file, path: cgroup, cgroup_id, pin: &pin };
            let attachment = self.attach(site)?;
            self.attachments.push(Attachment { kubelet: true, ..attachment });
        }
        Ok(())
    }

    fn attach_to_cgroup(&mut self, config: &Config, cgroup_id: u64) -> Result<(), DatapathError> {
        let cgroup = self._cgroup.try_clone().map_err(DatapathError::file("open", "cgroup"))?;
        let without_cookie = !self.features.has(Feature::SockOpsNetnsCookie);
        let fallback = BIND_PROGRAMS.iter().filter(|_| without_cookie);
        for (name, hook) in CGROUP_PROGRAMS.iter().chain(fallback).copied() {
            let pin = self.pins.links.join(name);
            let site =
                Site { name, hook, cgroup: &cgroup, path: &config.cgroup, cgroup_id, pin: &pin };
            let attachment = self.attach(site)?;
            self.attachments.push(attachment);
        }
        Ok(())
    }

    /// Attaches a program, which is loaded unless it has been already.
    fn attach(&mut self, site: Site<'_>) -> Result<Attachment, DatapathError> {
        let name = site.name;
        let program = self.ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        let fd = if site.hook == "sockops" {
            let program: &mut SockOps = program.try_into().map_err(refused(name))?;
            loaded(program.load()).map_err(refused(name))?;
            program.fd()
        } else {
            let program: &mut CgroupSockAddr = program.try_into().map_err(refused(name))?;
            loaded(program.load()).map_err(refused(name))?;
            program.fd()
        };
        attach::attach(fd.map_err(refused(name))?.as_fd(), site)
    }

    fn load_pod_program(&mut self) -> Result<crate::pods::Steer, DatapathError> {
        let program = self.ebpf.program_mut(POD_PROGRAM).ok_or_else(|| missing(POD_PROGRAM))?;
        let program: &mut SkLookup = program.try_into().map_err(refused(POD_PROGRAM))?;
        program.load().map_err(refused(POD_PROGRAM))?;
        let fd = program.fd().map_err(refused(POD_PROGRAM))?;
        let fd = fd
            .as_fd()
            .try_clone_to_owned()
            .map_err(DatapathError::file("keep the descriptor of", POD_PROGRAM))?;
        Ok(crate::pods::Steer::new(fd))
    }

    /// Verdicts by reason since the maps were created.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub fn verdicts(&self) -> Result<Vec<(undermesh_ebpf_common::Reason, u64)>, DatapathError> {
        let map = self.ebpf.map("VERDICTS").ok_or_else(|| missing("VERDICTS"))?;
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(DatapathError::map("open", "VERDICTS"))?;
        undermesh_ebpf_common::Reason::ALL
            .iter()
            .map(|reason| {
                let per_cpu = counters
                    .get(&(*reason as u32), 0)
                    .map_err(DatapathError::map("read", "VERDICTS"))?;
                Ok((*reason, per_cpu.iter().sum()))
            })
            .collect()
    }
}

pub(crate) fn load_object(
    config: &Config,
    pins: &PinDir,
    features: &KernelFeatures,
) -> Result<Ebpf, DatapathError> {
    let sizes = &config.sizes;
    let conn_meta = pins.maps.join("CONN_META");
    let sockops_netns_cookie = u32::from(features.has(Feature::SockOpsNetnsCookie));
    let mut loader = EbpfLoader::new();
    sizes.apply(&mut loader);
    loader
        .default_map_pin_directory(&pins.maps)
        .map_pin_path("CONN_META", &*conn_meta)
        .map_pin_path(bpffs::AGENT_SOCKETS, &*pins.agent_sockets)
        .override_global("SOCKOPS_NETNS_COOKIE", &sockops_netns_cookie, true)
        .override_global(aya_log::LEVEL, &kernel_log::level(config.kernel_log), false)
        .load(OBJECT)
        .map_err(|error| DatapathError::Load(chain(&error)))
}

fn missing(name: &'static str) -> DatapathError {
    DatapathError::Load(format!(
        "the embedded object has no {name}; run `cargo xtask build-ebpf` and build again"
    ))
}

fn refused(program: &'static str) -> impl FnOnce(ProgramError) -> DatapathError {
    move |error| {
        let reason = match &error {
            ProgramError::LoadError { io_error, verifier_log } => {
                format!(
                    "{io_error}; the verifier's last words:\n{}",
                    tail(&verifier_log.to_string())
                )
            }
            error => chain(error),
        };
        DatapathError::Program { program, reason }
    }
}

/// A program that is attached twice is loaded once.
fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        result => result,
    }
}

/// The end of a verifier log: what it refused, without the thousand lines before.
pub(crate) fn tail(log: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
