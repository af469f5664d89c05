//! `undermesh doctor` before anything is installed: the kernel's files, mounts, capabilities, programs. Each
//! finding is produced, in a mount namespace, a cgroup or a process of the test's own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{Diagnosis, ForeignProgram, PodSpec, Rig, cgroup2_mount};

/// One node and one pod, without an agent.
fn rig() -> Result<Rig> {
    let rig = Rig::builder().node("a", [PodSpec::new("client")]).build()?;
    rig.init_ca()?;
    Ok(rig)
}

#[test]
fn a_node_without_problems_gets_no_errors() -> Result<()> {
    let diagnosis = rig()?.preflight("a")?.run()?;
    let errors: Vec<_> = diagnosis.findings.iter().filter(|row| row.severity == "error").collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(
        diagnosis.is_ok("kernel") && diagnosis.is_ok("capabilities") && diagnosis.is_ok("bpffs")
    );
    Ok(())
}

#[test]
fn probing_leaves_no_cgroup_behind() -> Result<()> {
    rig()?.preflight("a")?.run()?;
    // Other tests probe at the same time; what stays would add up.
    undermesh_tests::wait_for("probes to be gone", std::time::Duration::from_secs(20), || {
        let entries = fs::read_dir(cgroup2_mount()?)?.flatten();
        let probes = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("undermesh-probe-"));
        Ok((probes.count() == 0).then_some(()))
    })
}

#[test]
fn the_exit_code_and_the_text_say_how_bad_it_is() -> Result<()> {
    let rig = rig()?;
    let fine = rig.preflight("a")?.run()?;
    let worst = |severity: &str| fine.findings.iter().any(|row| row.severity == severity);
    assert_eq!(fine.code, i32::from(worst("warning")));
    let bad = rig.preflight("a")?.set("--cgroup", "not-there").run()?;
    assert_eq!(bad.code, 2);
    let text = rig.preflight("a")?.set("--cgroup", "not-there").text()?;
    for part in ["helper.sockops.get_netns_cookie", "ERROR    cgroups [cgroup-missing]", "remedy:"]
    {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    Ok(())
}

#[test]
fn settings_that_an_agent_would_not_take_are_found() -> Result<()> {
    let rig = rig()?;
    let file = rig.node("a")?.dir.join("doctor.yaml");
    fs::write(&file, "node: a\npindir: /x\n")?;
    let path = file.display().to_string();
    let diagnosis = rig.preflight("a")?.set("--config", &path).run()?;
    assert!(diagnosis.find("settings-unreadable")?.found.contains("unknown field `pindir`"));
    let diagnosis = rig.preflight("a")?.set("--max-pods", "0").run()?;
    assert!(diagnosis.find("settings-invalid")?.found.contains("maxPods must be between"));
    Ok(())
}

#[test]
fn without_capabilities_features_are_unknown_and_not_missing() -> Result<()> {
    let rig = rig()?;
    let doctor =
        rig.preflight("a")?.by(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]);
    let diagnosis = doctor.run()?;
    assert!(diagnosis.find("feature-unknown")?.found.contains("Operation not permitted"));
    diagnosis.lacks("feature-missing")?;
    for name in ["CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_BPF"] {
        ensure!(lacks_capability(&diagnosis, name), "{name} in {:#?}", diagnosis.findings);
    }
    let doctor = rig.preflight("a")?.by(["setpriv", "--bounding-set", "-sys_ptrace"]);
    let diagnosis = doctor.run()?;
    assert!(lacks_capability(&diagnosis, "CAP_SYS_PTRACE"));
    assert!(!lacks_capability(&diagnosis, "CAP_BPF"));
    Ok(())
}

fn lacks_capability(diagnosis: &Diagnosis, name: &str) -> bool {
    diagnosis.findings.iter().any(|row| row.id == "capability-missing" && row.object == name)
}

/// The JIT's switch and the security modules are one for the whole machine, and so other files are
/// mounted in their place, for this process alone.
#[test]
fn what_the_kernels_files_say_is_found() -> Result<()> {
    let rig = rig()?;
    let dir = rig.node("a")?.dir.display().to_string();
    // The switch can be seen from the machine's own network namespace only.
    let host = format!("nsenter --net=/proc/{}/ns/net", std::process::id());
    let switch = "/proc/sys/net/core/bpf_jit_enable";
    let setup = format!(
        "echo 0 > {dir}/jit; {host} mount --bind {dir}/jit {switch}\n\
         mount -t tmpfs none /sys/kernel/btf\n\
         mount -t tmpfs none /sys/kernel/security\n\
         echo lockdown,capability,selinux,bpf > /sys/kernel/security/lsm\n\
         echo 'none integrity [confidentiality]' > /sys/kernel/security/lockdown"
    );
    let diagnosis = rig.preflight("a")?.after(&setup).by(host.split(' ')).run()?;
    assert_eq!(diagnosis.find("jit-off")?.severity, "warning");
    assert_eq!(diagnosis.find("btf-missing")?.object, "/sys/kernel/btf/vmlinux");
    assert_eq!(diagnosis.find("lsm-present")?.found, "selinux, bpf");
    diagnosis.find("lockdown-confidentiality")?;
    Ok(())
}

