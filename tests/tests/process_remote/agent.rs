//! An agent as far as its flow records go.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Result;
use serde_json::json;

/// An agent as far as its flow records go, with the admin pages' keeping of connections.
pub(super) struct Agent {
    pub(super) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    records: Vec<String>,
    /// Before the first of them, in the answer to whoever asks for all.
    lost: u64,
    asked: Vec<String>,
    /// Pages besides, by how they begin.
    pages: Vec<(String, String)>,
}

fn record(time: &str, pod: &str) -> String {
    json!({"time": format!("2026-01-02T03:04:{time}Z"), "event": "open", "connection": 1,
        "source": {"namespace": "shop", "pod": pod}, "destination": {"address": "10.0.0.2:80"}})
    .to_string()
}

impl Agent {
    pub(super) fn start(records: &[(&str, &str)], lost: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let records = records.iter().map(|(time, pod)| record(time, pod)).collect();
        let kept = Arc::new(Mutex::new(Kept { records, lost, ..Kept::default() }));
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { address, kept })
    }

    pub(super) fn happens(&self, time: &str, pod: &str) {
        self.keeps(record(time, pod));
    }

    pub(super) fn keeps(&self, record: String) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).records.push(record);
    }

    /// Answers whatever begins so with this.
    pub(super) fn answers(&self, page: &str, body: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pages.push((page.to_owned(), body.to_owned()));
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

/// Answers as long as the connection is kept.
fn serve(stream: TcpStream, kept: &Mutex<Kept>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let first = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let target = first.split(' ').nth(1)?;
        let body = kept.lock().unwrap_or_else(PoisonError::into_inner).page(target);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        (&stream).write_all((head + &body).as_bytes()).ok()?;
        if first.ends_with("HTTP/1.0") {
            return None;
        }
    }
}

impl Kept {
    fn page(&mut self, target: &str) -> String {
        self.asked.push(target.to_owned());
        if let Some((_, body)) = self.pages.iter().find(|(page, _)| target.starts_with(page)) {
            return body.clone();
        }
        let parameter = |name: &str| -> Option<usize> {
            let query = target.split_once('?')?.1;
            let value = query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
            value?.parse().ok()
        };
        let mut lines = Vec::new();
        let after = parameter("after");
        if after.is_none() && self.lost > 0 {
            lines.push(json!({"event": "lost", "count": self.lost}).to_string());
        }
        let new = &self.records[after.unwrap_or_default()..];
        let last = parameter("last").unwrap_or(usize::MAX);
        lines.extend_from_slice(&new[new.len().saturating_sub(last)..]);
        let cursor = json!({"event": "cursor", "next": self.records.len(), "kernel_lost": 0});
        lines.push(cursor.to_string());
        lines.join("\n") + "\n"
    }
}
