//! States of streams: section 5.

use super::{Heard::*, generic::priority, *};
use crate::tests::http::frames::*;

const PROTOCOL: &[Heard] = &[GoAway(PROTOCOL_ERROR)];

pub(super) fn rows() -> Vec<Row> {
    [idle(), half_closed(), closed(), numbers(), dependencies()].into_iter().flatten().collect()
}

fn trailers(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM | END_HEADERS, &[("x-late", "1")])
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, [0, 0, 0, 8])
}

fn idle() -> Vec<Row> {
    vec![
        row("5.1 DATA of an idle stream", &[frame(DATA, END_STREAM, 1, "test")], PROTOCOL),
        row("5.1 RST_STREAM of an idle stream", &[reset(1)], PROTOCOL),
        row(
            "5.1 WINDOW_UPDATE of an idle stream",
            &[frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])],
            PROTOCOL,
        ),
        row(
            "5.1 CONTINUATION of an idle stream",
            &[frame(CONTINUATION, END_HEADERS, 1, block())],
            PROTOCOL,
        ),
        row(
            "5.1 DATA of a stream that the server would open",
            &[frame(DATA, END_STREAM, 2, "test")],
            PROTOCOL,
        ),
        row("5.1 RST_STREAM of one", &[reset(2)], PROTOCOL),
    ]
}

fn half_closed() -> Vec<Row> {
    let closed = |stream| [Reset(stream, STREAM_CLOSED), GoAway(STREAM_CLOSED), INEXACT];
    vec![
        row("5.1 DATA after the end", &[slow(1), frame(DATA, END_STREAM, 1, "test")], &closed(1)),
        row("5.1 HEADERS after the end", &[slow(1), trailers(1)], &closed(1)),
        row(
            "5.1 WINDOW_UPDATE after the end",
            &[slow(1), frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])],
            &[Answer(1, 200)],
        ),
        row(
            "5.1 CONTINUATION after the end",
            &[slow(1), frame(CONTINUATION, END_HEADERS, 1, block())],
            PROTOCOL,
        ),
    ]
}

/// What arrives for a stream that the client itself has closed.
fn closed() -> Vec<Row> {
    let errors = [Reset(1, STREAM_CLOSED), GoAway(STREAM_CLOSED), INEXACT];
    let after_reset = |frame: Vec<u8>| [slow(1), reset(1), frame];
    let after_answer =
        |frame: Vec<u8>| vec![Step::Say(get(1)), Step::Await(Answer(1, 200)), Step::Say(frame)];
    let continuation = || frame(CONTINUATION, END_HEADERS, 1, block());
    let data = || frame(DATA, END_STREAM, 1, "test");
    vec![
        row("5.1 DATA after RST_STREAM", &after_reset(data()), &errors),
        row("5.1 HEADERS after RST_STREAM", &after_reset(get(1)), &errors),
        row("5.1 CONTINUATION after RST_STREAM", &after_reset(continuation()), PROTOCOL),
        steps("5.1 DATA of a closed stream", after_answer(data()), &errors),
        steps("5.1 HEADERS of a closed stream", after_answer(get(1)), &errors),
        steps("5.1 CONTINUATION of a closed stream", after_answer(continuation()), PROTOCOL),
    ]
}

/// Sections 5.1.1 and 5.1.2.
fn numbers() -> Vec<Row> {
    vec![
        row("5.1.1 a stream with an even number", &[get(2)], PROTOCOL),
        row("5.1.1 a number that is smaller than the last", &[slow(5), get(3)], PROTOCOL),
    ]
}

/// RFC 7540 had this as an error; RFC 9113 has no priorities (section 5.3.2), so that it means nothing.
fn dependencies() -> Vec<Row> {
    let on_itself = frame(
        HEADERS,
        END_STREAM | END_HEADERS | PRIORITIZED,
        1,
        [&[0, 0, 0, 1, 255], &block()[..]].concat(),
    );
    let allowed = [Reset(1, PROTOCOL_ERROR), GoAway(PROTOCOL_ERROR), Answer(1, 200)];
    vec![
        row("5.3 HEADERS that depend on their own stream", &[on_itself], &allowed),
        row("5.3 PRIORITY of a stream by itself", &[slow(1), priority(1, 1, 15)], &allowed),
    ]
}
