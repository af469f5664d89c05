//! The rig itself, without a mesh: pods reach each other, captures see what passes, and nothing
//! stays behind. What the other tests conclude rests on this.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use undermesh_tests::{
    Footprint, PodSpec, Rig,
    pod::protocol::{Behaviour, Burst, ConnectOptions},
    wait_for,
};

#[expect(clippy::unwrap_used, reason = "part of every test")]
fn rig() -> Rig {
    Rig::builder()
        .node("a", [PodSpec::new("client"), PodSpec::new("near")])
        .node("b", [PodSpec::new("far")])
        .build()
        .unwrap()
}

#[test]
fn pods_reach_each_other_on_one_node_and_across_nodes_in_both_families() {
    let rig = rig();
    let client = rig.pod("client").unwrap();
    for name in ["near", "far"] {
        let server = rig.pod(name).unwrap();
        let listener = server.listen("[::]:8080".parse().unwrap(), Behaviour::Echo).unwrap();
        for to in [rig.at(name, 8080).unwrap(), rig.at6(name, 8080).unwrap()] {
            let conn = client.connect(to).unwrap();
            assert_eq!(conn.exchange(b"hello").unwrap(), b"hello", "{to}");
            assert_eq!(conn.peer_name().unwrap(), to);
        }
        let peers: BTreeSet<_> =
            listener.accepted().unwrap().iter().map(|one| one.peer.ip().to_canonical()).collect();
        let own = [rig.at("client", 0).unwrap().ip(), rig.at6("client", 0).unwrap().ip()];
        assert_eq!(peers, own.into(), "addresses are translated on the way to {name}");
    }
}

#[test]
fn a_capture_sees_what_crosses_nodes_and_nothing_that_stays_on_one() {
    let rig = rig();
    let capture = rig.capture().unwrap();
    let client = rig.pod("client").unwrap();
    for (name, marker) in [("near", b"stays-on-its-node"), ("far", b"crosses-the-wire!")] {
        let server = rig.pod(name).unwrap();
        server.listen(rig.at(name, 8080).unwrap(), Behaviour::Echo).unwrap();
        let conn = client.connect(rig.at(name, 8080).unwrap()).unwrap();
        // In two segments, so that only the stream put together holds the marker.
        conn.exchange(&marker[..5]).unwrap();
        conn.exchange(&marker[5..]).unwrap();
    }
    capture.wait_for(b"crosses-the-wire!").unwrap();
    assert!(!capture.contains(b"stays-on-its-node").unwrap());
    capture.wait_for_payload(8080, 2 * "crosses-the-wire!".len()).unwrap();
}

#[test]
fn a_pod_tells_how_a_connection_ended() {
    let rig = rig();
    let (client, server) = (rig.pod("client").unwrap(), rig.pod("far").unwrap());
    let to = rig.at("far", 8080).unwrap();
    assert_eq!(client.connect(to).unwrap_err().errno, "ECONNREFUSED");

    let listener = server.listen(to, Behaviour::Manual).unwrap();
    let open = || {
        let near = client.connect(to).unwrap();
        let (far, accepted) = listener.accept().unwrap();
        assert_eq!(accepted.peer, near.socket_name().unwrap());
        (near, far)
    };
    let (near, far) = open();
    far.reset().unwrap();
    assert_eq!(near.receive(1).unwrap_err().errno, "ECONNRESET");

    let (near, far) = open();
    near.shutdown_write().unwrap();
    assert_eq!(far.receive_to_end().unwrap(), b"");
    far.send(b"late").unwrap();
    far.close().unwrap();
    assert_eq!(near.receive_to_end().unwrap(), b"late");

    let (near, far) = open();
    let patience = Duration::from_millis(200);
    assert_eq!(near.receive_within(1, patience).unwrap_err().errno, "EAGAIN");
    let sent = near.send_pattern(0, 1 << 30, patience).unwrap();
    assert!(sent < 1 << 26, "{sent} bytes went to a peer that reads nothing");
    assert!(far.receive_pattern(0, sent).unwrap());
}

#[test]
fn options_are_set_before_connecting() {
    let rig = rig();
    let (client, server) = (rig.pod("client").unwrap(), rig.pod("far").unwrap());
    let to = rig.at("far", 8080).unwrap();
    server.listen(to, Behaviour::Echo).unwrap();
    let bind = rig.at("client", 45_678).unwrap();
    let options = ConnectOptions {
        bind: Some(bind),
        device: Some("eth0".to_owned()),
        ..ConnectOptions::default()
    };
    let conn = client.connect_with(to, options).unwrap();
    assert_eq!(conn.socket_name().unwrap(), bind);
    let options = ConnectOptions { v4_mapped: true, ..ConnectOptions::default() };
    let conn = client.connect_with(to, options).unwrap();
    assert!(conn.peer_name().unwrap().is_ipv6());
    assert_eq!(conn.exchange(b"mapped").unwrap(), b"mapped");
}

