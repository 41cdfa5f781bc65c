//! HTTP/1.1 over this runtime's streams: hyper with our sockets, tasks and timers.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{Request, Response, body::Incoming, service::Service};
use send_wrapper::SendWrapper;

use crate::{
    net::{HyperStream, Stream},
    time,
};

/// How long a client may take to send its request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection until it ends. Errors of the peer end the connection and are returned in words.
pub async fn serve<S, B>(stream: Stream, service: S) -> Result<(), hyper::Error>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    hyper::server::conn::http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(HyperStream::new(stream), service)
        .await
}

#[derive(Clone, Copy)]
struct Timer;

struct Sleep(SendWrapper<Pin<Box<dyn Future<Output = ()>>>>);

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        // hyper's trait asks for Send and Sync, but a connection never leaves its shard; the wrapper would panic if it did.
        Box::pin(Sleep(SendWrapper::new(Box::pin(time::sleep_until(deadline)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, net::Listener, run_control, spawn};
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;

    #[test]
    fn answers_a_request_over_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        run_control(async {
            let listener = Listener::unix(&path).unwrap();
            let server = spawn(Class::Maintenance, "http", async move {
                let stream = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                        request.uri().path().to_owned(),
                    ))))
                });
                serve(stream, service).await.unwrap();
            });
            let client = path.clone();
            let answer = crate::blocking(move || {
                use std::io::{Read, Write};
                let mut stream = std::os::unix::net::UnixStream::connect(client).unwrap();
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    .unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            })
            .await
            .unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("/healthz"),
                "{answer}"
            );
            server.await.unwrap();
        })
        .unwrap();
    }
}
