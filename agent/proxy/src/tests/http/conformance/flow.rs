//! Flow control: sections 6.5.3 and 6.9.

use super::{Heard::*, *};
use crate::tests::http::frames::*;

const WINDOW: u16 = 4;

pub(super) fn rows() -> Vec<Row> {
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let most = (1 << 31) - 1;
    let overflow = [GoAway(FLOW_CONTROL_ERROR)];
    let of_stream = [Reset(1, FLOW_CONTROL_ERROR), GoAway(FLOW_CONTROL_ERROR)];
    let twice = [setting(WINDOW, 100), setting(WINDOW, 1)].concat();
    vec![
        row("6.9.1 no more than the window allows", &[settings(WINDOW, 1), get(1)], &[Data(1, 1)]),
        row(
            "6.5.3 the last value of a setting holds",
            &[frame(SETTINGS, 0, 0, twice), get(1)],
            &[Data(1, 1)],
        ),
        row(
            "6.9.1 the window of the connection overflows",
            &[window(0, most), window(0, most)],
            &overflow,
        ),
        row(
            "6.9.1 the window of a stream overflows",
            &[slow(1), window(1, most), window(1, most)],
            &of_stream,
        ),
        steps(
            "6.9.2 a window that opens later",
            vec![
                Step::Say([settings(WINDOW, 0), get(1)].concat()),
                Step::Await(SettingsAck),
                Step::Say(settings(WINDOW, 1)),
            ],
            &[Data(1, 1)],
        ),
        Row {
            last: true,
            ..steps(
                "6.9.2 a window that was less than nothing",
                vec![
                    Step::Say([settings(WINDOW, 1), get(1)].concat()),
                    Step::Await(Data(1, 1)),
                    // One byte is on its way: three more make it one short.
                    Step::Say([settings(WINDOW, 0), window(1, 2)].concat()),
                ],
                &[Answer(1, 200)],
            )
        },
        row(
            "6.9.2 a change that overflows a stream's window",
            &[slow(1), window(1, most - 65_535), settings(WINDOW, 65_536)],
            &overflow,
        ),
    ]
}
