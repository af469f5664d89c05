//! Map apply: the kernel's maps made equal to 20,000 entries that are desired, of which none, one or all are new.
//!
//! `cargo bench -p undermesh-datapath`, as root. The programs are loaded as the agent loads them, attached to a
//! cgroup without processes, and pinned in a file system of their own; all of it goes at the end, and what a run that
//! was killed has left goes with the next. Claims nothing: what is fast enough depends on the machine.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use criterion::Criterion;
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::geteuid,
};
use undermesh_datapath::{CgroupRoot, Config, Datapath, DatapathError, MapSizes, cleanup};
use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, PolicyKey, PolicyVerdict, Service, ServiceKey, WorkloadEntry,
    policy_verdict,
};
use undermesh_snapshot::DatapathTables;

/// Where everything of this benchmark is.
const DIRECTORY: &str = "/run/undermesh-bench-maps";
const CGROUP: &str = "undermesh-bench-maps";

/// Entries: 10,000 of pods, 1,000 of services with 8 endpoints each, and 1,000 of policies.
const PODS: u16 = 10_000;
const SERVICES: u16 = 1_000;
const BACKENDS: u16 = 8;
const POLICIES: u16 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    if !geteuid().is_root() {
        return Err("the benchmark of map apply makes BPF maps, and needs root for that".into());
    }
    let place = Place::make()?;
    let mut datapath = Datapath::load(&Config {
        pin_dir: place.pins(),
        cgroup: place.cgroup.clone(),
        sizes: MapSizes::default(),
        kernel_log: false,
    })?;
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion, &mut datapath)?;
    criterion.final_summary();
    Ok(())
}

fn measure(criterion: &mut Criterion, datapath: &mut Datapath) -> Result<(), Box<dyn Error>> {
    let (none, all) = (DatapathTables::default(), tables(0));
    let count = all.workloads.len() + all.services.len() + all.backends.len() + all.policy.len();
    if datapath.apply(&all)? != count || datapath.apply(&all)? != 0 {
        return Err("the maps do not follow what is desired".into());
    }
    let mut group = criterion.benchmark_group("map apply");
    let mut failure = Ok(());
    let mut case = |name: &str, steps: [&DatapathTables; 2]| {
        group.bench_function(format!("{name} of {count} entries"), |bencher| {
            bencher.iter_custom(|times| {
                let spent = applied(datapath, steps, times);
                spent.unwrap_or_else(|error| {
                    failure = Err(error);
                    // What is reported in its place is never looked at.
                    Duration::from_nanos(times.max(1))
                })
            });
        });
    };
    case("nothing new", [&all, &all]);
    case("one new", [&all, &tables(1)]);
    case("all new", [&none, &all]);
    case("all gone", [&all, &none]);
    group.finish();
    Ok(failure?)
}

/// How long it takes to get from the first to the second, so many times.
fn applied(
    datapath: &mut Datapath,
    [from, to]: [&DatapathTables; 2],
    times: u64,
) -> Result<Duration, DatapathError> {
    let mut spent = Duration::ZERO;
    for _ in 0..times {
        datapath.apply(from)?;
        let began = Instant::now();
        datapath.apply(to)?;
        spent += began.elapsed();
    }
    Ok(spent)
}

/// What is desired. `class` is the first pod's.
fn tables(class: u64) -> DatapathTables {
    let mut tables = DatapathTables::default();
    for number in 0..PODS {
        let class = if number == 0 { class } else { 0 };
        let entry = WorkloadEntry { flags: 0, pad: 0, policy: 0, class, address_class: 0 };
        tables.workloads.insert(pod(number), entry);
    }
    for number in 0..SERVICES {
        let [high, low] = number.to_be_bytes();
        let addr = Addr::v4([10, 97, high, low]);
        let service = ServiceKey { addr, port_be: 80_u16.to_be(), pad: 0 };
        tables.services.insert(service, Service { backends: BACKENDS.into(), flags: 0 });
        for slot in 0..BACKENDS {
            let key = BackendKey { service, slot: slot.into() };
            let addr = pod(number * BACKENDS + slot);
            tables
                .backends
                .insert(key, Backend { addr, port_be: 8080_u16.to_be(), pad: 0, flags: 0 });
        }
    }
    for number in 0..POLICIES {
        let key = PolicyKey { policy: number.into(), class: 1, port: 8080, pad: 0 };
        tables.policy.insert(key, PolicyVerdict { verdict: policy_verdict::ALLOW });
    }
    tables
}

fn pod(number: u16) -> Addr {
    let [high, low] = number.to_be_bytes();
    Addr::v4([10, 100, high, low])
}

/// A file system for pins and a cgroup, which go with the value.
struct Place {
    cgroup: PathBuf,
}

impl Place {
    fn make() -> Result<Self, Box<dyn Error>> {
        let place = Self { cgroup: CgroupRoot::find()?.resolve(Path::new(CGROUP)) };
        if Path::new(DIRECTORY).exists() {
            place.remove()?;
        }
        fs::create_dir(DIRECTORY)?;
        mount("bpf", DIRECTORY, "bpf", MountFlags::empty(), None)?;
        fs::create_dir(&place.cgroup)?;
        Ok(place)
    }

    fn pins(&self) -> PathBuf {
        Path::new(DIRECTORY).join("pins")
    }

    fn remove(&self) -> Result<(), Box<dyn Error>> {
        cleanup(&self.pins())?;
        // Not there where a run was killed in between.
        let _ = unmount(DIRECTORY, UnmountFlags::DETACH);
        fs::remove_dir(DIRECTORY)?;
        match fs::remove_dir(&self.cgroup) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("cannot remove what the benchmark has made ({DIRECTORY}): {error}");
        }
    }
}
