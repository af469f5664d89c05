//! Pods that share threads.

mod stress;
mod turns;

use std::{sync::atomic::AtomicBool, task::Poll};

use tokio::runtime::Runtime;

use super::*;

fn time(threads: usize) -> Arc<Time> {
    Time::new(threads, true, FairMetrics::default())
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_time().build().unwrap()
}

fn spin(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Lets others have their turn, and wants the next at once. (What yields in the runtime's way is woken after the
/// thread's next look at what has arrived, as what waits for a peer is.)
async fn again() {
    let mut woken = false;
    let wakes_itself = std::future::poll_fn(|cx| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    wakes_itself.await;
}

/// Something that always has something to do, in pieces of some ten microseconds.
async fn work(done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        spin(Duration::from_micros(20));
        done.fetch_add(nanoseconds(began.elapsed()), Ordering::Relaxed);
        again().await;
    }
}

/// What a pod, or a peer of it, with sixteen connections got of the time that it had together with another one, which
/// has ten times as many. A ratio, whatever else the machine does.
fn part_of_the_quiet(time: &Arc<Time>, threads: usize, shares: [Share; 2]) -> f64 {
    assert!(time.places.are_all_free());
    let runtime = runtime(threads);
    let stop = Arc::new(AtomicBool::new(false));
    let [quiet, noisy] = shares.map(|share| (share, Arc::new(AtomicU64::new(0))));
    for ((share, done), connections) in [(&quiet, 16), (&noisy, 160)] {
        for _ in 0..connections {
            runtime.spawn(share.clone().spend(work(Arc::clone(done), Arc::clone(&stop))));
        }
    }
    let done = |(_, done): &(Share, Arc<AtomicU64>)| done.load(Ordering::Relaxed);
    let sum = || done(&quiet) + done(&noisy);
    let wait_for = |enough: Duration| {
        while sum() < nanoseconds(enough) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for(Duration::from_millis(20));
    let before = (done(&quiet), sum());
    wait_for(Duration::from_millis(400));
    let part = (done(&quiet) - before.0) as f64 / (sum() - before.1) as f64;
    stop.store(true, Ordering::Relaxed);
    runtime.shutdown_timeout(Duration::from_secs(10));
    part
}

#[test]
fn a_pod_with_a_tenth_of_the_connections_gets_half_of_the_time() {
    for threads in [1, 2] {
        let part = |enabled| {
            let time = Time::new(threads, enabled, FairMetrics::default());
            part_of_the_quiet(&time, threads, [time.share(), time.share()])
        };
        let (without, with) = (part(false), part(true));
        assert!(without < 0.2, "without fairness, it gets {without} of {threads} threads");
        // A machine that does other things takes threads away in the middle of a turn.
        assert!((0.35..0.65).contains(&with), "it gets {with} of {threads} threads");
    }
}

#[test]
fn a_peer_with_a_tenth_of_the_connections_gets_about_half_of_the_turns() {
    let time = time(1);
    let pod = time.share();
    let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
    let part = part_of_the_quiet(&time, 1, [pod.of(one), pod.of(other)]);
    assert!((0.35..0.65).contains(&part), "it gets {part}");
}

/// How many turns of a noisy pod, of twenty microseconds each, something of a quiet one waits for at most.
fn turns_waited_for(enabled: bool) -> usize {
    let runtime = runtime(1);
    let time = Time::new(1, enabled, FairMetrics::default());
    let (quiet, noisy) = (time.share(), time.share());
    let turns = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let turns = Arc::clone(&turns);
        runtime.spawn(noisy.clone().spend(async move {
            loop {
                spin(Duration::from_micros(20));
                turns.fetch_add(1, Ordering::Relaxed);
                again().await;
            }
        }));
    }
    let waiting = runtime.spawn(quiet.spend(async move {
        let mut most = 0;
        for _ in 0..50 {
            let before = turns.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            most = most.max(turns.load(Ordering::Relaxed) - before);
        }
        most
    }));
    let waited = runtime.block_on(waiting).unwrap();
    runtime.shutdown_timeout(Duration::from_secs(10));
    waited
}

#[test]
fn who_wants_little_waits_until_the_threads_look_and_for_a_turn() {
    let waited = turns_waited_for(false);
    assert!(waited >= 50, "without fairness, it waits for {waited} turns");
    // Those that end within the time between two looks, one that has begun, and one that had been chosen.
    let waited = turns_waited_for(true);
    assert!(waited <= 10, "it waits for {waited} turns");
}

#[test]
fn alone_nobody_is_held_back() {
    let (runtime, time) = (runtime(2), time(2));
    let share = time.share();
    let tasks: Vec<_> =
        (0..100).map(|_| runtime.spawn(share.clone().spend(tokio::task::yield_now()))).collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(time.held_back.get(), 0);
    stress::assert_nothing_is_left(&time);
}

#[test]
fn nobody_saves_up_more_than_a_credit() {
    let time = time(1);
    let (busy, idle) = (time.share(), time.share());
    busy.charge(Duration::from_secs(3600));
    busy.begin();
    idle.begin();
    assert_eq!(busy.served() - idle.served(), nanoseconds(CREDIT));
    // Nor does anybody lose what it has had less.
    idle.charge(CREDIT / 2);
    idle.begin();
    assert_eq!(busy.served() - idle.served(), nanoseconds(CREDIT / 2));
}

#[tokio::test]
async fn what_is_done_for_a_pod_elsewhere_is_its_own_as_well() {
    let time = time(1);
    let share = time.share();
    let peer = IpAddr::from([10, 0, 0, 1]);
    // Nobody's.
    inherit(async { assert!(current().is_none()) }).await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let inner = async {
        let here = current().unwrap();
        spin(Duration::from_millis(1));
        sender.send(here).ok().unwrap();
    };
    let outer = async move { Inherited.execute(inner) };
    tokio::spawn(share.of(peer).spend(outer)).await.unwrap();
    let here = receiver.await.unwrap();
    assert_eq!(here.source, Some(peer));
    assert!(Arc::ptr_eq(&here.account, &share.account));
    assert!(current().is_none());
    assert!(share.served() >= nanoseconds(Duration::from_millis(1)));
}

#[tokio::test]
async fn what_is_done_for_another_pod_is_not_the_callers() {
    let time = time(1);
    let (one, other) = (time.share(), time.share());
    let peer = IpAddr::from([10, 0, 0, 1]);
    let task = one.of(peer).spend(async move {
        assert_eq!(one.here().source, Some(peer));
        assert_eq!(other.here().source, None);
        assert!(Arc::ptr_eq(&other.here().account, &other.account));
    });
    tokio::spawn(task).await.unwrap();
}
