//! Envoy's response flags, which Istio's metrics and access logs carry.

use std::{borrow::Cow, fmt};

/// Why an answer is not the endpoint's, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// No route.
    NoRoute,
    /// No endpoint that may be used.
    NoHealthyUpstream,
    /// A limit was reached.
    Overflow,
    /// No connection to the endpoint.
    ConnectionFailure,
    /// The endpoint broke the connection.
    ConnectionTermination,
    /// The endpoint's answer took too long.
    Timeout,
    /// All retries failed.
    RetryLimit,
    /// A delay was injected.
    Delay,
    /// The answer was injected.
    Fault,
    /// The client left before the answer was complete.
    ClientGone,
    /// The client's bytes are no request.
    ProtocolError,
    /// Policy says no.
    Denied,
    /// Policy says not so much.
    RateLimited,
    /// The node's proxy is overloaded.
    Overloaded,
    /// The client let its request's body stand still.
    StreamIdle,
}

impl ResponseFlag {
    /// All of them, in the order in which they are written.
    const ALL: [Self; 15] = [
        Self::NoHealthyUpstream,
        Self::ConnectionFailure,
        Self::Overflow,
        Self::NoRoute,
        Self::RetryLimit,
        Self::ConnectionTermination,
        Self::Timeout,
        Self::ClientGone,
        Self::Delay,
        Self::Fault,
        Self::Denied,
        Self::ProtocolError,
        Self::RateLimited,
        Self::StreamIdle,
        Self::Overloaded,
    ];

    /// As `%RESPONSE_FLAGS%` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoHealthyUpstream => "UH",
            Self::Overflow => "UO",
            Self::ConnectionFailure => "UF",
            Self::ConnectionTermination => "UC",
            Self::Timeout => "UT",
            Self::RetryLimit => "URX",
            Self::Delay => "DI",
            Self::Fault => "FI",
            Self::ClientGone => "DC",
            Self::ProtocolError => "DPE",
            Self::Denied => "UAEX",
            Self::RateLimited => "RL",
            Self::Overloaded => "OM",
            Self::StreamIdle => "SI",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The flags of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u16);

impl ResponseFlags {
    /// Adds one.
    pub fn insert(&mut self, flag: ResponseFlag) {
        self.0 |= flag.bit();
    }

    /// Whether it is among them.
    pub fn contains(self, flag: ResponseFlag) -> bool {
        self.0 & flag.bit() != 0
    }

    /// As metrics and the access log have them: `DI,UT`; `-` for none.
    pub fn text(self) -> Cow<'static, str> {
        if self.0 == 0 { Cow::Borrowed("-") } else { Cow::Owned(self.to_string()) }
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        let flags = ResponseFlag::ALL.into_iter().filter(|flag| self.contains(*flag));
        for (index, flag) in flags.enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(flag.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_once_and_in_one_order() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.text(), "-");
        for flag in [ResponseFlag::Delay, ResponseFlag::Timeout, ResponseFlag::Delay] {
            flags.insert(flag);
        }
        assert_eq!(flags.text(), "UT,DI");
        for flag in ResponseFlag::ALL {
            flags.insert(flag);
        }
        assert_eq!(flags.text(), "UH,UF,UO,NR,URX,UC,UT,DC,DI,FI,UAEX,DPE,RL,SI,OM");
    }
}
