//! Requests without end, over connections that are kept open, beside whatever else the pod is told to do.
//!
//! Nothing is tried again: what the other side has not announced (`connection: close`, GOAWAY) and what
//! loses a request counts as a failure.

use std::{
    io::{self, BufReader},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::runtime;
use undermesh_tests::pod::{
    http::{Ask, Load, LoadReport, Reply, Speaks},
    protocol::ConnectOptions,
};

use crate::{
    ask::{http1, http2},
    sockets::{PATIENCE, connect},
};

/// The one that runs.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

/// What those who ask share.
struct Work {
    load: Load,
    to: SocketAddr,
    is_over: AtomicBool,
    report: Mutex<LoadReport>,
}

/// Begins.
pub(crate) fn begin(load: &Load) -> io::Result<()> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if running.is_some() {
        return Err(io::Error::other("it makes requests already"));
    }
    let to = load.ask.to.ok_or_else(|| io::Error::other("nobody to ask"))?;
    let load = load.clone();
    let work =
        Arc::new(Work { load, to, is_over: AtomicBool::new(false), report: Mutex::default() });
    let askers: u32 = if work.load.ask.speaks == Speaks::Http2 { 1 } else { work.load.askers };
    let threads = (0..askers).map(|_| {
        let work = Arc::clone(&work);
        thread::spawn(move || match work.load.ask.speaks {
            Speaks::Http2 => work.over_http2(),
            _ => work.over_http1(),
        })
    });
    *running = Some(Running { threads: threads.collect(), work });
    Ok(())
}

/// What has come of it so far.
pub(crate) fn so_far() -> io::Result<LoadReport> {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let running = running.as_ref().ok_or_else(nothing_runs)?;
    Ok(running.work.report().clone())
}

fn nothing_runs() -> io::Error {
    io::Error::other("it makes no requests")
}

/// Ends, once all that was asked has been answered.
pub(crate) fn end() -> io::Result<LoadReport> {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Running { work, threads } = running.ok_or_else(nothing_runs)?;
    work.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("somebody who asked has panicked"))?;
    }
    Ok(work.report().clone())
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn report(&self) -> std::sync::MutexGuard<'_, LoadReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.load.pause)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = connect(self.to, &ConnectOptions::default())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        self.report().connections += 1;
        Ok(stream)
    }

    /// Notes how a request went.
    fn note(&self, reply: &Reply, asked: io::Result<()>) {
        let mut report = self.report();
        let pod = reply.header("x-pod").unwrap_or_default().to_owned();
        let failed = match asked {
            Ok(()) => {
                *report.statuses.entry(reply.status).or_default() += 1;
                *report.pods.entry(pod).or_default() += 1;
                (reply.status != 200).then(|| format!("{reply:?}"))
            }
            Err(error) => {
                *report.errors.entry(error.to_string()).or_default() += 1;
                Some(format!("{error}, after {reply:?}"))
            }
        };
        if let Some(example) = failed.filter(|_| report.example.is_empty()) {
            report.example = example;
        }
    }

    /// One asker. A connection is used until an answer says that it is closed.
    fn over_http1(&self) {
        while self.goes_on() {
            let stream = match self.connect() {
                Ok(stream) => stream,
                Err(error) => {
                    self.note(&Reply::default(), Err(error));
                    thread::sleep(self.pause());
                    continue;
                }
            };
            let mut reader = BufReader::new(&stream);
            while self.goes_on() {
                let mut reply = Reply::default();
                let asked = http1::exchange(&self.load.ask, &stream, &mut reader, &mut reply);
                let is_closed = asked.is_err() || reply.header("connection") == Some("close");
                self.note(&reply, asked);
                thread::sleep(self.pause());
                if is_closed {
                    break;
                }
            }
        }
    }

    /// All askers. A connection is used until it says goodbye.
    fn over_http2(self: &Arc<Self>) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            while self.goes_on() {
                let connected = self.connect();
                let opened = match connected {
                    Ok(stream) => http2::open(stream).await,
                    Err(error) => Err(error),
                };
                let Ok(client) = opened.map_err(|error| self.note(&Reply::default(), Err(error)))
                else {
                    tokio::time::sleep(self.pause()).await;
                    continue;
                };
                let askers: Vec<_> = (0..self.load.askers)
                    .map(|_| tokio::spawn(Arc::clone(self).ask_http2(client.clone())))
                    .collect();
                drop(client);
                for asker in askers {
                    // A panic would be seen as too few requests.
                    let _ = asker.await;
                }
            }
        });
    }

    async fn ask_http2(self: Arc<Self>, client: http2::Client) {
        let ask: &Ask = &self.load.ask;
        while self.goes_on() {
            // Fails where the connection takes no more requests: nothing was asked.
            let Ok(mut client) = client.clone().ready().await else { return };
            let mut reply = Reply::default();
            let asked =
                tokio::time::timeout(PATIENCE, http2::request(&mut client, ask, &mut reply));
            let asked = asked.await.map_err(io::Error::other).and_then(|asked| asked);
            self.note(&reply, asked);
            tokio::time::sleep(self.pause()).await;
        }
    }
}
