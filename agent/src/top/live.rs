//! The terminal: it is taken, drawn on, and given back, however this ends.

use std::{
    sync::mpsc::{self, Sender, TryRecvError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use super::{
    Reading, TopArgs,
    rates::Rates,
    rows::View,
    screen::{Next, Screen},
};
use crate::{agent, status::PodStatus};

/// How long a key or a signal may wait.
const TICK: Duration = Duration::from_millis(50);

/// What happens beside the keyboard.
enum Happened {
    Read(Result<(Rates, Vec<PodStatus>), String>),
    Signal,
}

/// Gives the terminal back when it is dropped; a panic does so before it says anything.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Until the user or a signal ends it.
pub(super) fn run(args: &TopArgs) -> Result<()> {
    // Where no agent answers, that is said before the terminal is taken.
    let first = Reading::take(args.admin)?;
    let nothing_yet = Rates { node: first.page.node.clone(), ..Rates::default() };
    let known = (nothing_yet, first.pods.clone());
    let (tell, happened) = mpsc::channel();
    let signals = tell.clone();
    thread::spawn(move || {
        if wait_for_signal().is_ok() {
            let _ = signals.send(Happened::Signal);
        }
    });
    let (admin, interval) = (args.admin, args.interval);
    thread::spawn(move || read(first, &tell, || Reading::take(admin), interval));

    let view = args.view.unwrap_or(View::Services);
    let mut screen = Screen::new(view, args.sort, args.namespace.clone());
    screen.update(Ok(known));
    let mut terminal = Restored(ratatui::try_init().context("the terminal cannot be used")?);
    let mut is_drawn = false;
    loop {
        if !is_drawn {
            terminal.0.draw(|frame| screen.draw(frame))?;
            is_drawn = true;
        }
        loop {
            match happened.try_recv() {
                Ok(Happened::Read(read)) => {
                    screen.update(read);
                    is_drawn = false;
                }
                Ok(Happened::Signal) | Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => break,
            }
        }
        if !event::poll(TICK)? {
            continue;
        }
        // A key, or another size.
        is_drawn = false;
        match event::read()? {
            Event::Key(key)
                if key.kind != KeyEventKind::Release && screen.press(key) == Next::Quit =>
            {
                return Ok(());
            }
            _ => {}
        }
    }
}

/// Reads for as long as somebody wants to know.
fn read(
    mut former: Reading,
    tell: &Sender<Happened>,
    take: impl Fn() -> Result<Reading>,
    interval: Duration,
) {
    loop {
        thread::sleep(interval);
        let read = take().map_err(|error| format!("{error:#}")).map(|now| {
            let rates = now.since(&former);
            let pods = now.pods.clone();
            former = now;
            (rates, pods)
        });
        if tell.send(Happened::Read(read)).is_err() {
            return;
        }
    }
}

fn wait_for_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::wait_for_signal())
}
