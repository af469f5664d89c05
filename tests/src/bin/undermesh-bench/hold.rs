//! Connections that are used once and then kept.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

/// Threads that open connections: what is waited for is the proxies' handshakes.
const THREADS: usize = 8;
/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room for an answer, which is read to its end in one piece or two.
const CHUNK: usize = 4096;

/// Opens them, says `held COUNT`, and waits for the end of standard input.
pub(crate) fn run(to: SocketAddr, count: usize, header: &str) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\n{header}\r\n\r\n");
    let held: Vec<TcpStream> = thread::scope(|scope| {
        let share = |thread| count / THREADS + usize::from(thread < count % THREADS);
        let opened: Vec<_> = (0..THREADS)
            .map(|thread| {
                let request = request.as_bytes();
                scope.spawn(move || -> Result<Vec<TcpStream>> {
                    (0..share(thread)).map(|_| open(to, request)).collect()
                })
            })
            .collect();
        let mut held = Vec::new();
        for thread in opened {
            held.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok::<_, anyhow::Error>(held)
    })?;
    println!("held {}", held.len());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

/// A connection on which one request has been answered whole.
fn open(to: SocketAddr, request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("no connection to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut chunk = [0; CHUNK];
    while !is_whole(&answer)? {
        let length = stream.read(&mut chunk).context("no answer")?;
        ensure!(length > 0, "closed in the middle of an answer");
        answer.extend(chunk.iter().take(length));
    }
    Ok(stream)
}

/// Whether an answer with `content-length` is there to its end; one that is no success is an error.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default()).to_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "the answer was {:?}", text.lines().next());
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    Ok(answer.len() >= head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n").unwrap());
        assert!(!is_whole(&[head.as_slice(), b"ab"].concat()).unwrap());
        assert!(is_whole(&[head.as_slice(), b"abc"].concat()).unwrap());
        assert!(is_whole(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
