//! The programs' reports, read from the ring buffer.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use undermesh_ebpf_common::{ConnEvent, Reason, event_kind};
use undermesh_snapshot::ip;
use zerocopy::FromBytes;

use crate::{DatapathError, sys};

/// How often the buffer is looked at unasked: reports of local connections wake nobody.
const LOOK: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connection between two pods of this node was opened.
    Local,
    /// `connect` was refused.
    Refused,
    /// An inbound connection was dropped.
    Dropped,
    /// A connection between two pods of this node has ended.
    LocalClosed,
    /// An application of a pod has begun or ceased to listen.
    Listening,
    /// A connection to the mesh was let through the startup gate.
    GatedOpen,
}

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// What happened.
    pub kind: EventKind,
    /// Why.
    pub reason: Reason,
    /// The client pod, for outbound reports.
    pub netns_cookie: Option<u64>,
    /// The source, where the kernel knew it.
    pub source: Option<SocketAddr>,
    /// The destination as the application dialled it, or as the packet carried it.
    pub destination: SocketAddr,
    /// The pod that a local connection was led to.
    pub backend: Option<SocketAddr>,
    /// For what the startup gate has held up or let through: the cgroup that it belongs to.
    pub cgroup: Option<u64>,
    /// Of the client's socket, the same in both reports of a local connection.
    pub socket_cookie: u64,
    /// What a local connection has carried, at its end.
    pub traffic: Traffic,
}

/// What a local connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from client to server.
    pub received: u64,
    /// Bytes from server to client.
    pub sent: u64,
    /// From opening to end.
    pub duration: Duration,
    /// Smoothed round-trip time at the end.
    pub round_trip: Duration,
}

impl ConnectionEvent {
    /// Reads a record of the ring buffer; `None` for one of another ABI.
    fn parse(record: &[u8]) -> Option<Self> {
        let (event, _) = ConnEvent::read_from_prefix(record).ok()?;
        let kind = match event.kind {
            event_kind::LOCAL => EventKind::Local,
            event_kind::REFUSED => EventKind::Refused,
            event_kind::DROPPED => EventKind::Dropped,
            event_kind::LOCAL_CLOSED => EventKind::LocalClosed,
            event_kind::LISTENING => EventKind::Listening,
            event_kind::GATED_OPEN => EventKind::GatedOpen,
            _ => return None,
        };
        Some(Self {
            kind,
            reason: *Reason::ALL.get(event.reason as usize)?,
            netns_cookie: (event.netns_cookie != 0).then_some(event.netns_cookie),
            source: known(ip(event.source), event.source_port_be),
            destination: SocketAddr::new(
                ip(event.destination),
                u16::from_be(event.destination_port_be),
            ),
            backend: known(ip(event.backend), event.backend_port_be),
            cgroup: (event.cgroup != 0).then_some(event.cgroup),
            socket_cookie: event.socket_cookie,
            traffic: Traffic {
                received: event.bytes_received,
                sent: event.bytes_sent,
                duration: Duration::from_nanos(event.duration_ns),
                round_trip: Duration::from_micros(event.rtt_us.into()),
            },
        })
    }
}

fn known(ip: IpAddr, port_be: u16) -> Option<SocketAddr> {
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, u16::from_be(port_be)))
}

/// The stream of reports. What the buffer could not take is counted under `event_lost`. The
/// buffer has one reader: while another agent takes over, this one stops reading.
pub struct Events {
    ring: Option<RingBuf<MapData>>,
}

impl Events {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring: Some(ring) }
    }

    /// Hands every report to `sink`, until `stop` is ready. May be run again afterwards.
    ///
    /// # Errors
    /// Where the ring buffer cannot be polled.
    pub async fn run(
        &mut self,
        mut sink: impl FnMut(ConnectionEvent),
        stop: impl Future<Output = ()>,
    ) -> Result<(), DatapathError> {
        let failed = |error: std::io::Error| DatapathError::map("poll", "EVENTS")(error);
        let Some(ring) = self.ring.take() else { return Ok(()) };
        let mut ring = sys::async_fd(ring, Interest::READABLE).map_err(failed)?;
        let mut stop = pin!(stop);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ready = ring.readable_mut() => ready.map_err(failed)?.clear_ready(),
                _ = ticks.tick() => {}
                () = &mut stop => break,
            }
            while let Some(record) = ring.get_mut().next() {
                if let Some(event) = ConnectionEvent::parse(&record) {
                    sink(event);
                }
            }
        }
        self.ring = Some(ring.into_inner());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use undermesh_ebpf_common::Addr;
    use zerocopy::IntoBytes;

    use super::*;

    fn event(kind: u32, reason: u32) -> ConnEvent {
        ConnEvent {
            netns_cookie: 7,
            destination: Addr::v4([10, 0, 0, 1]),
            destination_port_be: 80u16.to_be(),
            duration_ns: 1_000_000,
            kind,
            reason,
            ..ConnEvent::empty()
        }
    }

    #[test]
    fn a_record_becomes_an_event() {
        let raw = event(event_kind::REFUSED, Reason::NoEndpoint as u32);
        let parsed = ConnectionEvent::parse(raw.as_bytes()).unwrap();
        assert_eq!(parsed.reason, Reason::NoEndpoint);
        assert_eq!(parsed.destination, "10.0.0.1:80".parse().unwrap());
        assert_eq!((parsed.source, parsed.netns_cookie), (None, Some(7)));
        assert_eq!(parsed.traffic.duration, Duration::from_millis(1));
    }

    #[test]
    fn short_and_foreign_records_are_left_out() {
        assert_eq!(ConnectionEvent::parse(&[0; 12]), None);
        assert_eq!(ConnectionEvent::parse(event(99, 0).as_bytes()), None);
        assert_eq!(ConnectionEvent::parse(event(1, 4_000).as_bytes()), None);
    }
}
