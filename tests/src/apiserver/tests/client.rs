//! A client that does nothing by itself: one request, one connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Client {
    address: SocketAddr,
    token: String,
}

/// A watch that is under way.
pub(super) struct Watched(BufReader<TcpStream>);

impl Client {
    pub(super) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned() }
    }

    pub(super) fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", &Value::Null)
    }

    pub(super) fn send(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let mut text = String::new();
        self.open(method, path, kind, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap())
    }

    /// As [`Self::get`], with an `Accept` header for metadata alone.
    pub(super) fn metadata(&self, path: &str) -> Value {
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1\r\nX: y";
        self.send("GET", path, &format!("x\r\nAccept: {accept}"), &Value::Null).1
    }

    pub(super) fn watch(&self, path: &str) -> Watched {
        let mut reader = self.open("GET", path, "", &Value::Null);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Watched(reader)
    }

    fn open(&self, method: &str, path: &str, kind: &str, body: &Value) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (token, length) = (&self.token, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer \
             {token}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        BufReader::new(stream)
    }
}

impl Watched {
    /// The next event, bookmarks included.
    pub(super) fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the watch has ended");
            // Between them are the sizes of chunks.
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// The next event that is no bookmark: its type and the object's name.
    pub(super) fn change(&mut self) -> (String, String) {
        loop {
            let event = self.next();
            if event["type"] != "BOOKMARK" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return (text(&event["type"]), text(&event["object"]["metadata"]["name"]));
            }
        }
    }

    /// Everything until it ends, however that is.
    pub(super) fn lines(self) -> Vec<String> {
        self.0.lines().map_while(Result::ok).filter(|line| line.starts_with('{')).collect()
    }
}
