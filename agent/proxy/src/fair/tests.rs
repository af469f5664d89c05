//! Two pods on one thread. What is compared is how much of the time each of them got: a ratio, whatever else the
//! machine does.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::*;

/// How many times as many connections the noisy pod has.
const TIMES: usize = 10;

/// Something that always has something to do, in pieces of some ten microseconds.
async fn work(done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        done.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// What a pod got of the time that both had together.
fn share_of_the_quiet(enabled: bool) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let time = Time::new(1, enabled, runtime.handle(), FairMetrics::default());
    let stop = Arc::new(AtomicBool::new(false));
    let [quiet, noisy] = [1, TIMES].map(|connections| {
        let (share, done) = (time.share(), Arc::new(AtomicU64::new(0)));
        for _ in 0..connections {
            let task = work(Arc::clone(&done), Arc::clone(&stop));
            runtime.spawn(Arc::clone(&share).spend(task));
        }
        done
    });
    let sum = || quiet.load(Ordering::Relaxed) + noisy.load(Ordering::Relaxed);
    // The first slices tell that the thread is busy.
    while sum() < 10_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = (quiet.load(Ordering::Relaxed), sum());
    while sum() < before.1 + 20_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let share = (quiet.load(Ordering::Relaxed) - before.0) as f64 / (sum() - before.1) as f64;
    stop.store(true, Ordering::Relaxed);
    runtime.shutdown_timeout(Duration::from_secs(10));
    share
}

#[test]
fn a_pod_with_a_tenth_of_the_connections_gets_more_than_a_tenth() {
    let (without, with) = (share_of_the_quiet(false), share_of_the_quiet(true));
    assert!(without < 0.2, "without fairness, the quiet pod gets {without}");
    // An equal share is what it gets where nobody else wants the processors.
    assert!(with > 1.5 * without, "with fairness, the quiet pod gets {with} instead of {without}");
}

#[tokio::test]
async fn alone_nobody_waits() {
    let time = Time::new(1, true, &Handle::current(), FairMetrics::default());
    let share = time.share();
    for _ in 0..1_000 {
        let done = Arc::clone(&share).spend(async { 7 }).await;
        assert_eq!(done, 7);
    }
    assert_eq!(time.held_back.get(), 0);
}

#[tokio::test]
async fn whoever_was_held_back_goes_on() {
    let time = Time::new(1, true, &Handle::current(), FairMetrics::default());
    let (one, _other) = (time.share(), time.share());
    time.level.store(1, Ordering::Relaxed);
    one.used.store(5, Ordering::Relaxed);
    time.keep_turning();
    let spent = Arc::clone(&one).spend(async {});
    tokio::time::timeout(Duration::from_secs(60), spent).await.unwrap();
}

#[tokio::test]
async fn what_is_done_for_a_pod_elsewhere_is_its_own_as_well() {
    let time = Time::new(1, true, &Handle::current(), FairMetrics::default());
    let share = time.share();
    let busy = async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1) {}
    };
    // Nobody's.
    inherit(async {}).await;
    let mut spawned = None;
    Arc::clone(&share).spend(async { spawned = Some(tokio::spawn(inherit(busy))) }).await;
    let before = share.used.load(Ordering::Relaxed) + share.usual.load(Ordering::Relaxed);
    spawned.unwrap().await.unwrap();
    let after = share.used.load(Ordering::Relaxed) + share.usual.load(Ordering::Relaxed);
    assert!(after > before);
}
