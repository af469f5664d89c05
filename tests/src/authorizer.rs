//! Authorizers (`ext_authz`) inside a pod's namespace: they answer as they are told, and remember what they were
//! asked.

mod grpc;
mod http;
pub mod message;

use std::{
    collections::VecDeque,
    net::{Ipv6Addr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Questions that are remembered.
const REMEMBERED: usize = 1024;
/// How often a server looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(5);

/// What an authorizer does with a question.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answers with these bytes: all of an answer of HTTP/1.1, or a message of gRPC.
    Say(Vec<u8>),
    /// Answers with this status of gRPC alone.
    Fail(u16),
    /// Never answers.
    Hang,
}

/// A question: the head of a request of HTTP/1.1 and its content, or the message of a call of gRPC.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The head; empty for gRPC.
    pub head: String,
    /// The content.
    pub body: Vec<u8>,
}

impl Question {
    /// Whether its content has these bytes in it somewhere.
    pub fn has(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A server. Dropping it ends it.
#[derive(Debug)]
pub struct Authorizer {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    reaction: Mutex<Reaction>,
    asked: Mutex<VecDeque<Question>>,
    /// Questions that were given up by those who had asked.
    gone: AtomicUsize,
    stopped: AtomicBool,
}

impl Authorizer {
    /// Serves HTTP/1.1 at this port of the namespace.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn http(netns: &Netns, port: u16) -> Result<Self> {
        Self::start(netns, port, |stream, state| {
            stream.set_nonblocking(false)?;
            http::serve(&stream, state)
        })
    }

    /// Serves gRPC at this port of the namespace.
    ///
    /// # Errors
    /// As [`Self::http`].
    pub fn grpc(netns: &Netns, port: u16) -> Result<Self> {
        Self::start(netns, port, grpc::serve)
    }

    fn start(
        netns: &Netns,
        port: u16,
        serve: fn(std::net::TcpStream, &Arc<State>) -> std::io::Result<()>,
    ) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = netns.run(bind)?.context("the port of an authorizer is taken")?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(State {
            reaction: Mutex::new(Reaction::Hang),
            asked: Mutex::default(),
            gone: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            while !shared.stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let state = Arc::clone(&shared);
                        // How a connection ends is for the client to judge.
                        thread::spawn(move || serve(stream, &state));
                    }
                    Err(_) => thread::sleep(STEP),
                }
            }
        });
        Ok(Self { state })
    }

    /// What it does from now on.
    pub fn react(&self, reaction: Reaction) {
        *self.state.reaction() = reaction;
    }

    /// What it was asked since this was last asked.
    pub fn asked(&self) -> Vec<Question> {
        self.state.asked().drain(..).collect()
    }

    /// How many questions were given up.
    pub fn gone(&self) -> usize {
        self.state.gone.load(Ordering::Relaxed)
    }
}

impl Drop for Authorizer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn reaction(&self) -> MutexGuard<'_, Reaction> {
        self.reaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question, and says what to do with it.
    fn note(&self, question: Question) -> Reaction {
        let mut asked = self.asked();
        if asked.len() == REMEMBERED {
            asked.pop_front();
        }
        asked.push_back(question);
        drop(asked);
        self.reaction().clone()
    }

    fn given_up(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}
