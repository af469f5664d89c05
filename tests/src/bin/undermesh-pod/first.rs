//! A process whose very first act is to connect, as an impatient application's is.

use std::{
    io::{self, Read, Write, stdout},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use undermesh_tests::pod::{errno_name, protocol::FirstAct};

/// How long the destination may take to answer, and a refused process to get through.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a refused process tries again.
const AGAIN: Duration = Duration::from_millis(2);

/// Connects until it works, sends `mark`, and waits for it to come back.
pub(crate) fn run(to: SocketAddr, mark: &str) -> Result<()> {
    let began = Instant::now();
    let mut act = FirstAct::default();
    loop {
        act.attempts += 1;
        match exchange(to, mark) {
            Ok(()) => break,
            Err(error) => {
                act.errors.insert(errno_name(&error));
                if began.elapsed() > PATIENCE {
                    return Err(error).with_context(|| format!("{act:?}"));
                }
            }
        }
        thread::sleep(AGAIN);
    }
    act.elapsed_ms = u64::try_from(began.elapsed().as_millis())?;
    serde_json::to_writer(stdout(), &act)?;
    Ok(())
}

fn exchange(to: SocketAddr, mark: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(mark.as_bytes())?;
    let mut echo = vec![0; mark.len()];
    stream.read_exact(&mut echo)?;
    if echo == mark.as_bytes() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
