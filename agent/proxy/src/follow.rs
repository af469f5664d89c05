//! Following one connection: what becomes of it, step by step, for whoever has asked (`undermesh trace`).
//!
//! **Invariant**: where nobody asks, a step costs one relaxed load of a number. Who asks is followed to one connection, of
//! which so many steps are kept; nothing is kept of any other.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio_util::either::Either;
use undermesh_model::NamespacedName;
use undermesh_telemetry::ByteCounters;

/// Steps that are kept of a connection.
const MAX_STEPS: usize = 128;

/// How often it is looked for the first byte.
const LOOK: Duration = Duration::from_millis(1);

/// How many ask at the moment.
static ASKED: AtomicUsize = AtomicUsize::new(0);

tokio::task_local! {
    /// The connection that this task carries, where somebody follows it.
    static FOLLOWED: Here;
}

/// What a task carries of a connection that is followed.
#[derive(Clone)]
struct Here {
    followed: Arc<Followed>,
    /// The request, of those that it carries side by side.
    stream: Option<u32>,
}

/// Which connection is meant: the next one of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The client's pod.
    pub pod: NamespacedName,
    /// Where to, if it matters.
    pub address: Option<IpAddr>,
    /// At which port, if it matters.
    pub port: Option<u16>,
    /// Its own address and port, once it is known.
    pub source: Option<SocketAddr>,
}

impl Wanted {
    fn is(&self, pod: &NamespacedName, source: SocketAddr, dialled: Option<SocketAddr>) -> bool {
        self.pod == *pod
            && self.source.is_none_or(|wanted| wanted == source)
            && self.address.is_none_or(|wanted| dialled.is_some_and(|to| to.ip() == wanted))
            && self.port.is_none_or(|wanted| dialled.is_some_and(|to| to.port() == wanted))
    }
}

/// One step of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowedStep {
    /// Microseconds since it was accepted.
    pub at_us: u64,
    /// Its name.
    pub step: &'static str,
    /// More about it.
    pub detail: String,
    /// Of HTTP/2, the request that it is a step of, from 1 in the order in which they came.
    pub stream: Option<u32>,
}

/// Those who ask, of one proxy.
#[derive(Default)]
pub(crate) struct Followers(Mutex<Vec<Weak<Follower>>>);

/// Somebody who asks, for as long as it lives.
pub struct Follower {
    wanted: Wanted,
    found: Mutex<Option<Arc<Followed>>>,
}

/// A connection that is followed.
pub(crate) struct Followed {
    source: SocketAddr,
    began: Instant,
    streams: AtomicU32,
    steps: Mutex<Vec<FollowedStep>>,
}

impl Follower {
    fn new(wanted: Wanted) -> Arc<Self> {
        ASKED.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { wanted, found: Mutex::default() })
    }

    /// The connection's own address and port, and its steps so far; nothing before there is one.
    pub fn steps(&self) -> Option<(SocketAddr, Vec<FollowedStep>)> {
        let found = lock(&self.found);
        let followed = found.as_ref()?;
        let steps = lock(&followed.steps).clone();
        Some((followed.source, steps))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        ASKED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Followers {
    /// Somebody asks for a connection.
    pub(crate) fn add(&self, wanted: Wanted) -> Arc<Follower> {
        let follower = Follower::new(wanted);
        let mut all = lock(&self.0);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&follower));
        follower
    }

    /// Whoever asks for a connection that was just accepted.
    pub(crate) fn begin(
        &self,
        pod: &NamespacedName,
        source: SocketAddr,
        dialled: Option<SocketAddr>,
    ) -> Option<Arc<Followed>> {
        if ASKED.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let all: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let mut asking = all.iter().filter(|one| one.wanted.is(pod, source, dialled));
        asking.find_map(|one| {
            let mut found = lock(&one.found);
            if found.is_some() {
                return None;
            }
            let followed = Arc::new(Followed::new(source));
            *found = Some(Arc::clone(&followed));
            Some(followed)
        })
    }
}

impl Followed {
    fn new(source: SocketAddr) -> Self {
        let (streams, steps) = (AtomicU32::new(0), Mutex::default());
        Self { source, began: Instant::now(), streams, steps }
    }

    fn add(&self, stream: Option<u32>, step: &'static str, detail: String) {
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut steps = lock(&self.steps);
        if steps.len() < MAX_STEPS {
            steps.push(FollowedStep { at_us, step, detail, stream });
        }
    }

    /// Carries the connection, whose steps are noted.
    pub(crate) async fn carry<F: Future>(self: Arc<Self>, connection: F) -> F::Output {
        FOLLOWED.scope(Here { followed: self, stream: None }, connection).await
    }
}

