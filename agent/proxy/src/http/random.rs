//! Chance, as rules ask for it.

use std::time::Duration;

use http::HeaderValue;
use undermesh_model::traffic::Millionths;

use crate::{balance, short};

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

/// True for this share of all calls.
pub(crate) fn chance(share: Millionths) -> bool {
    balance::random(Millionths::ALL.0 as usize) < share.0 as usize
}

/// A time from 0 to `most`.
pub(crate) fn up_to(most: Duration) -> Duration {
    let micros = usize::try_from(most.as_micros()).unwrap_or(usize::MAX);
    Duration::from_micros(balance::random(micros.saturating_add(1)) as u64)
}

/// The index of one of these weights, each with a chance in proportion to it; `None` where all are 0.
pub(crate) fn weighted(weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut slot = balance::random(usize::try_from(total).unwrap_or(usize::MAX)) as u64;
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if slot < weight {
            return Some(index);
        }
        slot -= weight;
    }
    None
}

/// A random UUID (RFC 9562, version 4), as Envoy writes request ids.
pub(crate) fn request_id() -> HeaderValue {
    let half = || balance::random(usize::MAX) as u64;
    let (high, low) = (half(), half());
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0xc << 60) | 0x8 << 60;
    let number = u128::from(high) << 64 | u128::from(low);
    let mut text = *b"________-____-____-____-____________";
    let digits = text.iter_mut().filter(|byte| **byte == b'_');
    for (place, digit) in digits.enumerate() {
        *digit = HEXADECIMAL[(number >> (124 - 4 * place) & 0xf) as usize];
    }
    // Hexadecimal digits are valid in a header.
    short::value(&text).unwrap_or_else(|| HeaderValue::from_static(""))
}

/// Sixteen random bytes in base64 (RFC 6455, section 4.1).
pub(crate) fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |among: usize| char::from(DIGITS[balance::random(DIGITS.len() / among) * among]);
    let mut text: String = (0..21).map(|_| digit(1)).collect();
    // The last digit stands for two bits of the bytes, and four of nothing.
    text.push(digit(16));
    text.push_str("==");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let id = request_id();
        let id = id.to_str().unwrap();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(request_id(), request_id());
    }

    #[test]
    fn weights_are_shares() {
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[weighted([1, 0, 3].into_iter()).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
        assert_eq!(weighted([0, 0].into_iter()), None);
        assert_eq!(weighted([].into_iter()), None);
    }

    #[test]
    fn all_is_always_and_none_is_never() {
        assert!((0..1000).all(|_| chance(Millionths::ALL)));
        assert!((0..1000).all(|_| !chance(Millionths(0))));
    }
}
