//! Header blocks: RFC 7541.

use super::{Heard::*, *};
use crate::tests::http::frames::*;

const COMPRESSION: &[Heard] = &[GoAway(COMPRESSION_ERROR), INEXACT];

fn whole(block: &[Vec<u8>]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block.concat())
}

/// GET, http, `/` as the static table has them.
fn start() -> Vec<u8> {
    [indexed(2), indexed(6), indexed(4)].concat()
}

pub(super) fn rows() -> Vec<Row> {
    let answer = &[Answer(1, 200)];
    let huffman = |kind: u8| [&[kind | 1, 0x83], &HUFFMAN_AUTHORITY[..]].concat();
    let authority = || field(":authority", "cart");
    let mut rows = vec![
        row("6.1 indexed fields", &[whole(&[start(), authority()])], answer),
        row(
            "2.3.3 an index beyond both tables",
            &[whole(&[start(), authority(), indexed(70)])],
            COMPRESSION,
        ),
        row(
            "2.3.3 a name beyond both tables",
            &[whole(&[start(), authority(), vec![0x40 | 62, 1, b'a']])],
            COMPRESSION,
        ),
        row("6.1 index 0", &[whole(&[start(), authority(), vec![0x80]])], COMPRESSION),
        row(
            "4.2 a size of the table at the end of a block",
            &[whole(&[start(), authority(), vec![0x20]])],
            COMPRESSION,
        ),
        row(
            "6.3 sizes of the table at the beginning",
            &[whole(&[vec![0x20, 0x3f, 0x01], start(), authority()])],
            answer,
        ),
        // 4097 = 31 + 98 + 31 * 128.
        row(
            "6.3 a table that is larger than allowed",
            &[whole(&[vec![0x3f, 0xe2, 0x1f], start(), authority()])],
            COMPRESSION,
        ),
        row("5.1 a number without end", &[whole(&[start(), vec![0xff; 12]])], COMPRESSION),
        row(
            "5.1 a string longer than its block",
            &[whole(&[start(), vec![0, 0x7f, 0x20, b'a']])],
            COMPRESSION,
        ),
        // 'a' is 00011; the rest has to be ones, fewer than eight.
        row(
            "5.2 padding of zeros",
            &[whole(&[start(), vec![0, 1, b'x', 0x81, 0b0001_1000]])],
            COMPRESSION,
        ),
        row(
            "5.2 padding of more than seven bits",
            &[whole(&[start(), vec![0, 1, b'x', 0x82, 0b0001_1111, 0xff]])],
            COMPRESSION,
        ),
        row(
            "5.2 the end of a string within it",
            &[whole(&[start(), vec![0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]])],
            COMPRESSION,
        ),
        row("4.3 a block that is cut off", &[whole(&[start(), authority(), vec![0]])], COMPRESSION),
    ];
    for kind in [0x00, 0x10, 0x40] {
        let indexed_name = [&[kind | 1, 4], &b"cart"[..]].concat();
        rows.push(row(
            "6.2 a value with an indexed name",
            &[whole(&[start(), indexed_name])],
            answer,
        ));
        rows.push(row("6.2 one in the Huffman code", &[whole(&[start(), huffman(kind)])], answer));
        let test = literal(kind, b"x-test", b"ok");
        rows.push(row(
            "6.2 a value with a name of its own",
            &[whole(&[start(), authority(), test])],
            answer,
        ));
    }
    // What was added to the table is there for the next request.
    let adds = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        [start(), literal(0x40, b":authority", b"cart")].concat(),
    );
    let uses = frame(HEADERS, END_STREAM | END_HEADERS, 3, [start(), indexed(62)].concat());
    let awaits = vec![Step::Say(adds), Step::Await(Answer(1, 200)), Step::Say(uses)];
    rows.push(steps("2.3.2 the dynamic table", awaits, &[Answer(3, 200)]));
    rows
}
