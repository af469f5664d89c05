//! Addresses as the maps keep them.

use crate::map_type;

map_type! {
    /// An IPv6 address, or an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`), in network order.
    pub struct Addr: 16 {
        /// The sixteen bytes as they stand in a packet.
        pub octets: [u8; 16],
    }
}

impl Addr {
    /// `::`, which stands for "no address" in map values.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// Maps an IPv4 address given as its four bytes.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        Self {
            octets: [
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3],
            ],
        }
    }

    /// Maps an IPv4 address as kernel contexts hold it: a word in network byte order.
    #[inline(always)]
    pub const fn v4_be(word: u32) -> Self {
        Self::v4(word.to_ne_bytes())
    }

    /// An IPv6 address as kernel contexts hold it: four words in network byte order.
    #[inline(always)]
    pub const fn v6_be(words: [u32; 4]) -> Self {
        let [a, b, c, d] = [
            words[0].to_ne_bytes(),
            words[1].to_ne_bytes(),
            words[2].to_ne_bytes(),
            words[3].to_ne_bytes(),
        ];
        Self {
            octets: [
                a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], //
                c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
            ],
        }
    }

    /// The four words of the address, each in network byte order.
    #[inline(always)]
    pub const fn words_be(&self) -> [u32; 4] {
        let o = &self.octets;
        [
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ]
    }

    /// True for mapped IPv4 addresses.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let words = self.words_be();
        words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
    }

    /// True for `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let words = self.words_be();
        words[0] | words[1] | words[2] | words[3] == 0
    }

    /// True for 127.0.0.0/8 and `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return self.octets[12] == 127;
        }
        let words = self.words_be();
        words[0] | words[1] | words[2] == 0 && words[3] == 1_u32.to_be()
    }

    /// True where a connection never leaves the pod, or leads to something that only this link
    /// knows: loopback, `0.0.0.0` and `::` (which mean the host itself), link-local, multicast.
    #[inline(always)]
    pub const fn is_never_meshed(&self) -> bool {
        let o = &self.octets;
        if self.is_loopback() || self.is_unspecified() {
            return true;
        }
        if self.is_v4() {
            return o[12] == 0 || o[12] >= 224 || (o[12] == 169 && o[13] == 254);
        }
        o[0] == 0xff || (o[0] == 0xfe && (o[1] & 0xc0) == 0x80)
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
            Err(_) => Addr {
                octets: text.parse::<Ipv6Addr>().unwrap().octets(),
            },
        }
    }

    #[test]
    fn words_round_trip() {
        for text in ["10.1.2.3", "2001:db8::1", "::", "::1", "fe80::1:2"] {
            let a = addr(text);
            assert_eq!(Addr::v6_be(a.words_be()), a, "{text}");
        }
        assert_eq!(
            Addr::v4_be(u32::from_ne_bytes([10, 1, 2, 3])),
            addr("10.1.2.3")
        );
    }

    #[test]
    fn only_addresses_that_may_lead_to_a_workload_are_meshable() {
        let never: Vec<_> = "127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 \
             255.255.255.255 :: ::1 fe80::1 febf::1 ff02::1"
            .split_whitespace()
            .filter(|text| !addr(text).is_never_meshed())
            .collect();
        assert!(never.is_empty(), "meshable: {never:?}");
        let ever: Vec<_> =
            "10.0.0.1 169.253.0.1 223.255.255.255 1.2.3.4 2001:db8::1 fd00::1 fec0::1"
                .split_whitespace()
                .filter(|text| addr(text).is_never_meshed())
                .collect();
        assert!(ever.is_empty(), "not meshable: {ever:?}");
    }
}
