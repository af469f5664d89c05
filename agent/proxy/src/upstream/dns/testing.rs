//! A small DNS server on loopback, over UDP.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle};

/// What the server says about a name.
#[derive(Clone)]
pub(crate) enum Says {
    /// These addresses, for so many seconds.
    Are(Vec<IpAddr>, u32),
    /// Anything but an answer.
    Error(ResponseCode),
}

/// Answers until it is dropped.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Says>>>,
    /// Questions for IPv4 addresses that were answered.
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<HashMap<String, Says>>>::default();
        let (count, asked) = watch::channel(0);
        let served = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let v4 = question.queries[0].query_type() == RecordType::A;
                let answer = answer(question, &served.lock().unwrap());
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
                count.send_modify(|count| *count += usize::from(v4));
            }
        });
        Self { address, zone, asked, task }
    }

    /// From now on, `name` has these addresses.
    pub(crate) fn are(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.says(name, Says::Are(addresses, ttl));
    }

    /// From now on, this is said about `name`.
    pub(crate) fn says(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(format!("{name}."), says);
    }

    /// How many questions for IPv4 addresses were answered.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(question: Message, zone: &HashMap<String, Says>) -> Message {
    let query = question.queries[0].clone();
    let mut answer = question.into_response();
    answer.additionals.clear();
    match zone.get(&query.name().to_string()) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Says::Error(code)) => answer.metadata.response_code = *code,
        Some(Says::Are(addresses, ttl)) => {
            for address in addresses {
                let data = RData::from(*address);
                if data.record_type() == query.query_type() {
                    answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, data));
                }
            }
        }
    }
    answer
}
