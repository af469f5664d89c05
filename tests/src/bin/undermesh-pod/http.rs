//! A small HTTP server that answers with what it was asked, in HTTP/1.1 or HTTP/2, as the client's first
//! bytes say.
//!
//! `/status/503` is answered with that status, `/delay/200` after so many milliseconds, and the header
//! `x-plan` may ask for more (`undermesh_tests::pod::http::PLAN`). The body is the head of the request as it
//! arrived, and the header `x-pod` says who answers.

mod http1;
mod http2;
mod plan;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use undermesh_tests::pod::http::{CONNECTION, MARK, NTH};

/// Requests that are remembered.
const REMEMBERED: usize = 4096;
/// How a connection of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI ";
/// Between two looks at whether a request is held still.
const HOLD: Duration = Duration::from_millis(2);

/// Heads of requests that bore a mark, by mark.
static HEARD: Mutex<VecDeque<(String, String)>> = Mutex::new(VecDeque::new());

/// Marks whose requests are not held any more.
static RELEASED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Connections that were served so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// One connection, for the headers of its answers.
struct Served {
    name: String,
    connection: u64,
    requests: AtomicU64,
}

impl Served {
    fn new(name: &str) -> Self {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self { name: name.to_owned(), connection, requests: AtomicU64::new(0) }
    }

    /// Who answers, and over what.
    fn headers(&self) -> [(&'static str, String); 3] {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        [
            ("x-pod", self.name.clone()),
            (CONNECTION, self.connection.to_string()),
            (NTH, nth.to_string()),
        ]
    }
}

/// Serves requests until the client leaves.
pub(crate) fn serve(stream: TcpStream, name: &str) -> io::Result<()> {
    if begins_with(&stream, PREFACE)? {
        http2::serve(stream, Served::new(name))
    } else {
        http1::serve(&stream, &Served::new(name))
    }
}

/// The heads of requests with this mark.
pub(crate) fn heard(mark: &str) -> Vec<String> {
    let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    heard.iter().filter(|(of, _)| of == mark).map(|(_, head)| head.clone()).collect()
}

/// Lets go of requests with this mark.
pub(crate) fn release(mark: &str) {
    RELEASED.lock().unwrap_or_else(PoisonError::into_inner).insert(mark.to_owned());
}

/// Whether a request is to wait still.
fn is_held(head: &str) -> bool {
    let mark = header(head, MARK).unwrap_or_default();
    !RELEASED.lock().unwrap_or_else(PoisonError::into_inner).contains(mark)
}

fn remember(head: &str) {
    let Some(mark) = header(head, MARK) else { return };
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    if heard.len() == REMEMBERED {
        heard.pop_front();
    }
    heard.push_back((mark.to_owned(), head.to_owned()));
}

/// Waits for as many bytes as it takes to tell.
fn begins_with(stream: &TcpStream, wanted: &[u8]) -> io::Result<bool> {
    let mut seen = vec![0; wanted.len()];
    loop {
        let length = stream.peek(&mut seen)?;
        let so_far = &seen[..length];
        if length == 0 || length == wanted.len() || !wanted.starts_with(so_far) {
            return Ok(so_far == wanted);
        }
        // `peek` does not wait for more than it has.
        thread::sleep(Duration::from_millis(1));
    }
}

/// A field of a head of HTTP/1.1.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
}
