//! The servers of a pod, each at its port, the same for every way.
//!
//! ```text
//! 8080  HTTP/1.1, an answer of a kibibyte   nginx
//! 8081  HTTP/2 with prior knowledge, the same  nginx
//! 8082  HTTP/2: a call's messages come back, and trailers as gRPC has them   nghttpd
//! 5201  bulk   iperf3
//! ```

use std::{fs, path::Path};

use anyhow::Result;
use undermesh_tests::Rig;

use crate::bench::{
    load::found,
    process::{Processes, listening},
};

pub(super) const HTTP: u16 = 8080;
pub(super) const HTTP2: u16 = 8081;
pub(super) const GRPC: u16 = 8082;
pub(super) const BULK: u16 = 5201;
/// Ports whose bytes are requests.
pub(super) const REQUESTS: [u16; 3] = [HTTP, HTTP2, GRPC];

/// What a pod serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// What is asked for.
    Wanted,
    /// That there is nothing: whoever gets here was routed wrongly, and it counts as an error.
    NotFound,
}

/// Starts all servers of a pod, and waits until they listen.
pub(super) fn start(
    rig: &Rig,
    pod: &str,
    answers: Answers,
    processes: &mut Processes,
) -> Result<()> {
    let dir = rig.footprint().dir();
    let config = dir.join(format!("nginx-{pod}.conf"));
    fs::write(&config, nginx(&dir.join(pod), answers))?;
    let mut web = rig.command_in(pod)?;
    web.arg(found("nginx")?).arg("-c").arg(&config).args(["-e", "stderr"]);
    processes.start(web)?;
    if answers == Answers::Wanted {
        let mut calls = rig.command_in(pod)?;
        calls.arg(found("nghttpd")?).args(["--no-tls", "--echo-upload", "--workers=1"]);
        calls.args(["--trailer=grpc-status: 0", "--htdocs"]).arg(&dir).arg(GRPC.to_string());
        let mut bulk = rig.command_in(pod)?;
        bulk.arg(found("iperf3")?).args(["--server", "--port", &BULK.to_string()]);
        processes.start(calls)?;
        processes.start(bulk)?;
    }
    let ports: &[u16] = match answers {
        Answers::Wanted => &[HTTP, HTTP2, GRPC, BULK],
        Answers::NotFound => &[HTTP, HTTP2],
    };
    for port in ports {
        listening(rig, pod, rig.at(pod, *port)?)?;
    }
    Ok(())
}

/// One process, no log, an answer of a kibibyte.
fn nginx(dir: &Path, answers: Answers) -> String {
    let dir = dir.display();
    let answer = match answers {
        Answers::Wanted => format!("200 \"{}\"", "undermesh".repeat(114)),
        Answers::NotFound => "404".to_owned(),
    };
    let serve = format!("location / {{ return {answer}; }}");
    format!(
        "daemon off;\nmaster_process off;\npid {dir}.pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 32768; }}\n\
         http {{\n\
         access_log off;\ntcp_nodelay on;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         http2_max_concurrent_streams 1024;\n\
         client_body_temp_path {dir}-body;\nproxy_temp_path {dir}-proxy;\n\
         fastcgi_temp_path {dir}-fastcgi;\nuwsgi_temp_path {dir}-uwsgi;\nscgi_temp_path {dir}-scgi;\n\
         server {{ listen {HTTP} backlog=4096; {serve} }}\n\
         server {{ listen {HTTP2} http2 backlog=4096; {serve} }}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_kibibyte_and_a_wrong_route_is_an_error() {
        let text = nginx(Path::new("/run/x"), Answers::Wanted);
        let body = text.split('"').nth(1).unwrap();
        assert!((1024..1040).contains(&body.len()), "{}", body.len());
        assert!(nginx(Path::new("/run/x"), Answers::NotFound).contains("return 404;"));
    }
}
