//! Turns step by step: the test is the runtime.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use super::*;

/// How often the runtime was asked to poll a task.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Wake for Asked {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Polled = Rc<RefCell<Vec<&'static str>>>;

/// A task that says when it is polled, and does as it is told then.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    asked: Arc<Asked>,
    /// What the task was given to be woken with.
    waker: Rc<RefCell<Option<Waker>>>,
    share: Share,
}

#[derive(Clone, Copy, PartialEq)]
enum Does {
    Sleep,
    WakeItself,
    Panic,
    End,
}

impl Task {
    fn new(share: &Share, name: &'static str, polled: &Polled, does: Does) -> Self {
        let (waker, polled) = (Rc::<RefCell<Option<Waker>>>::default(), Rc::clone(polled));
        let given = Rc::clone(&waker);
        let mut times = 0;
        let inner = std::future::poll_fn(move |cx| {
            *given.borrow_mut() = Some(cx.waker().clone());
            polled.borrow_mut().push(name);
            times += 1;
            // The first time, it has only come to be.
            match does {
                _ if times == 1 => Poll::Pending,
                Does::Sleep => Poll::Pending,
                Does::WakeItself => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Does::Panic => panic!("as it was told"),
                Does::End => Poll::Ready(()),
            }
        });
        let future = Box::pin(share.clone().spend(inner));
        let mut task = Self { future, asked: Arc::default(), waker, share: share.clone() };
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<()> {
        let waker = Waker::from(Arc::clone(&self.asked));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn wake(&self) {
        let waker = self.waker.borrow().clone().unwrap();
        waker.wake();
    }

    /// Whether the runtime has been asked to poll it since the last time.
    fn is_released(&self) -> bool {
        self.asked.0.swap(0, Ordering::Relaxed) > 0
    }
}

/// Two tasks of different pods, and one place.
fn two(does: Does) -> (Arc<Time>, Task, Task, Polled) {
    let (time, polled) = (time(1), Polled::default());
    let one = Task::new(&time.share(), "one", &polled, does);
    let other = Task::new(&time.share(), "other", &polled, Does::Sleep);
    polled.borrow_mut().clear();
    (time, one, other, polled)
}

#[test]
fn who_has_no_place_waits_until_it_is_given_back() {
    let (time, mut one, mut other, polled) = two(Does::Sleep);
    one.wake();
    other.wake();
    assert!(one.is_released() && !other.is_released());
    assert!(other.poll().is_pending());
    assert!(polled.borrow().is_empty(), "it has been polled without a place");
    assert!(one.poll().is_pending());
    assert!(other.is_released());
    assert!(other.poll().is_pending());
    assert_eq!(*polled.borrow(), ["one", "other"]);
    assert!(time.places.are_all_free());
}

#[test]
fn who_is_woken_many_times_has_one_turn() {
    let (time, mut one, mut other, polled) = two(Does::Sleep);
    other.wake();
    (0..5).for_each(|_| one.wake());
    assert!(other.poll().is_pending());
    (0..5).for_each(|_| one.wake());
    assert!(one.poll().is_pending() && one.poll().is_pending());
    // The second poll nobody has asked for. It has found a free place.
    assert_eq!(*polled.borrow(), ["other", "one", "one"]);
    assert!(time.places.are_all_free());
}

#[test]
fn who_is_woken_while_it_is_polled_has_another_turn_after_who_has_had_less() {
    let (time, mut one, mut other, polled) = two(Does::WakeItself);
    one.share.charge(Duration::from_secs(1));
    one.wake();
    other.wake();
    assert!(one.poll().is_pending());
    assert!(other.is_released() && one.poll().is_pending());
    assert!(other.poll().is_pending());
    assert!(one.is_released());
    assert_eq!(*polled.borrow(), ["one", "other"]);
    assert!(!time.places.are_all_free());
    drop(one);
    assert!(time.places.are_all_free());
}

#[test]
fn who_ends_gives_its_place_on_and_is_not_woken_again() {
    let (time, mut one, mut other, _) = two(Does::End);
    one.wake();
    other.wake();
    assert!(one.poll().is_ready());
    assert!(other.is_released());
    assert!(other.poll().is_pending());
    one.is_released();
    one.wake();
    assert!(!one.is_released());
    assert!(time.places.are_all_free());
}

#[test]
fn who_is_dropped_with_a_place_gives_it_on() {
    let (time, one, mut other, _) = two(Does::Sleep);
    one.wake();
    other.wake();
    let waker = one.waker.borrow().clone().unwrap();
    drop(one);
    assert!(other.is_released());
    // What has been its waker wakes nobody.
    waker.wake();
    assert!(other.poll().is_pending());
    assert!(time.places.are_all_free());
}

#[test]
fn who_is_dropped_while_it_waits_is_passed_over() {
    let (time, mut one, other, polled) = two(Does::Sleep);
    let third = Task::new(&time.share(), "third", &polled, Does::Sleep);
    one.wake();
    other.wake();
    third.wake();
    drop(other);
    assert!(one.poll().is_pending());
    assert!(third.is_released());
    drop(third);
    assert!(time.places.are_all_free());
    assert_eq!(time.delay(), Duration::ZERO);
}

#[test]
fn who_panics_gives_its_place_on() {
    let (time, mut one, mut other, _) = two(Does::Panic);
    one.wake();
    other.wake();
    assert!(catch_unwind(AssertUnwindSafe(|| one.poll())).is_err());
    assert!(current().is_none());
    assert!(other.is_released());
    drop(one);
    assert!(other.poll().is_pending());
    assert!(time.places.are_all_free());
}

#[test]
fn whoever_polls_a_task_is_woken() {
    let (_, mut one, mut other, _) = two(Does::Sleep);
    other.wake();
    one.wake();
    let before = std::mem::take(&mut one.asked);
    // It has moved to another runtime, so to speak, while it waits.
    assert!(one.poll().is_pending());
    assert!(other.poll().is_pending());
    assert!(one.is_released());
    assert_eq!(before.0.load(Ordering::Relaxed), 0);
}

#[test]
fn how_long_somebody_has_waited_is_known() {
    let (time, mut one, other, _) = two(Does::Sleep);
    assert_eq!(time.delay(), Duration::ZERO);
    one.wake();
    other.wake();
    spin(Duration::from_millis(2));
    assert!(time.delay() >= Duration::from_millis(2));
    assert!(one.poll().is_pending());
    assert_eq!(time.delay(), Duration::ZERO);
}

#[test]
fn without_fairness_everything_is_polled_at_once() {
    let time = Time::new(1, false, FairMetrics::default());
    let polled = Polled::default();
    let (one, other) = (time.share(), time.share());
    let mut one = Task::new(&one, "one", &polled, Does::End);
    let _other = Task::new(&other, "other", &polled, Does::End);
    assert!(one.poll().is_ready());
    assert_eq!(*polled.borrow(), ["one", "other", "one"]);
}
