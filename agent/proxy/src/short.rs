//! Short header values that are written for every request: names of requests, of traces, and of hosts.
//!
//! A value of its own takes two pieces of memory as soon as it is copied, as each attempt of a request copies it, and
//! they are freed when they are in no cache any more. Here several values share one.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderValue;

/// Bytes of memory that values share. They stay for as long as one of the values does, which may be a long request's:
/// so they are few.
const SHARED: usize = 1024;

/// The value of a header, if the text is valid in one.
pub(crate) fn value(text: &[u8]) -> Option<HeaderValue> {
    thread_local! {
        static ROOM: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(SHARED));
    }
    let bytes = ROOM.with_borrow_mut(|room| {
        // Takes the same memory again where no value is left in it.
        room.reserve(text.len());
        room.extend_from_slice(text);
        room.split().freeze()
    });
    HeaderValue::from_maybe_shared(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_its_own_however_many_share_memory_and_however_long_it_is() {
        let texts: Vec<String> = (0..100).map(|n| format!("{n}-{}", "x".repeat(n))).collect();
        let texts: Vec<_> = texts.into_iter().chain(["y".repeat(3 * SHARED)]).collect();
        let values: Vec<_> = texts.iter().map(|text| value(text.as_bytes()).unwrap()).collect();
        assert!(values.iter().eq(texts.iter()));
        let far = |two: &[HeaderValue]| {
            let [one, next] = [&two[0], &two[1]].map(|value| value.as_bytes().as_ptr().addr());
            next.wrapping_sub(one) != two[0].len()
        };
        assert!(values.windows(2).filter(|two| far(two)).count() < 12, "they share memory");
    }

    #[test]
    fn what_is_not_valid_is_no_value_and_harms_no_other() {
        let before = value(b"before").unwrap();
        assert_eq!(value(b"a\r\nb"), None);
        assert_eq!([before, value(b"after").unwrap()], ["before", "after"]);
    }
}
