//! One direction of a forwarded connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use undermesh_telemetry::ByteCounters;

use crate::duplex::{Broken, Duplex};

/// Why a direction stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The stream that it reads from broke.
    Read(Broken),
    /// The stream that it writes to broke.
    Write(Broken),
}

/// What a direction is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Writing,
    /// The source has ended, and the other side is being told.
    Finishing,
    /// The end was passed on.
    Done,
    /// Nobody takes the bytes any more.
    Stopped,
}

/// Moves bytes from one stream to another.
pub(super) struct Flow<'a> {
    state: State,
    /// Read, and not yet taken by the other side.
    held: Bytes,
    counters: &'a ByteCounters,
    /// Counts for this direction.
    add: fn(&ByteCounters, u64),
}

impl<'a> Flow<'a> {
    pub(super) fn new(counters: &'a ByteCounters, add: fn(&ByteCounters, u64)) -> Self {
        Self { state: State::Reading, held: Bytes::new(), counters, add }
    }

    /// True when the end has been passed on.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// True when the next byte, the end or the break of the source will wake this direction.
    pub(super) fn waits_to_read(&self) -> bool {
        self.state == State::Reading
    }

    /// Moves what can be moved.
    pub(super) fn poll<F: Duplex, T: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Stop>> {
        let result = ready!(self.poll_until_end(cx, from, to));
        if let Err(Stop::Write(_)) = result {
            self.state = State::Stopped;
            self.held = Bytes::new();
        }
        Poll::Ready(result)
    }

    fn poll_until_end<F: Duplex, T: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Stop>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Stopped => return Poll::Pending,
                State::Finishing => {
                    ready!(to.poll_finish(cx)).map_err(Stop::Write)?;
                    self.state = State::Done;
                }
                State::Writing if !self.held.is_empty() => {
                    ready!(self.poll_write(cx, from, to)).map_err(Stop::Write)?;
                }
                State::Reading | State::Writing => ready!(self.poll_read(cx, from, to))?,
            }
        }
    }

    /// Reads one chunk, once there is something to read and room to put it.
    fn poll_read<F: Duplex, T: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Stop>> {
        self.state = State::Reading;
        if from.poll_readable(cx).is_pending() {
            return rest(cx, to);
        }
        self.state = State::Writing;
        let room = ready!(to.poll_capacity(cx)).map_err(Stop::Write)?;
        self.state = State::Reading;
        let Poll::Ready(read) = from.poll_read(cx, room) else {
            return rest(cx, to);
        };
        match read.map_err(Stop::Read)? {
            Some(bytes) => {
                self.held = bytes;
                self.state = State::Writing;
            }
            None => {
                to.release_capacity();
                self.state = State::Finishing;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some of what is held and lets the source send as much again.
    fn poll_write<F: Duplex, T: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Broken>> {
        let before = self.held.len();
        ready!(to.poll_write(cx, &mut self.held))?;
        let written = before - self.held.len();
        if self.held.is_empty() {
            // An empty rest still occupies all that it is the rest of, for as long as nothing follows.
            self.held = Bytes::new();
        }
        (self.add)(self.counters, written as u64);
        from.consumed(written);
        Poll::Ready(Ok(()))
    }
}

/// Nothing is to be read for the moment: what was written must not wait for more.
fn rest<T: Duplex>(cx: &mut Context<'_>, to: &mut T) -> Poll<Result<(), Stop>> {
    to.release_capacity();
    match to.poll_flush(cx) {
        Poll::Ready(Err(cause)) => Poll::Ready(Err(Stop::Write(cause))),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
