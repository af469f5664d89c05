//! What the source `kubernetes` of one agent is for an API server: a watch of each list, over TLS, whose bytes are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_rustls::TlsConnector;

use crate::{
    apiserver::{ApiServer, Call},
    poll::wait_for,
};

/// Marks the end of a streaming list.
const END: &[u8] = b"initial-events-end";
const WITHIN: Duration = Duration::from_secs(120);

/// Watches that are open. They end with it.
pub struct Watchers {
    counters: Arc<Counters>,
    count: usize,
    _runtime: Runtime,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    listed: AtomicUsize,
    failed: AtomicUsize,
}

impl Watchers {
    /// Opens the watches that an agent of a node has, as often as there are agents: those that `calls` has, of which
    /// that of all pods is two for an agent. Waits until all lists are complete.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn start(api: &ApiServer, calls: &[Call], agents: usize) -> Result<Self> {
        let mut requests = Vec::new();
        for call in calls.iter().filter(|call| call.verb == "watch" && call.is("sendInitialEvents"))
        {
            let selectors: &[&str] = match call.plural.as_str() {
                "pods" => &[
                    "&fieldSelector=spec.nodeName%3Dnode-0",
                    "&fieldSelector=spec.nodeName%21%3Dnode-0",
                ],
                _ => &[""],
            };
            requests.extend(selectors.iter().map(|selector| {
                format!(
                    "GET {}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true{selector} \
                     HTTP/1.1\r\nhost: localhost\r\naccept: {}\r\nauthorization: Bearer {}\r\n\r\n",
                    call.path,
                    call.accept,
                    api.token()
                )
            }));
        }
        ensure!(!requests.is_empty(), "nobody has watched anything");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(api.ca_file())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let (counters, address) = (Arc::new(Counters::default()), api.address());
        let count = requests.len() * agents;
        for request in (0..agents).flat_map(|_| requests.clone()) {
            let (counters, connector) = (Arc::clone(&counters), connector.clone());
            runtime.spawn(async move {
                let read = async {
                    let stream = TcpStream::connect(address).await?;
                    let name = ServerName::try_from("localhost")?;
                    let mut stream = connector.connect(name, stream).await?;
                    stream.write_all(request.as_bytes()).await?;
                    counters.read(&mut stream).await
                };
                if read.await.is_err() {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_for("lists to be read", WITHIN, || {
            ensure!(counters.failed.load(Ordering::Relaxed) == 0, "a watch has failed");
            Ok((counters.listed.load(Ordering::Relaxed) == count).then_some(()))
        })
        .context("watches of agents")?;
        Ok(Self { counters, count, _runtime: runtime })
    }

    /// How many watches there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes that have come, before TLS.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }
}

impl Counters {
    async fn read(&self, stream: &mut (impl AsyncReadExt + Unpin)) -> Result<()> {
        let (mut buffer, mut tail) = (vec![0; 64 << 10], Vec::new());
        let mut listed = false;
        loop {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "the server has ended a watch");
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
            if !listed {
                tail.extend_from_slice(&buffer[..read]);
                if tail.windows(END.len()).any(|part| part == END) {
                    listed = true;
                    self.listed.fetch_add(1, Ordering::Relaxed);
                }
                let keep = tail.len().saturating_sub(END.len());
                tail.drain(..keep);
            }
        }
    }
}