#[test]
fn a_burst_counts_right_wrong_and_failed_answers() {
    let rig = rig();
    let (client, server) = (rig.pod("client").unwrap(), rig.pod("far").unwrap());
    server.listen_many(rig.at("far", 9000).unwrap(), 3, Behaviour::Address).unwrap();
    server.listen(rig.at("far", 8080).unwrap(), Behaviour::Echo).unwrap();
    let to: Vec<_> = (9000..9004).map(|port| rig.at("far", port).unwrap()).collect();
    let mut expect: Vec<_> = to.iter().map(ToString::to_string).collect();
    expect[2] = "another".to_owned();
    let burst = Burst { to, count: 40, threads: 4, expect: Some(expect), payload: 0 };
    let report = client.burst(burst).unwrap();
    let refused = [("ECONNREFUSED".to_owned(), 10)].into();
    assert_eq!((report.ok, report.wrong, &report.failures), (20, 10, &refused), "{report:?}");

    let to = vec![rig.at("far", 8080).unwrap()];
    let burst = Burst { to, count: 20, threads: 20, payload: 1 << 20, ..Burst::default() };
    let report = client.burst(burst).unwrap();
    assert_eq!((report.ok, report.wrong), (20, 0), "{report:?}");
}

#[test]
fn datagrams_pass() {
    let rig = rig();
    let (client, server) = (rig.pod("client").unwrap(), rig.pod("far").unwrap());
    let far = server.udp(rig.at("far", 5353).unwrap()).unwrap();
    let near = client.udp(rig.at("client", 0).unwrap()).unwrap();
    near.send(far.address(), b"query").unwrap();
    let query = far.receive().unwrap();
    assert_eq!((query.from, &query.data[..]), (near.address(), &b"query"[..]));
}

#[test]
fn a_program_runs_inside_a_pod() {
    let rig = rig();
    let output = rig
        .command_in("far")
        .unwrap()
        .args(["ip", "-4", "-o", "addr", "show", "eth0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&rig.at("far", 0).unwrap().ip().to_string()), "{text}");
}

#[test]
fn a_dropped_rig_leaves_nothing() {
    let rig = rig();
    let footprint = rig.footprint().clone();
    let pod = rig.pod("client").unwrap();
    let left = footprint.leftovers();
    for kind in ["netns", "process", "mount", "directory"] {
        assert!(left.iter().any(|one| one.starts_with(kind)), "no {kind} in {left:?}");
    }
    drop(pod);
    drop(rig);
    assert_eq!(footprint.leftovers(), BTreeSet::new());
}

#[test]
fn the_guard_removes_the_rig_of_an_owner_that_was_killed() {
    // The test is its own owner process: started again with a tag, it builds a rig and waits.
    if let Ok(tag) = std::env::var("RIG_TO_OWN") {
        let rig = Rig::builder().tag(&tag).node("a", [PodSpec::new("pod")]).build().unwrap();
        let _pod = rig.pod("pod").unwrap();
        loop {
            std::thread::park();
        }
    }
    let tag = format!("k{}", std::process::id());
    let footprint = Footprint::of(&tag).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_guard_removes_the_rig_of_an_owner_that_was_killed"])
        .env("RIG_TO_OWN", &tag)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let within = Duration::from_secs(20);
    wait_for("the owner's rig", within, || {
        let left = footprint.leftovers();
        Ok(left.iter().any(|one| one.starts_with("process")).then_some(()))
    })
    .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("the guard's work", within, || Ok(footprint.leftovers().is_empty().then_some(())))
        .unwrap();
}

#[test]
fn a_rig_that_was_kept_is_stale_once_its_owner_has_gone() {
    let rig = rig();
    let footprint = rig.footprint().clone();
    let tag = footprint.tag().to_owned();
    assert!(!rig.keep().is_empty());
    Rig::cleanup_stale(&tag).unwrap();
    assert!(!footprint.leftovers().is_empty(), "removed under its living owner");

    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    std::fs::write(footprint.dir().join("owner"), gone.id().to_string()).unwrap();
    Rig::cleanup_stale(&tag).unwrap();
    assert_eq!(footprint.leftovers(), BTreeSet::new());
}
