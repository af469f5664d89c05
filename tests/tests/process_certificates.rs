//! Certificates of controllers, asked for by a client that shares nothing with them but Istio's protocol.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use undermesh_tests::{
    Plane,
    certificates::{Question, Svid},
    undermesh, wait_for,
};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DB: &str = "spiffe://cluster.local/ns/shop/sa/db";
const SOON: Duration = Duration::from_secs(20);

/// Node `a` with `web`, node `b` with `db`, each with its agent's token.
fn shop() -> Result<(Plane, String, String)> {
    let plane = Plane::new()?;
    plane.pod("shop", "web-0", "web", "a")?;
    plane.pod("shop", "db-0", "db", "b")?;
    let (a, b) = (plane.agent("a")?, plane.agent("b")?);
    Ok((plane, a, b))
}

fn refused((code, why): (u16, String)) -> anyhow::Error {
    anyhow::anyhow!("refused with status {code}: {why}")
}

/// How `openssl` sees a chain: the leaf's text, once it has been verified against the roots.
fn verified(plane: &Plane, svid: &Svid, roots: &str) -> Result<String> {
    let path = |name: &str| plane.dir().join(name).display().to_string();
    fs::write(path("roots.pem"), roots)?;
    fs::write(path("chain.pem"), &svid.chain)?;
    let run = |args: &[&str]| -> Result<String> {
        let output = std::process::Command::new("openssl").args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "openssl {args:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (roots, chain) = (path("roots.pem"), path("chain.pem"));
    run(&["verify", "-CAfile", &roots, "-untrusted", &chain, &chain])?;
    run(&["x509", "-in", &chain, "-noout", "-text"])
}

#[test]
fn an_agent_gets_certificates_for_its_nodes_pods_and_others_are_denied_and_audited() -> Result<()> {
    let (plane, a, b) = shop()?;
    let mut controller = plane.controller("one", &[])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    let ask = |token: &str, identity: &str| {
        plane.question(&controller, &roots, token)?.wanting(identity).ask()
    };
    let svid = ask(&a, WEB)?.map_err(refused)?;
    let text = verified(&plane, &svid, &roots)?;
    ensure!(text.contains(&format!("URI:{WEB}")), "{text}");
    ensure!(
        text.contains("TLS Web Server Authentication, TLS Web Client Authentication"),
        "{text}"
    );
    ensure!(text.contains("CA:FALSE") || !text.contains("CA:TRUE"), "{text}");
    assert_eq!(svid.roots, roots);
    ask(&b, DB)?.map_err(refused)?;

    let (code, why) = ask(&a, DB)?.err().context("a certificate of another node's pod")?;
    assert_eq!((code, why), (7, format!("no pod on node a runs as {DB}")));
    let (code, why) = ask("nonsense", WEB)?.err().context("a certificate for nobody")?;
    assert_eq!(code, 16, "{why}");
    let (code, _) = ask(&a, "spiffe://elsewhere/ns/shop/sa/web")?.err().context("elsewhere")?;
    assert_eq!(code, 7);
    let refused = controller.audit("certificate_refused");
    let denied = refused.iter().find(|line| line["identity"] == DB).context("no audit line")?;
    assert_eq!(denied["reason"], "not_on_node");
    assert_eq!(denied["asker"]["node"], "a");
    assert_eq!(denied["asker"]["pod"], "undermesh-agent-a");
    let agent = "spiffe://cluster.local/ns/undermesh-system/sa/undermesh-agent";
    assert_eq!(denied["asker"]["identity"], agent);
    let issued = controller.audit("certificate_issued");
    assert_eq!(issued.len(), 2, "{issued:?}");
    assert_eq!(issued[0]["identity"], WEB);
    let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
    for line in [
        "undermesh_controller_certificates_issued_total 2",
        "undermesh_controller_certificates_refused_total{reason=\"not_on_node\"} 1",
        "undermesh_controller_leader 1",
    ] {
        ensure!(metrics.contains(line), "{line} is not in {metrics}");
    }
    controller.stop()
}

#[test]
fn a_pod_that_ends_or_whose_agent_is_gone_gets_nothing_more() -> Result<()> {
    let (plane, a, _) = shop()?;
    let mut controller = plane.controller("one", &[])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    let ask = || plane.question(&controller, &roots, &a)?.wanting(WEB).ask();
    ask()?.map_err(refused)?;
    let ended = plane.api.get("v1", "Pod", "shop", "web-0").map(|mut pod| {
        pod["status"]["phase"] = "Succeeded".into();
        pod
    });
    plane.api.put(&ended.context("no pod")?)?;
    wait_for("the ended pod to be noticed", SOON, || {
        Ok(ask()?.err().map(|(code, why)| assert_eq!(code, 7, "{why}")))
    })?;
    plane.api.delete("v1", "Pod", "undermesh-system", "undermesh-agent-a");
    plane.pod("shop", "web-0", "web", "a")?;
    wait_for("the agent's end to be noticed", SOON, || {
        Ok(ask()?.err().filter(|(_, why)| why.contains("its node is unknown")))
    })?;
    Ok(())
}

#[test]
fn a_certificate_of_the_mesh_renews_itself_and_nobody_else() -> Result<()> {
    let (plane, a, _) = shop()?;
    let mut controller = plane.controller("one", &[("maxSvidLifetime", "30h")])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    let question = plane.question(&controller, &roots, &a)?;
    let svid = question.clone().wanting(WEB).ask()?.map_err(refused)?;
    let own = Question { token: None, svid: Some(&svid), ..question.clone() };
    let renewed = own.ask()?.map_err(refused)?;
    ensure!(verified(&plane, &renewed, &roots)?.contains(&format!("URI:{WEB}")));
    let (code, why) = own.clone().wanting(DB).ask()?.err().context("somebody else's")?;
    assert_eq!((code, why.contains("is no node agent")), (7, true), "{why}");
    let nobody = Question { token: None, ..question.clone() };
    assert_eq!(nobody.ask()?.err().context("nobody's")?.0, 16);
    // What is asked for counts up to a bound; names in the request count for nothing.
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["bank.example".to_owned()])?;
    let csr = params.serialize_request(&key)?.pem()?;
    let long = Question { seconds: 3_000_000, csr: Some(&csr), ..question.wanting(WEB) };
    let text = verified(&plane, &long.ask()?.map_err(refused)?, &roots)?;
    ensure!(!text.contains("bank.example"), "{text}");
    let line = controller.audit("certificate_issued").pop().context("no audit line")?;
    let ends = line["notAfter"].as_str().context("no end")?;
    let left = time::OffsetDateTime::parse(ends, &time::format_description::well_known::Rfc3339)?
        - time::OffsetDateTime::now_utc();
    ensure!((left.whole_minutes() - 1800).abs() < 5, "{left}");
    Ok(())
}

