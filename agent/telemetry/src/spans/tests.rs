//! Spans on their way to receivers that speak both protocols, and read them with the official messages.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

use super::{metrics::Loss, *};

/// More than any of it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

impl Directory for Nobody {
    fn addresses(&self, _: &str, _: u16) -> Option<Vec<SocketAddr>> {
        None
    }

    fn tls(&self, _: &'static [&'static [u8]]) -> Result<Arc<ClientConfig>, String> {
        Err("there are no certificates here".to_owned())
    }
}

/// One answer: HTTP's status, gRPC's, and how many spans are not taken.
type Plan = (u16, u16, i64);

/// A receiver that answers as planned, and then well.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    _runtime: Runtime,
}

impl Receiver {
    fn open(protocol: Protocol, plans: &[Plan]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let plans = Arc::new(Mutex::new(VecDeque::from(plans.to_vec())));
        runtime.spawn(serve(listener, protocol, Arc::clone(&heard), plans));
        Self { address, heard, _runtime: runtime }
    }

    fn spans(&self, protocol: Protocol) -> Spans {
        let endpoint = Endpoint::parse(&format!("http://{}", self.address), protocol).unwrap();
        Spans::start(endpoint, Arc::new(Nobody)).unwrap()
    }
}

async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    heard: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    plans: Arc<Mutex<VecDeque<Plan>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (heard, plans) = (Arc::clone(&heard), Arc::clone(&plans));
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (heard, plans) = (Arc::clone(&heard), Arc::clone(&plans));
            async move {
                let grpc = protocol == Protocol::Grpc;
                let path = request.uri().path().to_owned();
                assert_eq!(path, if grpc { otlp::METHOD } else { "/v1/traces" });
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let message = if grpc { body.slice(5..) } else { body.clone() };
                if grpc {
                    let length = (message.len() as u32).to_be_bytes();
                    assert_eq!(body[..5], [&[0][..], &length].concat());
                }
                heard.lock().unwrap().push(ExportTraceServiceRequest::decode(message).unwrap());
                let plan = plans.lock().unwrap().pop_front().unwrap_or((200, 0, 0));
                Ok::<_, Infallible>(answer(grpc, plan))
            }
        });
        let io = TokioIo::new(stream);
        tokio::spawn(async move {
            // The client's end of it is what is tested.
            let _ = match protocol {
                Protocol::Http => http1::Builder::new().serve_connection(io, service).await,
                Protocol::Grpc => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
            };
        });
    }
}

/// Frames that are there already.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn answer(grpc: bool, (status, grpc_status, rejected): Plan) -> Response<Frames> {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, ..Default::default() };
    let message = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let mut frames = VecDeque::new();
    if grpc {
        let mut framed = BytesMut::from(&[0][..]);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        frames.push_back(Frame::data(framed.freeze()));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", grpc_status.into());
        frames.push_back(Frame::trailers(trailers));
    } else {
        frames.push_back(Frame::data(message.into()));
    }
    let response = Response::builder().status(status).header("retry-after", "0");
    response.body(Frames(frames)).unwrap()
}

fn span(number: u8) -> Span {
    Span {
        resource: Arc::new(Resource(vec![(
            "service.name".into(),
            format!("s{}", number % 2).into(),
        )])),
        trace_id: TraceId::new([number; 16]).unwrap(),
        span_id: SpanId::new([number; 8]).unwrap(),
        parent: (number > 1).then(|| SpanId::new([1; 8]).unwrap()),
        state: "a=b".to_owned(),
        name: "cart:80/*".to_owned(),
        kind: SpanKind::Client,
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        end: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_007),
        attributes: vec![
            ("n".into(), 7.into()),
            ("b".into(), true.into()),
            ("t".into(), "x".into()),
        ],
        events: vec![Event {
            time: SystemTime::UNIX_EPOCH,
            name: "retry".into(),
            attributes: vec![],
        }],
        error: (number == 2).then(|| "UF".to_owned()),
    }
}

#[test]
fn messages_are_read_as_they_were_meant() {
    let bytes = otlp::request(vec![span(1), span(2), span(3)]);
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let groups = &request.resource_spans;
    assert_eq!(groups.len(), 2, "spans of one workload stand together");
    let name = |index: usize| groups[index].resource.as_ref().unwrap().attributes[0].clone();
    assert_eq!(name(0).key, "service.name");
    let odd = &groups[0].scope_spans[0].spans;
    assert_eq!((odd.len(), groups[1].scope_spans[0].spans.len()), (2, 1));
    let (first, third) = (&odd[0], &odd[1]);
    assert_eq!((first.trace_id.as_slice(), first.span_id.as_slice()), (&[1; 16][..], &[1; 8][..]));
    assert!(first.parent_span_id.is_empty() && first.status.is_none());
    assert_eq!(third.parent_span_id, [1; 8]);
    assert_eq!(
        (first.kind, first.name.as_str(), first.trace_state.as_str()),
        (3, "cart:80/*", "a=b")
    );
    assert_eq!(
        (first.start_time_unix_nano, first.end_time_unix_nano),
        (1_000_000_000, 1_000_000_007)
    );
    assert_eq!((first.flags, third.flags), (0x101, 0x301));
    let text = format!("{:?}", first.attributes);
    assert!(text.contains("IntValue(7)") && text.contains("BoolValue(true)"), "{text}");
    assert_eq!(first.events[0].name, "retry");
    let status = groups[1].scope_spans[0].spans[0].status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "UF"));
    assert_eq!(groups[0].scope_spans[0].scope.as_ref().unwrap().name, "undermesh");
}

