//! What a test executable says, line by line and by whom, from threads, so that waiting for it can have an end.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::Child,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use anyhow::{Context as _, Result};

/// Lines that may wait to be shown; the executable blocks beyond that.
const PENDING_LINES: usize = 1024;

/// A part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A line of its standard output.
    Out(String),
    /// A line of its standard error, or of that of a process that it has started.
    Err(String),
    /// A test has begun, of those that run one after the other.
    Begun(String),
    /// Its standard output has ended, and so has the executable.
    Ended,
}

/// Takes the output; standard error as well, where that leads here.
pub(super) fn of(child: &mut Child) -> Result<Receiver<Said>> {
    let (sender, receiver) = sync_channel(PENDING_LINES);
    let out = child.stdout.take().context("a test without output")?;
    if let Some(err) = child.stderr.take() {
        let sender = sender.clone();
        thread::spawn(move || read(err, |_| None, |line| sender.send(Said::Err(line)).is_ok()));
    }
    thread::spawn(move || read_out(out, &sender));
    Ok(receiver)
}

fn read_out(out: impl Read, sender: &SyncSender<Said>) {
    let begun = |part: &[u8]| begun(part).map(|name| sender.send(Said::Begun(name)).is_ok());
    read(out, begun, |line| sender.send(Said::Out(line)).is_ok());
    // Nobody listens any more, or this is the last that is heard.
    let _ = sender.send(Said::Ended);
}

/// The test that a line without an end is about.
fn begun(part: &[u8]) -> Option<String> {
    let name = part.strip_prefix(b"test ")?.strip_suffix(b" ... ")?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Reads lines, and what there is of one that has not ended; until `line` or `part` says that it is enough.
fn read(input: impl Read, part: impl Fn(&[u8]) -> Option<bool>, line: impl Fn(String) -> bool) {
    let mut input = BufReader::new(input);
    let mut text = Vec::new();
    while let Ok(chunk @ [_, ..]) = input.fill_buf() {
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |at| at + 1);
        text.extend_from_slice(&chunk[..end.unwrap_or(used)]);
        input.consume(used);
        let goes_on = match end {
            Some(_) => line(String::from_utf8_lossy(&std::mem::take(&mut text)).into_owned()),
            None => part(&text).unwrap_or(true),
        };
        if !goes_on {
            return;
        }
    }
    if !text.is_empty() {
        line(String::from_utf8_lossy(&text).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_a_test_is_known_before_its_line_is() {
        /// Gives so much at a time as there are texts.
        struct Texts(&'static [&'static str]);
        impl Read for Texts {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                buffer[..first.len()].copy_from_slice(first.as_bytes());
                self.0 = rest;
                Ok(first.len())
            }
        }
        let (sender, said) = sync_channel(16);
        read_out(Texts(&["running 1 te", "st\ntest a::b ... ", "ok\n\n", "end"]), &sender);
        drop(sender);
        let out = |text: &str| Said::Out(text.to_owned());
        let expected = [
            out("running 1 test"),
            Said::Begun("a::b".to_owned()),
            out("test a::b ... ok"),
            out(""),
            out("end"),
            Said::Ended,
        ];
        assert_eq!(said.into_iter().collect::<Vec<_>>(), expected);
    }
}