#[test]
fn cgroup_layouts_that_cannot_work_are_found() -> Result<()> {
    let rig = rig()?;
    let root = cgroup2_mount()?.display().to_string();
    let setup = format!("umount -l {root}");
    let diagnosis = rig.preflight("a")?.after(&setup).run()?;
    diagnosis.find("cgroup2-missing")?;
    diagnosis.lacks("settings-invalid")?;

    let diagnosis = rig.preflight("a")?.set("--cgroup", "not-there").run()?;
    assert_eq!(diagnosis.find("cgroup-missing")?.object, format!("{root}/not-there"));
    Ok(())
}

#[test]
fn pods_that_are_only_in_cgroup_v1_are_found() -> Result<()> {
    let rig = rig()?;
    let dir = rig.node("a")?.dir.join("v1");
    fs::create_dir(&dir)?;
    let (dir, name) = (dir.display().to_string(), rig.footprint().tag().to_owned());
    // A hierarchy without controllers, which is there as long as it is mounted and used.
    let setup = format!("mount -t cgroup -o none,name={name} none {dir}; mkdir -p {dir}/kubepods");
    let diagnosis = rig.preflight("a")?.after(&setup).run();
    let removed = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("mount -t cgroup -o none,name={name} none {dir}; rmdir {dir}/kubepods"))
        .status()?;
    assert!(removed.success());
    let diagnosis = diagnosis?;
    assert_eq!(diagnosis.find("cgroup-v1-pods")?.object, format!("{dir}/kubepods"));
    diagnosis.find("cgroup-hybrid")?;
    Ok(())
}

#[test]
fn a_pin_directory_that_cannot_hold_pins_is_found() -> Result<()> {
    let rig = rig()?;
    let dir = rig.node("a")?.dir.display().to_string();
    let diagnosis = rig.preflight("a")?.set("--pin-dir", &dir).run()?;
    assert_eq!(diagnosis.find("bpffs-missing")?.object, dir);

    let unmount = "umount -l /sys/fs/bpf 2>/dev/null || true";
    let doctor = rig.preflight("a")?.without("--pin-dir").after(unmount);
    assert_eq!(doctor.run()?.find("bpffs-unmounted")?.object, "/sys/fs/bpf/undermesh");
    Ok(())
}

#[test]
fn pins_of_another_version_are_found() -> Result<()> {
    let rig = rig()?;
    let pins = Path::new(rig.node("a")?.settings.get("pinDir").context("no pinDir")?).join("v1");
    rig.preflight("a")?.run()?.lacks("pins-other-version")?;
    fs::create_dir_all(pins.join("maps"))?;
    let path = pins.join("maps/OLD").display().to_string();
    let made = Command::new("bpftool")
        .args(["map", "create", &path, "type", "hash", "key", "4", "value", "4"])
        .args(["entries", "1", "name", "old"])
        .status()?;
    assert!(made.success());
    let diagnosis = rig.preflight("a")?.run()?;
    let found = diagnosis.find("pins-other-version")?;
    assert_eq!(
        (found.object.as_str(), found.found.as_str()),
        (pins.to_str().context("path")?, "links: 0, maps: 1")
    );
    Ok(())
}

#[test]
fn programs_of_others_are_named_with_what_they_mean_for_us() -> Result<()> {
    let rig = rig()?;
    let (node, bpffs) = (rig.node("a")?.cgroup.clone(), rig.footprint().bpffs());
    let pods = node.join("pods");
    rig.preflight("a")?.run()?.lacks("program-exclusive")?;
    for (name, cgroup, flags, id, severity) in [
        ("somebodys", &node, &[][..], "program-exclusive", "error"),
        ("somebodys", &node, &["override"][..], "program-overridden", "warning"),
        ("somebodys", &node, &["multi"][..], "program-beside", "note"),
        ("cil_sock4_connect", &pods, &["multi"][..], "socket-lb-first", "warning"),
        ("cil_sock4_connect", &node, &["multi"][..], "socket-lb-after", "note"),
    ] {
        let _program = ForeignProgram::attach(name, &bpffs, cgroup, flags)?;
        let diagnosis = rig.preflight("a")?.run()?;
        let found = diagnosis.find(id)?;
        assert_eq!(
            (found.object.as_str(), found.severity.as_str()),
            (cgroup.to_str().context("path")?, severity)
        );
        // The kernel keeps 15 characters of a name.
        let kept = &name[..name.len().min(15)];
        assert!(found.found.contains(kept) && found.found.contains("cgroup/connect4"), "{found:?}");
    }
    Ok(())
}

/// Asked of the kernel by another program, since nobody may set the machine's clock here.
#[test]
fn the_clock_is_called_unsynchronised_where_the_kernel_says_so() -> Result<()> {
    let script =
        "import ctypes; print(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))";
    let output = Command::new("python3").args(["-c", script]).output()?;
    let state: i32 = String::from_utf8(output.stdout)?.trim().parse()?;
    const TIME_ERROR: i32 = 5;
    let diagnosis = rig()?.preflight("a")?.run()?;
    assert_eq!(diagnosis.find("clock-unsynchronised").is_ok(), state == TIME_ERROR);
    Ok(())
}
