//! TCP, TLS and HTTP, and the way of a request to its answer.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Arc, PoisonError},
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    ApiServer, REMEMBERED, Shared,
    answer::{self, Body, Refusal},
    call::Call,
    discovery, forward, patch, read,
    resource::Resource,
    watch as watches, write,
};

/// The server's certificate.
#[derive(Clone)]
pub(super) struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Makes an authority, writes its root to `ca.crt`, and a certificate for these addresses.
    pub(super) fn new(dir: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        std::fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let all = loopback.iter().chain(addresses);
        params.subject_alt_names.extend(all.map(|address| SanType::IpAddress(*address)));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Serves until it is told to stop; all connections end with it.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(Arc::clone(&shared), stream));
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    match shared.tls.clone() {
        Some(Tls(acceptor)) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                exchange(shared, stream).await;
            }
        }
        None => exchange(shared, stream).await,
    }
}

async fn exchange(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(shared, request).await) }
    });
    // How a connection ends is for the client to judge.
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = served.with_upgrades().await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let call = Call::new(request.method(), path, query, request.headers(), Bytes::new());
    if forward::is_meant(&call) {
        return forwarded(&shared, call, request).await;
    }
    let Ok(body) = request.into_body().collect().await else {
        return answer::refuse(&Refusal::bad("the content is not complete"));
    };
    let call = Call { body: body.to_bytes(), ..call };
    note(&shared, &call);
    let latency = shared.faults().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match admit_and_answer(shared, call).await {
        Ok(response) => response,
        Err(refusal) => answer::refuse(&refusal),
    }
}

async fn forwarded(shared: &Arc<Shared>, call: Call, request: Request<Incoming>) -> Response<Body> {
    note(shared, &call);
    if shared.tokens().bearer(&call.token).is_none() {
        return answer::refuse(&Refusal::new(401, "Unauthorized", "Unauthorized"));
    }
    let met = shared.faults().meet(&call);
    let started = match met {
        Some(refusal) => Err(refusal),
        None => {
            let headers = request.headers().clone();
            forward::start(shared, call, &headers, request).await
        }
    };
    started.unwrap_or_else(|refusal| answer::refuse(&refusal))
}

fn note(shared: &Shared, call: &Call) {
    let mut calls = shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
    if calls.len() < REMEMBERED {
        calls.push(call.clone());
    }
}

async fn admit_and_answer(shared: Arc<Shared>, call: Call) -> Result<Response<Body>, Refusal> {
    if matches!(call.path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return Ok(Response::new(answer::full("ok")));
    }
    if shared.tokens().bearer(&call.token).is_none() {
        return Err(Refusal::new(401, "Unauthorized", "Unauthorized"));
    }
    if let Some(refusal) = shared.faults().meet(&call) {
        return Err(refusal);
    }
    if call.verb == "watch" {
        let resource = resource(&shared, &call)?;
        return watches::start(&shared, &call, &resource);
    }
    // Hooks may block, and may call this very server.
    let answered = tokio::task::spawn_blocking(move || object(&shared, &call)).await;
    let failed = |_| Refusal::new(500, "InternalError", "a hook has panicked");
    let (code, value) = answered.map_err(failed)??;
    // A hook's page of a pod is no object.
    if let Value::String(text) = value {
        return Ok(Response::new(answer::full(text)));
    }
    Ok(answer::json(code, &value))
}

fn resource(shared: &Shared, call: &Call) -> Result<Resource, Refusal> {
    let store = shared.store();
    let found = store.resource(&call.group, &call.version, &call.plural).cloned();
    found.ok_or_else(Refusal::no_such_page)
}

/// Everything but watches.
fn object(shared: &Arc<Shared>, call: &Call) -> Result<(u16, Value), Refusal> {
    let server = ApiServer::of(shared);
    let hooks = shared.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(answered) = hooks.iter().find_map(|hook| hook.answer(&server, call)) {
        return answered;
    }
    if call.plural.is_empty() {
        let page = discovery::page(&call.path, &shared.store().resources);
        return page.ok_or_else(Refusal::no_such_page)?.map(|page| (200, page));
    }
    if let Some(answered) = shared.tokens().answer(call) {
        return answered;
    }
    let resource = resource(shared, call)?;
    if !matches!(call.subresource.as_str(), "" | "status") {
        return Err(Refusal::no_such_page());
    }
    match call.verb.as_str() {
        "get" => read::get(&shared.store(), call, &resource).map(|object| (200, object)),
        "list" => read::list(&shared.store(), call, &resource).map(|list| (200, list)),
        "delete" => shared.write(|store| write::delete(store, call, &resource)).map(|it| (200, it)),
        "deletecollection" => {
            shared.write(|store| write::delete_all(store, call, &resource)).map(|it| (200, it))
        }
        "create" | "update" | "patch" => {
            let mut object = call.object()?;
            hooks.iter().try_for_each(|hook| hook.admit(&server, call, &mut object))?;
            if call.param("dryRun") == "All" {
                return Ok((200, object));
            }
            let call = &Call { body: object.to_string().into(), ..call.clone() };
            shared.write(|store| match call.verb.as_str() {
                "create" => write::create(store, call, &resource, object).map(|it| (201, it)),
                "update" => write::update(store, call, &resource, object).map(|it| (200, it)),
                _ => patch::patch(store, call, &resource),
            })
        }
        verb => {
            let status = json!({"verb": verb});
            let refusal = Refusal::new(405, "MethodNotAllowed", "the server does not allow this");
            Err(Refusal { details: status, ..refusal })
        }
    }
}
