//! Many agents that have their configuration from a controller, as far as it and the network can tell: each with a certificate,
//! a token and a stream of its own. What they are sent is counted and not read.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Runtime, sync::Semaphore};

use super::{
    Controller, NAME, Plane,
    certificates::Question,
    distribution::{Asker, Stream},
};

/// Agents that begin at the same time.
const AT_ONCE: usize = 32;
/// Generous, for a thousand agents on two processors.
const WITHIN: Duration = Duration::from_secs(240);

/// The agents. They end with it.
pub struct Fleet {
    states: Receiver<Result<Got>>,
    size: usize,
    _runtime: Runtime,
}

/// A state that an agent has got.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// When all of it was there.
    pub at: Instant,
    /// Bytes of it, before TLS.
    pub bytes: u64,
}

impl Fleet {
    /// Starts an agent for each of these nodes, with the token of each, and waits until all have their first state.
    ///
    /// # Errors
    /// Where one of them does not get one.
    pub fn start(
        plane: &Plane,
        controller: &Controller,
        agents: &[(String, String)],
        narrow: bool,
    ) -> Result<(Self, Vec<Got>)> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build()?;
        let (sender, states) = channel();
        let (address, roots) = (controller.address("grpcAddress")?, plane.roots()?);
        let beginning = std::sync::Arc::new(Semaphore::new(AT_ONCE));
        for (node, token) in agents {
            let (node, token) = (node.clone(), token.clone());
            let (sender, roots) = (sender.clone(), roots.clone());
            let beginning = std::sync::Arc::clone(&beginning);
            runtime.spawn(async move {
                let place = beginning.acquire_owned().await;
                let opened = async {
                    let question = Question::new(address, NAME, &roots, &token);
                    let svid = question.ask_at_once().await?.map_err(told)?;
                    let asker = Asker {
                        address,
                        name: NAME,
                        roots: &roots,
                        token: Some(&token),
                        svid: Some(&svid),
                        node: &node,
                        narrow,
                    };
                    let mut stream = Stream::open(&asker, &[]).await?.map_err(told)?;
                    let got = take(&mut stream).await?;
                    anyhow::Ok((stream, got))
                };
                let opened = opened.await.with_context(|| format!("the agent of {node}"));
                drop(place);
                follow(opened, &sender).await;
            });
        }
        let fleet = Self { states, size: agents.len(), _runtime: runtime };
        let first = fleet.all()?;
        Ok((fleet, first))
    }

    /// Waits until each agent has got one more state.
    ///
    /// # Errors
    /// Where one of them does not get one.
    pub fn all(&self) -> Result<Vec<Got>> {
        let deadline = Instant::now() + WITHIN;
        let mut got = Vec::with_capacity(self.size);
        while got.len() < self.size {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.states.recv_timeout(left) {
                Ok(one) => got.push(one?),
                Err(_) => bail!("{} of {} agents have got a state in time", got.len(), self.size),
            }
        }
        Ok(got)
    }
}

async fn follow(opened: Result<(Stream, Got)>, sender: &Sender<Result<Got>>) {
    let (mut stream, first) = match opened {
        Ok(opened) => opened,
        Err(error) => return drop(sender.send(Err(error))),
    };
    let mut got = Ok(first);
    loop {
        let is_over = got.is_err();
        if sender.send(got).is_err() || is_over {
            return;
        }
        got = take(&mut stream).await;
    }
}

async fn take(stream: &mut Stream) -> Result<Got> {
    let state = stream.skim(Duration::from_secs(3600)).await?.map_err(told)?;
    let got = Got { at: Instant::now(), bytes: state.bytes };
    stream.answer(&state, None)?;
    Ok(got)
}

fn told((code, why): (u16, String)) -> anyhow::Error {
    anyhow::anyhow!("refused with status {code}: {why}")
}