/// Notes a step of the connection that this task carries.
#[inline]
pub(crate) fn note(step: &'static str, detail: impl FnOnce() -> String) {
    if ASKED.load(Ordering::Relaxed) > 0 {
        // Most connections are not followed, even where one is.
        let _ =
            FOLLOWED.try_with(|Here { followed, stream }| followed.add(*stream, step, detail()));
    }
}

/// A task for one of the requests that this task's connection carries side by side: where that is followed, so is it.
pub(crate) fn stream<F: Future>(request: F) -> Either<F, impl Future<Output = F::Output>> {
    let here =
        if ASKED.load(Ordering::Relaxed) > 0 { FOLLOWED.try_with(Here::clone).ok() } else { None };
    let Some(Here { followed, stream }) = here else { return Either::Left(request) };
    // What a request becomes, such as a tunnel, is still that request.
    let number = stream.unwrap_or_else(|| followed.streams.fetch_add(1, Ordering::Relaxed) + 1);
    // Boxed: hardly any is followed.
    Either::Right(Box::pin(FOLLOWED.scope(Here { followed, stream: Some(number) }, request)))
}

/// Notes when the first byte comes back to the client, where this task's connection is followed.
#[inline]
pub(crate) fn await_first_byte(counters: &Arc<ByteCounters>) {
    if ASKED.load(Ordering::Relaxed) > 0 {
        let _ = FOLLOWED.try_with(|Here { followed, .. }| {
            tokio::spawn(first_byte(Arc::clone(followed), Arc::clone(counters)));
        });
    }
}

/// Looks until there is one, or the connection or whoever asks is gone.
async fn first_byte(followed: Arc<Followed>, counters: Arc<ByteCounters>) {
    loop {
        if counters.sent() > 0 {
            return followed.add(None, "first-byte", "from the server".to_owned());
        }
        if Arc::strong_count(&counters) == 1 || ASKED.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(port: u16) -> Wanted {
        let pod = NamespacedName::new("shop", "client");
        Wanted { pod, address: None, port: Some(port), source: None }
    }

    #[tokio::test]
    async fn one_connection_is_followed_and_no_other() {
        let followers = Followers::default();
        let pod = NamespacedName::new("shop", "client");
        let source: SocketAddr = "10.0.0.1:4711".parse().unwrap();
        let to = |port: u16| Some(SocketAddr::from(([10, 96, 0, 1], port)));
        assert!(followers.begin(&pod, source, to(80)).is_none(), "nobody asks");
        let follower = followers.add(wanted(80));
        let other = NamespacedName::new("shop", "other");
        assert!(followers.begin(&other, source, to(80)).is_none());
        assert!(followers.begin(&pod, source, to(81)).is_none());
        let followed = followers.begin(&pod, source, to(80)).unwrap();
        assert!(followers.begin(&pod, source, to(80)).is_none(), "one is enough");
        note("nobody's", String::new);
        followed
            .carry(async {
                (0..2 * MAX_STEPS).for_each(|number| note("step", || number.to_string()));
            })
            .await;
        let (of, steps) = follower.steps().unwrap();
        assert_eq!(steps[0].stream, None);
        assert_eq!((of, steps.len()), (source, MAX_STEPS));
        assert_eq!((steps[0].step, steps[0].detail.as_str()), ("step", "0"));
        drop(follower);
        assert!(followers.begin(&pod, source, to(80)).is_none(), "nobody asks any more");
    }

    #[tokio::test]
    async fn requests_side_by_side_are_told_apart_in_tasks_of_their_own() {
        let followers = Followers::default();
        let pod = NamespacedName::new("shop", "client");
        let source: SocketAddr = "10.0.0.1:4711".parse().unwrap();
        let follower = followers.add(wanted(80));
        let followed = followers.begin(&pod, source, Some(([10, 96, 0, 1], 80).into())).unwrap();
        let request = |name: &'static str| {
            stream(async move {
                note("request", || name.to_owned());
                stream(async { note("upgraded", || name.to_owned()) }).await;
            })
        };
        followed
            .carry(async {
                note("accepted", String::new);
                let (one, two) = (request("one"), request("two"));
                tokio::spawn(two).await.unwrap();
                tokio::spawn(one).await.unwrap();
            })
            .await;
        request("nobody's").await;
        let (_, steps) = follower.steps().unwrap();
        let steps: Vec<_> = steps.iter().map(|it| (it.step, &*it.detail, it.stream)).collect();
        let expected = [
            ("accepted", "", None),
            ("request", "two", Some(2)),
            ("upgraded", "two", Some(2)),
            ("request", "one", Some(1)),
            ("upgraded", "one", Some(1)),
        ];
        assert_eq!(steps, expected);
    }
}
