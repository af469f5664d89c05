//! A DNS server over UDP whose records change at a word.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record},
};

use crate::netns::Netns;

/// How often the server looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(100);
/// Longest question.
const LONGEST: usize = 1500;

/// Addresses by full name; `None` for a server that fails.
type Zone = Option<BTreeMap<String, Vec<IpAddr>>>;

/// Answers until it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    zone: Arc<Mutex<Zone>>,
    ended: Arc<AtomicBool>,
}

impl DnsServer {
    /// Serves at an address of a namespace.
    ///
    /// # Errors
    /// Where it cannot listen there.
    pub fn start(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let socket = netns.run(|| UdpSocket::bind(at))?.context("no DNS server")?;
        socket.set_read_timeout(Some(STEP))?;
        let zone = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let ended = Arc::new(AtomicBool::new(false));
        let (served, stop) = (Arc::clone(&zone), Arc::clone(&ended));
        thread::spawn(move || serve(&socket, &served, &stop));
        Ok(Self { zone, ended })
    }

    /// From now on, a name has these addresses, for no longer than it takes to say so.
    pub fn are(&self, name: &str, addresses: &[IpAddr]) {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.get_or_insert_default().insert(format!("{name}."), addresses.to_vec());
    }

    /// From now on, every answer is that the server has failed.
    pub fn fail(&self) {
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>, ended: &AtomicBool) {
    let mut buffer = [0; LONGEST];
    while !ended.load(Ordering::Relaxed) {
        let (length, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let zone = zone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Ok(text)) = answer(question, zone.as_ref()).map(|answer| answer.to_vec()) {
            // Whoever asks, asks again.
            let _ = socket.send_to(&text, peer);
        }
    }
}

fn answer(question: Message, zone: Option<&BTreeMap<String, Vec<IpAddr>>>) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let mut answer = question.into_response();
    answer.additionals.clear();
    let Some(zone) = zone else {
        answer.metadata.response_code = ResponseCode::ServFail;
        return Some(answer);
    };
    let Some(addresses) = zone.get(&query.name().to_string()) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return Some(answer);
    };
    for address in addresses {
        let data = RData::from(*address);
        if data.record_type() == query.query_type() {
            answer.add_answer(Record::from_rdata(query.name().clone(), 0, data));
        }
    }
    Some(answer)
}
