//! Requests that begin and end where they should, and those that are refused.

use proptest::prelude::*;

use super::*;

/// Follows all bytes, given in pieces of this size; the reason of a refusal.
fn follow(bytes: &[u8], piece: usize) -> Result<Framing, &'static str> {
    let mut framing = Framing::new(HeadLimits::default());
    let mut held: Vec<u8> = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            let count = match framing.unseen() {
                Some(unseen) => {
                    let count = held.len().min(usize::try_from(unseen).unwrap_or(usize::MAX));
                    framing.passed(count as u64);
                    count
                }
                None => match framing.look(&held) {
                    Step::Pass(count) => count,
                    Step::More => break,
                    Step::Refuse(why) => return Err(why),
                },
            };
            held.drain(..count);
        }
    }
    Ok(framing)
}

fn refused(text: &str) -> &'static str {
    let why = follow(text.as_bytes(), usize::MAX).expect_err(text);
    assert_eq!(follow(text.as_bytes(), 1).expect_err(text), why, "{text:?} byte by byte");
    why
}

fn complete(text: &str) {
    for piece in [1, 7, usize::MAX] {
        let framing =
            follow(text.as_bytes(), piece).unwrap_or_else(|why| panic!("{why}: {text:?}"));
        assert!(framing.is_between_requests(), "{framing:?} after {text:?}");
    }
}

#[test]
fn whole_requests_end_where_they_should() {
    complete("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    complete("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    complete("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    complete("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
    complete(&format!("{chunked}5\r\nhello\r\n0\r\n\r\n"));
    complete(&format!("{chunked}A;x=y\r\n0123456789\r\n1 ;z\r\n!\r\n000\r\nx-sum: 1\r\n\r\n"));
}

#[test]
fn two_ways_to_tell_the_length_are_refused() {
    let both = "both Transfer-Encoding and Content-Length";
    let te = "Transfer-Encoding: chunked\r\n";
    let cl = "Content-Length: 5\r\n";
    assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{te}{cl}\r\n0\r\n\r\n")), both);
    assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{cl}{te}\r\n0\r\n\r\n")), both);
    let twice = "more than one Content-Length";
    assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{cl}{cl}\r\nhello")), twice);
    let other = "a Transfer-Encoding other than chunked";
    assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{te}{te}\r\n0\r\n\r\n")), other);
    for coding in ["gzip, chunked", "identity", "chunked, identity", "xchunked", "chunked;q=1"] {
        let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert_eq!(refused(&head), other, "{coding}");
    }
    assert_eq!(refused(&format!("POST / HTTP/1.0\r\n{te}\r\n")), "Transfer-Encoding in HTTP/1.0");
}

#[test]
fn lengths_are_digits() {
    for length in ["+5", "-1", "5,5", "0x5", "", "5 5", "99999999999999999999"] {
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\nhello");
        assert_eq!(refused(&head), "Content-Length is no number", "{length}");
    }
}

#[test]
fn lines_end_with_cr_lf_and_do_not_continue() {
    let bare = "a line that ends without CR";
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), bare);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), bare);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\n\n"), bare);
    for text in ["\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\n\r\n", "\n\n", "\r\n\n\r\n"] {
        assert_eq!(refused(text), bare, "{text:?}");
    }
    let folded = "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n";
    assert_eq!(refused(folded), "a header that is folded");
}

#[test]
fn chunks_are_as_long_as_they_say() {
    let with = |body: &str| {
        refused(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
    };
    assert_eq!(with("3\r\nhello\r\n"), "a chunk is longer than it says");
    for size in ["", "x", "0x5", "-1", " 5", "5 5", "FFFFFFFFFFFFFFFF0", "5;\0"] {
        assert_eq!(with(&format!("{size}\r\nhello\r\n")), "not the size of a chunk", "{size:?}");
    }
    assert_eq!(with("5\nhello\r\n"), "a line that ends without CR");
    assert_eq!(with(&format!("5;{}\r\n", "x".repeat(MAX_CHUNK_LINE))), "a line that is too long");
    // However it is cut.
    let most = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE - 2));
    complete(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{most}"));
    assert_eq!(with("0\r\n x: y\r\n\r\n"), "a trailer that begins with a space");
}

#[test]
fn a_head_that_is_too_long_is_left_to_whoever_answers_it() {
    for (rest, passes) in [(0, true), (1, false)] {
        let head = "GET / HTTP/1.1\r\nX: \r\n\r\n";
        let value = "x".repeat(HeadLimits::default().bytes - head.len() + rest);
        let text = format!("GET / HTTP/1.1\r\nX: {value}\r\n\r\n");
        for piece in [1 << 10, usize::MAX] {
            let framing = follow(text.as_bytes(), piece).unwrap();
            assert_eq!(framing.is_between_requests(), passes, "{rest} in pieces of {piece}");
        }
    }
}

#[test]
fn as_many_headers_are_read_as_hyper_may_take() {
    for most in [16, 100, 127, 128, 1000] {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(most));
        let mut framing = Framing::new(HeadLimits { headers: most, ..HeadLimits::default() });
        assert_eq!(framing.look(text.as_bytes()), Step::Pass(text.len()));
        assert!(framing.is_between_requests(), "{most} headers were not read");
    }
}

#[test]
fn an_upgrade_is_decided_by_its_answer() {
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut framing = follow(ask, usize::MAX).unwrap();
    assert!(framing.is_undecided());
    assert_eq!(framing.look(b"\x81\x05hello"), Step::More);
    framing.decide(true);
    assert_eq!(framing.unseen(), Some(u64::MAX));
    let ask = b"POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nhi";
    assert!(follow(ask, 1).unwrap().is_undecided());
    let mut framing = follow(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 3).unwrap();
    framing.decide(false);
    assert!(framing.is_between_requests());
}

proptest! {
    #[test]
    fn any_bytes_are_survived_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..512), piece in 1usize..64) {
        let _ = follow(&bytes, piece);
    }

    #[test]
    fn pieces_make_no_difference(
        body in "[0-9a-f;\r\n x]{0,40}",
        head in "(Content-Length: [0-9]{0,3}\r\n|Transfer-Encoding: chunked\r\n|X: y\r?\n){0,3}",
        piece in 1usize..16,
    ) {
        let text = format!("POST / HTTP/1.1\r\n{head}\r\n{body}");
        let whole = follow(text.as_bytes(), usize::MAX).map(|framing| framing.next);
        let parts = follow(text.as_bytes(), piece).map(|framing| framing.next);
        prop_assert_eq!(whole, parts);
    }
}
