//! An endpoint that speaks HTTP/1.1 to the letter, and keeps every byte that it is sent.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use undermesh_snapshot::traffic::AppProtocol;

use super::rig::{Rig, cluster, endpoint, rules};
use crate::tests::mesh::Server;

/// What arrived as one request.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// It came to its end.
    pub(super) whole: bool,
}

impl Recorded {
    /// Method, target and body.
    pub(super) fn summary(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        let line = line.strip_suffix(" HTTP/1.1").unwrap_or(line);
        let body = String::from_utf8_lossy(&self.body);
        if body.is_empty() { line.to_owned() } else { format!("{line} {body}") }
    }

    /// Values of a header, in their order.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).collect()
    }
}

/// A mesh whose service has only this endpoint.
pub(super) struct Recorder {
    pub(super) rig: Rig,
    pub(super) server: Arc<Server>,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub(super) async fn new() -> Self {
        let rig = Rig::new(&[]).await;
        let server = Arc::new(rig.mesh.server("v1").await);
        let endpoint = endpoint(server.address, &server.workload);
        let v1 = cluster("v1".to_owned(), AppProtocol::Http, vec![endpoint]);
        rig.rules(rules(&v1, Vec::new()));
        let recorded: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let (app, notes) = (Arc::clone(&server), Arc::clone(&recorded));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = app.app.accept().await {
                tokio::spawn(record(stream, Arc::clone(&notes)));
            }
        });
        Self { rig, server, recorded, task }
    }

    pub(super) fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().unwrap().clone()
    }
}

/// Answers whatever is a whole request, and keeps what is none.
async fn record(mut stream: TcpStream, notes: Arc<Mutex<Vec<Recorded>>>) {
    let mut held = Vec::new();
    loop {
        while let Some((request, length)) = request(&held) {
            held.drain(..length);
            let is_head = request.head.starts_with("HEAD ");
            notes.lock().unwrap().push(request);
            let body = if is_head { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        if !matches!(stream.read_buf(&mut held).await, Ok(1..)) {
            break;
        }
    }
    if !held.is_empty() {
        let head = String::from_utf8_lossy(&held).into_owned();
        notes.lock().unwrap().push(Recorded { head, body: Vec::new(), whole: false });
    }
}

/// The request that these bytes begin with, and its length.
fn request(bytes: &[u8]) -> Option<(Recorded, usize)> {
    let length = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let (body, taken) = body(&head, &bytes[length..])?;
    Some((Recorded { head, body, whole: true }, length + taken))
}

fn body(head: &str, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let value = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    };
    if value("transfer-encoding").is_some() {
        return chunks(bytes);
    }
    let length = value("content-length").map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= length).then(|| (bytes[..length].to_vec(), length))
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at += line + 2;
        if size == 0 {
            break;
        }
        body.extend(bytes.get(at..at + size)?);
        at += size + 2;
    }
    loop {
        let line = bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((body, at));
        }
    }
}
