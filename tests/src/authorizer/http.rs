//! One connection of HTTP/1.1.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use super::{Question, Reaction, State};

pub(super) fn serve(stream: &TcpStream, state: &Arc<State>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let length = fields.rfind(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        match state.note(Question { head, body }) {
            Reaction::Say(answer) => (&mut &*stream).write_all(&answer)?,
            Reaction::Fail(_) => return Ok(()),
            Reaction::Hang => {
                // Until whoever has asked has had enough.
                let _ = reader.read(&mut [0; 16]);
                state.given_up();
                return Ok(());
            }
        }
    }
}
