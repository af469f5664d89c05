//! `undermesh doctor` beside a running agent, and about certificates.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use time::OffsetDateTime;
use undermesh_tests::{Agent, PodSpec, Rig, wait_for};

const WITHIN: Duration = Duration::from_secs(30);

fn rig() -> Result<Rig> {
    Rig::builder().node("a", [PodSpec::new("client"), PodSpec::new("server")]).build()
}

#[test]
fn a_node_that_works_gets_no_errors_and_one_without_its_agent_does() -> Result<()> {
    let mut rig = rig()?;
    rig.start()?;
    let diagnosis = rig.doctor("a")?.run()?;
    let errors: Vec<_> = diagnosis.findings.iter().filter(|row| row.severity == "error").collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for check in ["agent", "pins", "pods", "ports", "certificates"] {
        assert!(diagnosis.is_ok(check), "{check} in {:#?}", diagnosis.findings);
    }
    rig.take_agent("a")?.kill()?;
    let diagnosis = rig.doctor("a")?.run()?;
    assert!(diagnosis.find("agent-silent")?.found.contains("no agent answers at 127.0.0.1:15000"));
    assert!(!diagnosis.find("pins-without-agent")?.found.contains("links: 0"), "{diagnosis:#?}");
    assert_eq!(diagnosis.code, 2);
    Ok(())
}

#[test]
fn maps_that_fill_up_and_programs_that_are_gone_are_found() -> Result<()> {
    let mut rig = rig()?;
    // Two pods are enrolled.
    rig.node_mut("a")?.settings.set("maxPods", "2");
    rig.start()?;
    let diagnosis = rig.doctor("a")?.run()?;
    let full = diagnosis.find("map-filling")?;
    assert_eq!((full.object.as_str(), full.found.as_str()), ("PODS", "2 of 2 entries (100%)"));
    diagnosis.lacks("program-detached")?;
    diagnosis.lacks("agent-warning")?;

    let pins = rig.node("a")?.settings.get("pinDir").context("no pinDir")?.to_owned();
    let mut entries = fs::read_dir(&pins)?.flatten().map(|entry| entry.path());
    let version = entries.find(|path| path.is_dir()).context("no pins")?;
    fs::remove_file(version.join("links/undermesh_connect4"))?;
    let diagnosis = rig.doctor("a")?.run()?;
    let gone = diagnosis.find("program-detached")?;
    assert_eq!(gone.object, "undermesh_connect4 (cgroup/connect4)");
    Ok(())
}

#[test]
fn pods_that_wait_and_agents_that_are_not_ready_say_why() -> Result<()> {
    let mut rig = rig()?;
    rig.init_ca()?;
    rig.manifests.write(
        "ghost",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: ghost\n  namespace: shop\n  labels: {istio.io/dataplane-mode: ambient}\n  \
         annotations: {undermesh.io/netns: /run/netns/there-is-none}\n\
         spec: {nodeName: a, serviceAccountName: client}\nstatus: {phase: Running, podIP: 10.9.9.9, podIPs: [{ip: 10.9.9.9}]}\n",
    )?;
    let agent = Agent::start(rig.node("a")?)?;
    agent.wait_status("the pod to be tried", WITHIN, |status| !status.pods.is_empty())?;
    rig.node_mut("a")?.agent = Some(agent);
    let diagnosis = wait_for("the pods that are there to be enrolled", WITHIN, || {
        let diagnosis = rig.doctor("a")?.run()?;
        let pending = diagnosis.findings.iter().filter(|row| row.id == "pod-pending").count();
        Ok((pending == 1).then_some(diagnosis))
    })?;
    let pending = diagnosis.find("pod-pending")?;
    assert_eq!(pending.object, "shop/ghost");
    assert!(pending.found.contains("/run/netns/there-is-none"), "{pending:?}");
    assert_eq!(diagnosis.find("agent-not-ready")?.severity, "error");
    Ok(())
}

