//! Many short connections.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use undermesh_tests::pod::{
    errno_name,
    protocol::{Burst, BurstReport, ConnectOptions, pattern},
};

use crate::sockets::{PATIENCE, connect};

/// Makes the connections and counts what came of them.
pub(crate) fn run(plan: &Burst) -> BurstReport {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new(BurstReport::default());
    thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| work(plan, &next, &report));
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.elapsed_ms = started.elapsed().as_millis() as u64;
    report
}

fn work(plan: &Burst, next: &AtomicU64, report: &Mutex<BurstReport>) {
    let places = plan.to.len().max(1) as u64;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let place = (number % places) as usize;
        let Some(to) = plan.to.get(place).filter(|_| number < plan.count) else {
            return;
        };
        let outcome = match plan.expect.as_ref().and_then(|expect| expect.get(place)) {
            Some(expected) => ask(*to, expected),
            None => echo(*to, number, plan.payload),
        };
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Ok(())) => report.ok += 1,
            Ok(Err(wrong)) => {
                report.wrong += 1;
                report.example = format!("connection {number} to {to}: {wrong}");
            }
            Err(error) => {
                report.example = format!("connection {number} to {to}: {error}");
                *report.failures.entry(errno_name(&error)).or_default() += 1;
            }
        }
    }
}

/// What was wrong about an answer.
type Verdict = Result<(), String>;

/// Reads an answer to its end.
fn ask(to: SocketAddr, expected: &str) -> io::Result<Verdict> {
    let mut stream = open(to)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(if answer == expected {
        Ok(())
    } else {
        Err(format!("answered {answer:?} instead of {expected:?}"))
    })
}

/// Sends a stretch of the pattern that is this connection's own, and expects it back and then the
/// end of the stream.
fn echo(to: SocketAddr, number: u64, payload: u64) -> io::Result<Verdict> {
    let stream = open(to)?;
    let sent = pattern(number * 31, payload as usize);
    let mut back = Vec::with_capacity(sent.len());
    thread::scope(|scope| {
        let writer = if sent.len() > 4096 {
            Some(scope.spawn(|| write(&stream, &sent)))
        } else {
            write(&stream, &sent)?;
            None
        };
        (&stream).read_to_end(&mut back)?;
        writer.map_or(Ok(()), |writer| {
            writer.join().map_err(|_| io::Error::other("the writer panicked"))?
        })
    })?;
    Ok(if back == sent {
        Ok(())
    } else {
        Err(format!("echoed {} of {} bytes, or others", back.len(), sent.len()))
    })
}

fn write(mut stream: &TcpStream, data: &[u8]) -> io::Result<()> {
    stream.write_all(data)?;
    stream.shutdown(Shutdown::Write)
}

fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = connect(to, &ConnectOptions::default())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
