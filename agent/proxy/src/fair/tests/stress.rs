//! Many threads that wake, drop and panic as they like: no wake-up is lost, and no place.

use tokio::{sync::mpsc, task::JoinHandle};

use super::*;

const THREADS: usize = 4;
const TASKS: usize = 60;
/// Messages that each of the threads outside sends.
const MESSAGES: usize = 20_000;
const WITHIN: Duration = Duration::from_secs(120);

/// The same numbers at every run (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// How often a message is still to be passed on.
struct Message(usize);

/// Tasks of three pods that pass messages on to each other, and to nobody in the end.
struct Ring {
    mailboxes: Vec<mpsc::UnboundedSender<Message>>,
    tasks: Vec<JoinHandle<()>>,
    /// Messages that have reached their end.
    arrived: Arc<AtomicUsize>,
}

fn ring(runtime: &Runtime, time: &Arc<Time>) -> Ring {
    let (mailboxes, received): (Vec<_>, Vec<_>) =
        (0..TASKS).map(|_| mpsc::unbounded_channel::<Message>()).unzip();
    let shares = [time.share(), time.share(), time.share()];
    let arrived = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for (number, mut received) in received.into_iter().enumerate() {
        let (others, arrived) = (mailboxes.clone(), Arc::clone(&arrived));
        let mut random = Random(number as u64 + 1);
        let task = async move {
            while let Some(Message(left)) = received.recv().await {
                if random.below(16) == 0 {
                    tokio::task::yield_now().await;
                }
                if left == 0 {
                    arrived.fetch_add(1, Ordering::Relaxed);
                } else {
                    // Whoever is gone receives nothing.
                    let _ = others[random.below(TASKS)].send(Message(left - 1));
                }
            }
        };
        // A few connections, and many.
        let share = shares[(number % 10).min(2)].of(IpAddr::from([10, 0, 0, (number % 4) as u8]));
        tasks.push(runtime.spawn(share.spend(task)));
    }
    Ring { mailboxes, tasks, arrived }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends from threads of no runtime.
fn send(ring: &Ring) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random(thread as u64 + 1000);
                for _ in 0..MESSAGES {
                    let _ = ring.mailboxes[random.below(TASKS)].send(Message(random.below(4)));
                    if random.below(64) == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
}

pub(super) fn assert_nothing_is_left(time: &Time) {
    wait_until("a place is lost", || time.places.are_all_free());
    assert_eq!(time.delay(), Duration::ZERO);
}

#[test]
fn no_wake_up_is_lost() {
    // More threads than places on average, and fewer.
    for threads in [1, THREADS] {
        let (runtime, time) = (runtime(THREADS), time(threads));
        let ring = ring(&runtime, &time);
        send(&ring);
        let all = || ring.arrived.load(Ordering::Relaxed) == THREADS * MESSAGES;
        wait_until("a wake-up is lost", all);
        assert_nothing_is_left(&time);
    }
}

#[test]
fn tasks_that_are_aborted_or_panic_take_no_place_with_them() {
    let (runtime, time) = (runtime(THREADS), time(THREADS));
    let ring = ring(&runtime, &time);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&ring));
        for task in ring.tasks.iter().step_by(2) {
            std::thread::sleep(Duration::from_micros(200));
            task.abort();
            let noisy = time.share();
            runtime.spawn(noisy.spend(async {
                tokio::task::yield_now().await;
                std::panic::resume_unwind(Box::new("as it was told"));
            }));
        }
    });
    assert_nothing_is_left(&time);
    // Who is left is still served.
    let before = ring.arrived.load(Ordering::Relaxed);
    ring.mailboxes[1].send(Message(0)).unwrap();
    wait_until("a task is not served", || ring.arrived.load(Ordering::Relaxed) > before);
    assert_nothing_is_left(&time);
}

#[test]
fn a_runtime_that_ends_takes_everything_with_it() {
    let (runtime, time) = (runtime(2), time(2));
    let ring = ring(&runtime, &time);
    let account = Arc::downgrade(&time);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&ring));
        scope.spawn(|| runtime.shutdown_timeout(Duration::from_secs(10)));
    });
    drop((ring, time));
    wait_until("something is kept", || account.strong_count() == 0);
}
