//! Addresses as the maps keep them.

use crate::map_type;

map_type! {
    /// An IPv6 address, or an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`). Words rather than
    /// bytes, as the programs would otherwise copy and compare it byte by byte.
    pub struct Addr: 16 {
        /// Four words, each in network byte order, as they stand in a packet.
        pub words_be: [u32; 4],
    }
}

impl Addr {
    /// `::`, which stands for "no address" in map values.
    pub const UNSPECIFIED: Self = Self { words_be: [0; 4] };
    /// `127.0.0.1`.
    pub const LOOPBACK_V4: Self = Self::v4([127, 0, 0, 1]);
    /// `127.0.0.6`, which the agent delivers IPv4 connections from, inside the pod. IPv6 has one
    /// loopback address, which serves both purposes.
    pub const DELIVERY_V4: Self = Self::v4([127, 0, 0, 6]);
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self { words_be: [0, 0, 0, 1_u32.to_be()] };

    /// Maps an IPv4 address given as its four bytes.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::v4_be(u32::from_ne_bytes(octets))
    }

    /// Maps an IPv4 address as kernel contexts hold it: a word in network byte order.
    #[inline(always)]
    pub const fn v4_be(word: u32) -> Self {
        Self { words_be: [0, 0, 0xffff_u32.to_be(), word] }
    }

    /// An IPv6 address given as its sixteen bytes.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self {
            words_be: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// The sixteen bytes of the address.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.words_be;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], //
            c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ]
    }

    /// The word of a mapped IPv4 address, in network byte order.
    #[inline(always)]
    pub const fn v4_word_be(&self) -> u32 {
        self.words_be[3]
    }

    /// The loopback address of the same family.
    #[inline(always)]
    pub const fn loopback(&self) -> Self {
        if self.is_v4() { Self::LOOPBACK_V4 } else { Self::LOOPBACK_V6 }
    }

    /// Compares without a call to `memcmp`, which the programs do not have.
    #[inline(always)]
    pub const fn equals(&self, other: &Self) -> bool {
        let (a, b) = (&self.words_be, &other.words_be);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    /// True for mapped IPv4 addresses.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let words = self.words_be;
        words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
    }

    /// True for `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let words = self.words_be;
        words[0] | words[1] | words[2] | words[3] == 0
    }

    /// True for 127.0.0.0/8 and `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.words_be[3]) >> 24 == 127;
        }
        self.equals(&Self::LOOPBACK_V6)
    }

    /// True for the addresses that the agent delivers connections from.
    #[inline(always)]
    pub const fn is_delivery_source(&self) -> bool {
        self.equals(&Self::DELIVERY_V4) || self.equals(&Self::LOOPBACK_V6)
    }

    /// True where a connection never leaves the pod, or leads to something that only this link
    /// knows: loopback, `0.0.0.0` and `::` (which mean the host itself), link-local, multicast,
    /// broadcast. 240.0.0.0/4 is for hosts of ServiceEntries: Istio gives out addresses there.
    #[inline(always)]
    pub const fn is_never_meshed(&self) -> bool {
        if self.is_v4() {
            let word = u32::from_be(self.words_be[3]);
            let first = word >> 24;
            let multicast = first >> 4 == 0xe || word == u32::MAX;
            return first == 127 || first == 0 || multicast || word >> 16 == 0xa9fe;
        }
        let first = u32::from_be(self.words_be[0]);
        first >> 24 == 0xff
            || first >> 22 == 0xfe80 >> 6
            || self.is_unspecified()
            || self.equals(&Self::LOOPBACK_V6)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::Addr;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    fn addr(text: &str) -> Addr {
        match text.parse::<Ipv4Addr>() {
            Ok(v4) => Addr::v4(v4.octets()),
            Err(_) => Addr::v6(text.parse::<Ipv6Addr>().unwrap().octets()),
        }
    }

    #[test]
    fn bytes_round_trip() {
        for text in ["10.1.2.3", "2001:db8::1", "::", "::1", "fe80::1:2"] {
            let a = addr(text);
            assert_eq!(Addr::v6(a.octets()), a, "{text}");
        }
        assert_eq!(Addr::v4_be(u32::from_ne_bytes([10, 1, 2, 3])), addr("10.1.2.3"));
    }

    #[test]
    fn only_addresses_that_may_lead_to_a_workload_are_meshable() {
        let never: Vec<_> = "127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 \
             239.255.255.255 255.255.255.255 :: ::1 fe80::1 febf::1 ff02::1"
            .split_whitespace()
            .filter(|text| !addr(text).is_never_meshed())
            .collect();
        assert!(never.is_empty(), "meshable: {never:?}");
        let ever: Vec<_> =
            "10.0.0.1 169.253.0.1 223.255.255.255 240.240.0.1 1.2.3.4 2001:db8::1 fd00::1 fec0::1"
                .split_whitespace()
                .filter(|text| addr(text).is_never_meshed())
                .collect();
        assert!(ever.is_empty(), "not meshable: {ever:?}");
    }
}
