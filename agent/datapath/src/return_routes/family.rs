//! One rule and one route of one address family, in the network namespace of the calling thread.

use std::{io, net::IpAddr};

use super::DELIVERY_MARK;
use crate::netlink::{Body, CREATE, DUMP, Netlink, Protocol};

/// Number of the table, and what our rules and routes say that they were made by.
const TABLE: u32 = 0x756d;
const MADE_BY: u8 = 117;
/// Before everything but the table of the host's own addresses.
const PRIORITY: u32 = 1;
const LOOPBACK_INDEX: u32 = 1;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

/// Where `struct fib_rule_hdr` and `struct rtmsg` have the table and what follows it.
const AT_TABLE: usize = 4;
const AT_PROTOCOL: usize = 5;
const AT_TYPE: usize = 7;
const TO_TABLE: u8 = 1;
const LOCAL: u8 = 2;
const SCOPE_HOST: u8 = 254;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The families of these addresses.
    pub(super) fn of(addresses: &[IpAddr]) -> Vec<Self> {
        let has = |v4: bool| addresses.iter().any(|address| address.is_ipv4() == v4);
        [(Self::V4, has(true)), (Self::V6, has(false))]
            .into_iter()
            .filter_map(|(family, there)| there.then_some(family))
            .collect()
    }

    /// Looks for others' use of our mark and of our table.
    pub(super) fn check(self) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot read the {} rules: {error}", self.name());
        let mut netlink = Netlink::open(Protocol::Routes).map_err(failed)?;
        let all = Body::new([self.number(), 0, 0, 0, 0, 0, 0, 0]);
        for rule in netlink.ask(RTM_GETRULE, DUMP, &all).map_err(failed)? {
            if let Some(conflict) = foreign(&rule) {
                return Err(format!(
                    "its {} rule of priority {} {conflict}; remove that rule, or deliver to this \
                     pod with source address `translated`",
                    self.name(),
                    rule.number(FRA_PRIORITY).unwrap_or(0),
                ));
            }
        }
        let routes = netlink.ask(RTM_GETROUTE, DUMP, &all).map_err(failed)?;
        let mut in_table = routes.iter().filter(|route| route.number(RTA_TABLE) == Some(TABLE));
        if in_table.any(|route| route.header(AT_PROTOCOL) != MADE_BY) {
            return Err(format!(
                "its {} routing table {TABLE} is in use; remove its routes, or deliver to this pod \
                 with source address `translated`",
                self.name()
            ));
        }
        Ok(())
    }

    /// Makes the rule and the route where they are missing, and asks the kernel whether they work.
    pub(super) fn make(self) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot add the {} route: {error}", self.name());
        let mut netlink = Netlink::open(Protocol::Routes).map_err(failed)?;
        for (kind, body) in [(RTM_NEWROUTE, self.route()), (RTM_NEWRULE, self.rule())] {
            match netlink.ask(kind, CREATE, &body) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let answers = netlink.ask(RTM_GETROUTE, 0, &self.somewhere()).map_err(failed)?;
        if answers.first().is_some_and(|route| route.header(AT_TYPE) == LOCAL) {
            return Ok(());
        }
        Err(format!(
            "another {} rule comes before the one with mark {DELIVERY_MARK:#x}; move it behind \
             priority {PRIORITY}, or deliver to this pod with source address `translated`",
            self.name()
        ))
    }

    /// Removes both; what is not there is as good.
    pub(super) fn unmake(self) -> io::Result<()> {
        let mut netlink = Netlink::open(Protocol::Routes)?;
        for (kind, body) in [(RTM_DELRULE, self.rule()), (RTM_DELROUTE, self.route())] {
            match netlink.ask(kind, 0, &body) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn rule(self) -> Body {
        Body::new([self.number(), 0, 0, 0, 0, 0, 0, TO_TABLE])
            .with_number(FRA_PRIORITY, PRIORITY)
            .with_number(FRA_FWMARK, DELIVERY_MARK)
            .with_number(FRA_FWMASK, u32::MAX)
            .with_number(FRA_TABLE, TABLE)
            .with(FRA_PROTOCOL, &[MADE_BY])
    }

    fn route(self) -> Body {
        Body::new([self.number(), 0, 0, 0, 0, MADE_BY, SCOPE_HOST, LOCAL])
            .with_number(RTA_TABLE, TABLE)
            .with_number(RTA_OIF, LOOPBACK_INDEX)
    }

    /// A question for the way to an address that nobody has (RFC 5737, RFC 3849), marked.
    fn somewhere(self) -> Body {
        let (bits, address) = match self {
            Self::V4 => (32, vec![192, 0, 2, 1]),
            Self::V6 => (128, vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        };
        Body::new([self.number(), bits, 0, 0, 0, 0, 0, 0])
            .with(RTA_DST, &address)
            .with_number(RTA_MARK, DELIVERY_MARK)
    }

    /// `AF_INET`, `AF_INET6`.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// In what way a rule of somebody else's stands in the way, if it does.
fn foreign(rule: &Body) -> Option<String> {
    if rule.number(FRA_PROTOCOL) == Some(MADE_BY.into()) {
        return None;
    }
    let table = rule.number(FRA_TABLE).unwrap_or_else(|| rule.header(AT_TABLE).into());
    if table == TABLE {
        return Some(format!("leads to table {TABLE}, which is the mesh's"));
    }
    // Marks of others that ours merely resembles are led to their tables after ours, if at all.
    (rule.number(FRA_FWMARK) == Some(DELIVERY_MARK))
        .then(|| format!("is about mark {DELIVERY_MARK:#x}, which is the mesh's"))
}

/// No such rule, no such route, or no such family.
fn is_absent(error: &io::Error) -> bool {
    const ENOENT: i32 = 2;
    const ESRCH: i32 = 3;
    const EOPNOTSUPP: i32 = 95;
    const EAFNOSUPPORT: i32 = 97;
    [ENOENT, ESRCH, EOPNOTSUPP, EAFNOSUPPORT].map(Some).contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_about_the_mark_or_the_table_are_in_the_way() {
        let plain = Body::new([2, 0, 0, 0, 254, 0, 0, TO_TABLE]);
        assert_eq!(foreign(&plain), None);
        assert_eq!(foreign(&Family::V4.rule()), None, "our own");
        assert_eq!(foreign(&plain.clone().with_number(FRA_FWMARK, 0x200)), None);
        for rule in [
            plain.clone().with_number(FRA_FWMARK, DELIVERY_MARK),
            plain.with_number(FRA_TABLE, TABLE),
        ] {
            assert!(foreign(&rule).is_some(), "{rule:?}");
        }
    }

    #[test]
    fn a_pod_needs_the_families_of_its_addresses() {
        let v4: IpAddr = [10, 0, 0, 1].into();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(Family::of(&[v4]), [Family::V4]);
        assert_eq!(Family::of(&[v6, v4]), [Family::V4, Family::V6]);
    }
}
