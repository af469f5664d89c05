//! Frames that are wrong by themselves: sections 4 to 7.

use super::{
    Heard::*,
    generic::{cut, priority},
    *,
};
use crate::tests::http::frames::*;

pub(super) fn rows() -> Vec<Row> {
    [sizes(), blocks(), streams_and_lengths(), settings_rows()].into_iter().flatten().collect()
}

const PROTOCOL: &[Heard] = &[GoAway(PROTOCOL_ERROR)];
const SIZE: &[Heard] = &[GoAway(FRAME_SIZE_ERROR), INEXACT];

/// Section 4.2. What a server takes is what it says, and no less than 16 KiB.
fn sizes() -> Vec<Row> {
    let large = [0; 16 << 10];
    let frame_of = |kind, flags, length: u32| sized(length, kind, flags, 1, &[]);
    vec![
        row(
            "4.2 a frame of the largest size",
            &[post(1), frame(DATA, END_STREAM, 1, large)],
            &[Answer(1, 200)],
        ),
        row("4.2 DATA that is too large", &[post(1), frame_of(DATA, 0, (16 << 10) + 1)], SIZE),
        row(
            "4.2 HEADERS that are too large",
            &[frame_of(HEADERS, END_HEADERS, (16 << 10) + 1)],
            SIZE,
        ),
        row(
            "4.2 a frame of an unknown kind that is too large",
            &[frame_of(0x16, 0, (16 << 10) + 1)],
            SIZE,
        ),
    ]
}

/// Sections 4.3 and 6.10: a header block is in one piece.
fn blocks() -> Vec<Row> {
    let rest = |stream| frame(CONTINUATION, END_HEADERS, stream, &block()[10..]);
    vec![
        row("4.3 PRIORITY within a header block", &[cut(1), priority(1, 0, 15), rest(1)], PROTOCOL),
        row("4.3 HEADERS of another stream within one", &[cut(1), get(3), rest(1)], PROTOCOL),
        row(
            "5.5 an unknown frame within one",
            &[cut(1), frame(0x16, 0, 0, "?"), rest(1)],
            PROTOCOL,
        ),
        row("6.2 HEADERS again within one", &[cut(1), get(1)], PROTOCOL),
        row("6.10 DATA within one", &[cut(1), frame(DATA, 0, 1, "test"), rest(1)], PROTOCOL),
        row("6.10 PING within one", &[cut(1), frame(PING, 0, 0, b"12345678"), rest(1)], PROTOCOL),
        row("6.10 CONTINUATION of another stream", &[cut(1), rest(3)], PROTOCOL),
        row("6.10 CONTINUATION of stream 0", &[cut(1), rest(0)], PROTOCOL),
        row("6.10 CONTINUATION after the end of a block", &[slow(1), rest(1)], PROTOCOL),
        row(
            "6.10 one after the last one",
            &[
                cut(1),
                frame(
                    CONTINUATION,
                    END_HEADERS,
                    1,
                    [&block()[10..], &field("x-wait-ms", "500")].concat(),
                ),
                rest(1),
            ],
            PROTOCOL,
        ),
        row(
            "6.10 CONTINUATION after DATA",
            &[post(1), frame(DATA, 0, 1, "test"), rest(1)],
            PROTOCOL,
        ),
    ]
}

/// Sections 6.1 to 6.9: which stream a frame may name, and how long it has to be.
fn streams_and_lengths() -> Vec<Row> {
    let cancel = [0, 0, 0, 8];
    vec![
        row("6.1 DATA of stream 0", &[frame(DATA, END_STREAM, 0, "test")], PROTOCOL),
        row(
            "6.1 padding as long as DATA",
            &[post(1), frame(DATA, END_STREAM | PADDED, 1, b"\x05test")],
            PROTOCOL,
        ),
        row("6.2 HEADERS of stream 0", &[get(0)], PROTOCOL),
        row(
            "6.2 padding longer than HEADERS",
            &[frame(HEADERS, END_HEADERS | PADDED, 1, [&[255], &block()[..]].concat())],
            PROTOCOL,
        ),
        row("6.3 PRIORITY of stream 0", &[priority(0, 1, 15)], PROTOCOL),
        row(
            "6.3 PRIORITY of another length",
            &[slow(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0])],
            // Of the stream; of the connection is allowed to whoever likes (section 5.4.1).
            &[Reset(1, FRAME_SIZE_ERROR), GoAway(FRAME_SIZE_ERROR), INEXACT],
        ),
        row("6.4 RST_STREAM of stream 0", &[frame(RST_STREAM, 0, 0, cancel)], PROTOCOL),
        row(
            "6.4 RST_STREAM of another length",
            &[slow(1), frame(RST_STREAM, 0, 1, [0, 0, 8])],
            SIZE,
        ),
        row("6.5 an acknowledgement with content", &[frame(SETTINGS, ACK, 0, setting(1, 1))], SIZE),
        row("6.5 SETTINGS of a stream", &[frame(SETTINGS, 0, 1, "")], PROTOCOL),
        row("6.5 half a setting", &[frame(SETTINGS, 0, 0, [0, 3, 0])], SIZE),
        row(
            "6.6 PUSH_PROMISE of a client",
            &[slow(1), frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2], &block()[..]].concat())],
            PROTOCOL,
        ),
        row("6.7 PING of a stream", &[frame(PING, 0, 1, b"12345678")], PROTOCOL),
        row("6.7 PING of another length", &[frame(PING, 0, 0, b"1234567")], SIZE),
        row("6.8 GOAWAY of a stream", &[frame(GOAWAY, 0, 1, [0; 8])], PROTOCOL),
        row("6.8 GOAWAY that is too short", &[frame(GOAWAY, 0, 0, [0; 7])], SIZE),
        row("6.9 WINDOW_UPDATE of another length", &[frame(WINDOW_UPDATE, 0, 0, [0, 0, 1])], SIZE),
        row("6.9 no increment of the connection", &[frame(WINDOW_UPDATE, 0, 0, [0; 4])], PROTOCOL),
        row(
            "6.9 no increment of a stream",
            &[slow(1), frame(WINDOW_UPDATE, 0, 1, [0; 4])],
            &[Reset(1, PROTOCOL_ERROR), GoAway(PROTOCOL_ERROR)],
        ),
    ]
}

/// Section 6.5.2.
fn settings_rows() -> Vec<Row> {
    vec![
        row("6.5.2 ENABLE_PUSH of 2", &[settings(2, 2)], PROTOCOL),
        row(
            "6.5.2 a window of 2^31",
            &[settings(4, 1 << 31)],
            &[GoAway(FLOW_CONTROL_ERROR), INEXACT],
        ),
        row("6.5.2 frames of less than 16 KiB", &[settings(5, (16 << 10) - 1)], PROTOCOL),
        row("6.5.2 frames of 16 MiB", &[settings(5, 1 << 24)], PROTOCOL),
        row("8.8 ENABLE_CONNECT_PROTOCOL of 2", &[settings(8, 2)], PROTOCOL),
    ]
}