#[test]
fn three_replicas_have_one_authority_and_keep_it_when_they_are_started_again() -> Result<()> {
    let (plane, a, _) = shop()?;
    let names = ["one", "two", "three"];
    let mut replicas =
        names.iter().map(|name| plane.controller(name, &[])).collect::<Result<Vec<_>>>()?;
    for replica in &mut replicas {
        replica.wait_ready()?;
    }
    let roots = plane.roots()?;
    for replica in &replicas {
        let svid = plane.question(replica, &roots, &a)?.wanting(WEB).ask()?;
        verified(&plane, &svid.map_err(refused)?, &roots)?;
    }
    let created: Vec<_> = replicas.iter().flat_map(|it| it.audit("authority_changed")).collect();
    assert_eq!(created.len(), 1, "{created:?}");
    drop(replicas);
    let mut again = plane.controller("four", &[])?;
    again.wait_ready()?;
    let svid = plane.question(&again, &roots, &a)?.wanting(WEB).ask()?;
    verified(&plane, &svid.map_err(refused)?, &roots)?;
    assert_eq!(plane.roots()?, roots);
    Ok(())
}

#[test]
fn a_root_is_replaced_on_demand_without_a_moment_in_which_somebody_is_not_trusted() -> Result<()> {
    let (plane, a, _) = shop()?;
    // As short as it gets: certificates of ten seconds, and two minutes of margin that the clock is
    // not waited for here.
    let mut controller = plane.controller("one", &[("rootSettle", "0s")])?;
    controller.wait_ready()?;
    let old = plane.roots()?;
    let ask = |roots: &str| plane.question(&controller, roots, &a)?.wanting(WEB).ask();
    let mut secret = plane.secret().context("no Secret")?;
    secret["metadata"]["annotations"]["undermesh.io/rotate-root"] = "true".into();
    plane.api.put(&secret)?;
    let both = wait_for("both roots to be told", SOON, || {
        Ok(Some(plane.roots()?).filter(|roots| *roots != old))
    })?;
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
    // Whoever has not read the new bundle yet trusts what is issued now.
    let svid = ask(&old)?.map_err(refused)?;
    verified(&plane, &svid, &old)?;
    verified(&plane, &svid, &both)?;
    let secret = plane.secret().context("no Secret")?;
    assert!(secret["metadata"]["annotations"]["undermesh.io/rotate-root"].is_null());
    let changes: Vec<String> = controller
        .audit("authority_changed")
        .iter()
        .map(|line| line["change"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(changes, ["created", "root_staged"]);
    Ok(())
}

#[test]
fn without_the_api_server_a_replica_stays_ready_and_says_that_it_cannot_ask() -> Result<()> {
    let (plane, a, b) = shop()?;
    let mut controller = plane.controller("one", &[])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    let ask = |token: &str, identity: &str| {
        plane.question(&controller, &roots, token)?.wanting(identity).ask()
    };
    ask(&a, WEB)?.map_err(refused)?;
    plane.api.stop();
    let (code, why) = ask(&b, DB)?.err().context("without being known")?;
    assert_eq!(code, 14, "{why}");
    assert_eq!(controller.page("readinessAddress", "/healthz/ready")?.0, 200);
    plane.api.resume()?;
    wait_for("certificates again", SOON, || Ok(ask(&b, DB)?.ok().map(drop)))?;
    Ok(())
}

#[test]
fn files_may_take_the_secrets_place() -> Result<()> {
    let (plane, a, _) = shop()?;
    let dir = plane.dir().join("ca");
    undermesh(["ca".as_ref(), "init".as_ref(), "--dir".as_ref(), dir.as_os_str()])?;
    let path = dir.display().to_string();
    let mut controller = plane.controller("one", &[("caDir", &path)])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    assert_eq!(roots, fs::read_to_string(dir.join("bundle.pem"))?);
    let svid = plane.question(&controller, &roots, &a)?.wanting(WEB).ask()?;
    verified(&plane, &svid.map_err(refused)?, &roots)?;
    assert!(plane.secret().is_none());
    Ok(())
}

#[test]
fn no_key_and_no_token_is_logged() -> Result<()> {
    let (plane, a, _) = shop()?;
    let mut controller = plane.controller("one", &[("logLevel", "debug")])?;
    controller.wait_ready()?;
    let roots = plane.roots()?;
    plane.question(&controller, &roots, &a)?.wanting(WEB).ask()?.map_err(refused)?;
    let log = controller.log();
    let audit: BTreeSet<String> = controller.audit("").iter().map(ToString::to_string).collect();
    for text in [log].into_iter().chain(audit) {
        ensure!(!text.contains("PRIVATE KEY") && !text.contains(&a), "{text}");
        ensure!(!text.contains(plane.api.token()), "{text}");
    }
    Ok(())
}