/// Sends three spans to a receiver that answers like this; what counted as exported, and as lost for `reason`.
fn counted(protocol: Protocol, plans: &[Plan], reason: Loss) -> (u64, u64, usize) {
    let receiver = Receiver::open(protocol, plans);
    let spans = receiver.spans(protocol);
    (1..=3).for_each(|number| spans.record(span(number)));
    // Attempts are not cut short: the queue is closed when the batch has gone its way.
    let began = std::time::Instant::now();
    while spans.metrics.read(reason) == (0, 0) && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(spans.close(PATIENCE));
    let (exported, lost) = spans.metrics.read(reason);
    let asked = receiver.heard.lock().unwrap().len();
    (exported, lost, asked)
}

#[test]
fn what_a_receiver_takes_is_exported_over_both_protocols() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        assert_eq!(counted(protocol, &[], Loss::Rejected), (3, 0, 1), "{protocol:?}");
        let partly = counted(protocol, &[(200, 0, 2)], Loss::Rejected);
        assert_eq!(partly, (1, 2, 1), "{protocol:?}: two were not wanted");
    }
}

#[test]
fn a_receiver_without_time_is_asked_again_and_one_that_refuses_is_not() {
    for (protocol, busy, no) in [
        (Protocol::Grpc, (200, 14, 0), (200, 3, 0)),
        (Protocol::Grpc, (503, 0, 0), (401, 0, 0)),
        (Protocol::Http, (503, 0, 0), (400, 0, 0)),
        (Protocol::Http, (429, 0, 0), (404, 0, 0)),
    ] {
        assert_eq!(counted(protocol, &[busy, busy], Loss::Unavailable), (3, 0, 3), "{busy:?}");
        assert_eq!(counted(protocol, &[busy; 3], Loss::Unavailable), (0, 3, 3), "{busy:?}");
        assert_eq!(counted(protocol, &[no], Loss::Rejected), (0, 3, 1), "{no:?}");
    }
}

#[test]
fn without_a_receiver_spans_are_lost_and_nobody_waits() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = Endpoint::parse(&format!("http://{free}"), Protocol::Grpc).unwrap();
    let spans = Spans::start(endpoint, Arc::new(Nobody)).unwrap();
    // More than the queue, a batch, and what the sender may take meanwhile.
    let all = (QUEUE * 2) as u64;
    (0..all).for_each(|_| spans.record(span(1)));
    let (_, full) = spans.metrics.read(Loss::QueueFull);
    assert!(full > 0, "the queue has no bound");
    assert!(spans.close(PATIENCE), "the end waits for a receiver that is not there");
    let lost: u64 = [Loss::QueueFull, Loss::Unavailable, Loss::Shutdown]
        .map(|reason| spans.metrics.read(reason).1)
        .iter()
        .sum();
    assert_eq!(lost, all);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_others_unless_it_is_full() {
    for (spans_of_it, waited) in [(BATCH - 1, 1000), (BATCH, 100)] {
        let (sender, queue) = mpsc::channel(QUEUE);
        let spans = Spans::new(sender, channel().1);
        let endpoint = Endpoint::parse("http://127.0.0.1:1", Protocol::Grpc).unwrap();
        let (enough, closing) = (Arc::clone(&spans.enough), spans.closing.subscribe());
        let client = Client::new(endpoint, Arc::new(Nobody));
        let mut exporter = Exporter::new(queue, enough, closing, client, spans.metrics.clone());
        spans.record(span(1));
        let began = tokio::time::Instant::now();
        let (batch, ()) = tokio::join!(exporter.next(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (1..spans_of_it).for_each(|_| spans.record(span(1)));
        });
        assert_eq!(batch.len(), spans_of_it);
        // The clock is the test's own, and as coarse as timers are.
        let least = Duration::from_millis(waited);
        let waited = began.elapsed();
        assert!((least..least + Duration::from_millis(2)).contains(&waited), "{waited:?}");
    }
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let receiver = Receiver::open(Protocol::Http, &[]);
    let spans = receiver.spans(Protocol::Http);
    (0..1200).for_each(|_| spans.record(span(1)));
    assert!(spans.close(PATIENCE));
    assert_eq!(spans.metrics.read(Loss::Shutdown), (1200, 0));
    assert!(receiver.heard.lock().unwrap().len() >= 3, "in batches");
}
