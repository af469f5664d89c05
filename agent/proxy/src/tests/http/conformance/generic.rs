//! What every server has to do with what is allowed.

use super::{Heard::*, *};
use crate::tests::http::frames::*;

/// A PING that says that everything before it was read.
fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"was read")
}

const PONG: Heard = Pong(*b"was read");

/// A dependency on another stream (RFC 7540, section 5.3), which means nothing any more.
pub(super) fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, [&on.to_be_bytes()[..], &[weight]].concat())
}

pub(super) fn rows() -> Vec<Row> {
    let answer = &[Answer(1, 200)];
    let padded = |stream, flags, body: &[u8]| {
        frame(DATA, flags | PADDED, stream, [&[4], body, &[0; 4]].concat())
    };
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let exclusive = 1 << 31;
    let mut rows = vec![
        row("3.4 settings are acknowledged", &[settings(3, 100)], &[SettingsAck]),
        row("6.1 a body", &[post(1), frame(DATA, END_STREAM, 1, "test")], answer),
        row(
            "6.1 a body in several frames",
            &[post(1), frame(DATA, 0, 1, "te"), frame(DATA, END_STREAM, 1, "st")],
            answer,
        ),
        row("6.1 a padded body", &[post(1), padded(1, END_STREAM, b"test")], answer),
        row("6.1 a body of padding alone", &[post(1), padded(1, END_STREAM, b"")], answer),
        row("6.1 an empty body", &[post(1), frame(DATA, END_STREAM, 1, "")], answer),
        row("6.2 a request", &[get(1)], answer),
        row(
            "6.2 padded headers",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                [&[3], &block()[..], &[0; 3]].concat(),
            )],
            answer,
        ),
        row(
            "6.2 headers with a priority",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS | PRIORITIZED,
                1,
                [&[0, 0, 0, 0, 255], &block()[..]].concat(),
            )],
            answer,
        ),
        row("6.3 a priority before the request", &[priority(1, 0, 0), get(1)], answer),
        row("6.3 the highest weight", &[priority(1, 0, 255), get(1)], answer),
        row("6.3 an exclusive dependency", &[priority(1, exclusive, 15), get(1)], answer),
        row("6.3 a dependency on a stream that is idle", &[priority(1, 99, 15), get(1)], answer),
        row("6.3 a priority of a stream that stays idle", &[priority(99, 0, 15), get(1)], answer),
        row("6.3 a priority of a half-closed stream", &[slow(1), priority(1, 0, 15)], answer),
        steps(
            "6.3 a priority of a closed stream",
            vec![
                Step::Say(get(1)),
                Step::Await(Answer(1, 200)),
                Step::Say([priority(1, 0, 15), ping()].concat()),
            ],
            &[PONG],
        ),
        row(
            "6.4 a request that is taken back",
            &[slow(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 8]), ping()],
            &[PONG],
        ),
        row("6.5 empty settings", &[frame(SETTINGS, 0, 0, ""), get(1)], &[SettingsAck]),
        row("6.5.2 an unknown setting", &[settings(0xff, 1), get(1)], &[SettingsAck]),
        row(
            "6.7 a PING is answered with its content",
            &[frame(PING, 0, 0, b"\x01\x02\x03\x04abcd")],
            &[Pong(*b"\x01\x02\x03\x04abcd")],
        ),
        row("6.7 an answer to no PING", &[frame(PING, ACK, 0, b"was-read"), get(1)], answer),
        row("6.9 window of the connection", &[window(0, 1), get(1)], answer),
        row("6.9 window of a stream", &[slow(1), window(1, 1)], answer),
        row("4.1 a frame of an unknown kind", &[frame(0x16, 0, 0, b"12345678"), ping()], &[PONG]),
        row("4.1 flags that mean nothing", &[frame(PING, 0x16, 0, b"was read")], &[PONG]),
        row("4.1 the reserved bit", &[frame(PING, 0, 1 << 31, b"was read")], &[PONG]),
        row(
            "5.5 a frame of an unknown kind on a stream",
            &[post(1), frame(0xfe, 0xff, 1, "?"), frame(DATA, END_STREAM, 1, "")],
            answer,
        ),
        row(
            "7 a reset with an unknown code",
            &[slow(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 0xff]), ping()],
            &[PONG],
        ),
        row(
            "8.1 trailers",
            &[
                post(1),
                frame(DATA, 0, 1, "test"),
                headers(1, END_HEADERS | END_STREAM, &[("x-sum", "1")]),
            ],
            answer,
        ),
        row(
            "8.1 trailers and no body",
            &[post(1), headers(1, END_HEADERS | END_STREAM, &[("x-sum", "1")])],
            answer,
        ),
        row(
            "6.10 a CONTINUATION",
            &[cut(1), frame(CONTINUATION, END_HEADERS, 1, &block()[10..])],
            answer,
        ),
        row(
            "6.10 several of them",
            &[
                cut(1),
                frame(CONTINUATION, 0, 1, &block()[10..20]),
                frame(CONTINUATION, END_HEADERS, 1, &block()[20..]),
            ],
            answer,
        ),
        row(
            "6.10 an empty one",
            &[
                cut(1),
                frame(CONTINUATION, 0, 1, ""),
                frame(CONTINUATION, END_HEADERS, 1, &block()[10..]),
            ],
            answer,
        ),
    ];
    for method in ["HEAD", "OPTIONS", "DELETE", "PROPFIND"] {
        let fields = [(":method", method), SCHEME, PATH, AUTHORITY];
        rows.push(row("8.3.1 a method", &[headers(1, END_STREAM | END_HEADERS, &fields)], answer));
    }
    // GOAWAY of a client says that it will take no more pushes: what it has asked is answered.
    let goodbye = frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]);
    let leaves = row("6.8 a client that leaves is answered", &[slow(1), goodbye], answer);
    rows.push(Row { last: true, ..leaves });
    rows
}

/// The first ten bytes of a request's head.
pub(super) fn cut(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &block()[..10])
}
