//! Replacing a running agent by another, without a connection that notices.
//!
//! The agent listens on an abstract Unix socket of its network namespace, named after its pin
//! directory. A new agent that finds somebody there says `take`. The old one then stops whatever
//! would get in its way (its HTTP servers, its view of the maps, its reading of events), goes on
//! serving connections, and answers `yielded`. When every pod is led to the new agent's listeners,
//! that one says `taken`; the old one stops accepting, and ends with its last connection. Should the
//! new agent die before `taken`, the old one takes everything back.

use std::{
    io,
    os::linux::net::SocketAddrExt,
    os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

const TAKE: &str = "take";
const YIELDED: &str = "yielded";
const TAKEN: &str = "taken";
/// How long the old agent may take to stop what is in the way.
const YIELD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the new agent may take to load, read its configuration and enrol every pod.
const TAKE_TIMEOUT: Duration = Duration::from_secs(120);

fn address(pin_dir: &Path) -> io::Result<SocketAddr> {
    // The kernel's limit is 107 bytes; the end of a path tells more than its beginning.
    let path = pin_dir.as_os_str().as_encoded_bytes();
    let tail = &path[path.len().saturating_sub(80)..];
    SocketAddr::from_abstract_name([b"undermesh/handover", tail].concat())
}

/// A line-wise conversation with the other agent.
struct Talk(BufReader<UnixStream>);

impl Talk {
    fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    async fn say(&mut self, word: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("{word}\n").as_bytes()).await
    }

    async fn hear(&mut self, word: &str, within: Duration) -> Result<()> {
        let mut line = String::new();
        let heard = timeout(within, (&mut self.0).take_line(&mut line)).await;
        heard.with_context(|| format!("no {word:?} within {within:?}"))??;
        ensure!(line.trim_end() == word, "expected {word:?}, got {line:?}");
        Ok(())
    }
}

/// Reading of a line, with a bound on its length.
trait TakeLine {
    async fn take_line(self, line: &mut String) -> io::Result<()>;
}

impl TakeLine for &mut BufReader<UnixStream> {
    async fn take_line(self, line: &mut String) -> io::Result<()> {
        let mut bounded = tokio::io::AsyncReadExt::take(self, 64);
        bounded.read_line(line).await.map(drop)
    }
}

/// The agent that runs already.
pub(crate) struct Predecessor(Talk);

impl Predecessor {
    /// Asks a running agent to make way, if there is one.
    pub(crate) async fn ask(pin_dir: &Path) -> Result<Option<Self>> {
        let Ok(stream) = StdStream::connect_addr(&address(pin_dir)?) else { return Ok(None) };
        stream.set_nonblocking(true)?;
        let mut talk = Talk::new(UnixStream::from_std(stream)?);
        tracing::info!("an agent is running; taking over from it");
        talk.say(TAKE).await?;
        talk.hear(YIELDED, YIELD_TIMEOUT).await.context("the running agent does not make way")?;
        Ok(Some(Self(talk)))
    }

    /// Says that this agent serves every pod.
    pub(crate) async fn taken(mut self) -> Result<()> {
        self.0.say(TAKEN).await.context("the former agent is gone")
    }
}

/// Where a successor knocks.
pub(crate) struct Door(UnixListener);

impl Door {
    /// Opens the door; a predecessor's must be closed by then.
    pub(crate) fn open(pin_dir: &Path) -> Result<Self> {
        let listener = StdListener::bind_addr(&address(pin_dir)?)
            .context("another agent with this pinDir is running in this network namespace")?;
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// Waits for a successor. Only root of the initial user namespace is one.
    pub(crate) async fn successor(&self) -> Successor {
        loop {
            match self.accept().await {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "refused to hand over");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(&self) -> Result<Successor> {
        let (stream, _) = self.0.accept().await?;
        let peer = stream.peer_cred()?;
        if peer.uid() != 0 {
            bail!("process {:?} of user {} asked for it", peer.pid(), peer.uid());
        }
        let mut talk = Talk::new(stream);
        talk.hear(TAKE, YIELD_TIMEOUT).await?;
        Ok(Successor(talk))
    }
}

/// The agent that takes over.
pub(crate) struct Successor(Talk);

impl Successor {
    /// Lets it begin, and waits until it has taken over.
    pub(crate) async fn takes_over(mut self) -> Result<()> {
        self.0.say(YIELDED).await.context("the new agent is gone")?;
        self.0.hear(TAKEN, TAKE_TIMEOUT).await.context("the new agent has not taken over")
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn pin_dir(name: &str) -> PathBuf {
        PathBuf::from(format!("/test/{}/{name}", std::process::id()))
    }

    #[tokio::test]
    async fn an_agent_makes_way_for_another() {
        let dir = pin_dir("both");
        let door = Door::open(&dir).unwrap();
        let old = async { door.successor().await.takes_over().await };
        let new = async {
            let predecessor = Predecessor::ask(&dir).await.unwrap().unwrap();
            predecessor.taken().await
        };
        let (old, new) = tokio::join!(old, new);
        old.unwrap();
        new.unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_dies_is_noticed() {
        let dir = pin_dir("dies");
        let door = Door::open(&dir).unwrap();
        let old = async { door.successor().await.takes_over().await };
        let new = async { drop(Predecessor::ask(&dir).await.unwrap().unwrap()) };
        let (old, ()) = tokio::join!(old, new);
        assert!(old.is_err());
    }

    #[tokio::test]
    async fn where_nobody_runs_there_is_nobody_to_ask_and_two_doors_cannot_be_open() {
        let dir = pin_dir("alone");
        assert!(Predecessor::ask(&dir).await.unwrap().is_none());
        let _door = Door::open(&dir).unwrap();
        assert!(Door::open(&dir).is_err());
    }
}