#[test]
fn what_the_agent_warns_of_is_told_once() -> Result<()> {
    let mut rig = rig()?;
    rig.start()?;
    let object = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    rig.manifests.write("extra", object)?;
    let agent = rig.agent("a")?;
    agent.wait_status("the warning", WITHIN, |status| !status.warnings.is_empty())?;
    // Who does not know the manifests has it from the agent.
    let diagnosis = rig.doctor("a")?.without("--manifests").run()?;
    assert!(diagnosis.find("agent-warning")?.found.contains("kind Deployment"));
    let diagnosis = rig.doctor("a")?.run()?;
    diagnosis.find("manifests-warning")?;
    diagnosis.lacks("agent-warning")
}

#[test]
fn a_workloads_certificate_that_is_not_renewed_is_found_while_it_is_still_valid() -> Result<()> {
    let mut rig = rig()?;
    rig.node_mut("a")?.settings.set("svidLifetime", "40s");
    rig.start()?;
    rig.doctor("a")?.run()?.lacks("certificate-renewal-failing")?;
    let dir = rig.node("a")?.settings.get("caDir").context("no caDir")?.to_owned();
    fs::remove_file(Path::new(&dir).join("intermediate.key"))?;
    let diagnosis = wait_for("the renewal to fail", Duration::from_secs(60), || {
        let diagnosis = rig.doctor("a")?.run()?;
        Ok(diagnosis.find("certificate-renewal-failing").is_ok().then_some(diagnosis))
    })?;
    let failing = diagnosis.find("certificate-renewal-failing")?;
    assert!(failing.object.starts_with("spiffe://cluster.local/ns/shop/sa/"), "{failing:?}");
    assert!(diagnosis.find("ca-unusable")?.found.contains("intermediate.key"));
    Ok(())
}

/// Writes an authority whose certificates are valid for these days, counted from today.
fn authority(dir: &Path, from: i64, until: i64) -> Result<()> {
    let params = |name: &str| -> Result<CertificateParams> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::now_utc() + time::Duration::days(from);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(until);
        Ok(params)
    };
    let root = CertifiedIssuer::self_signed(params("root")?, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let intermediate = params("issuer")?.signed_by(&key, &root)?;
    fs::create_dir_all(dir)?;
    for (name, text) in [
        ("root.crt", root.pem()),
        ("bundle.pem", root.pem()),
        ("intermediate.crt", intermediate.pem()),
        ("intermediate.key", key.serialize_pem()),
    ] {
        fs::write(dir.join(name), text)?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[test]
fn authorities_are_found_by_their_age() -> Result<()> {
    let rig = rig()?;
    let dir = rig.node("a")?.dir.join("doctors-ca");
    let path = dir.display().to_string();
    let diagnose = || rig.preflight("a")?.set("--ca-dir", &path).run();
    diagnose()?.find("ca-absent")?;
    for (from, until, id) in [
        (-51, 49, "certificate-half-spent"),
        (-81, 19, "certificate-ending"),
        (-100, -1, "certificate-expired"),
        (1, 100, "clock-before-ca"),
    ] {
        authority(&dir, from, until)?;
        let diagnosis = diagnose()?;
        let objects: Vec<_> = diagnosis
            .findings
            .iter()
            .filter(|row| row.id == id)
            .map(|row| row.object.as_str())
            .collect();
        assert!(
            objects.len() == 2 && objects.iter().any(|it| it.contains("issuer")),
            "{id} {objects:?}"
        );
    }
    authority(&dir, -1, 100)?;
    assert!(diagnose()?.is_ok("certificates"));
    Ok(())
}

#[test]
fn files_from_the_future_are_a_sign_that_the_clock_is_wrong() -> Result<()> {
    let rig = rig()?;
    rig.init_ca()?;
    rig.preflight("a")?.run()?.lacks("clock-behind-files")?;
    let file = rig.manifests.path("namespace");
    let touched = Command::new("touch").args(["-d", "tomorrow"]).arg(&file).status()?;
    assert!(touched.success());
    let diagnosis = rig.preflight("a")?.run()?;
    assert_eq!(diagnosis.find("clock-behind-files")?.object, file.display().to_string());
    Ok(())
}
