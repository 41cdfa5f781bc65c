//! HTTP/1.1 over this runtime's streams: hyper with our sockets, tasks and timers.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use hyper::{
    Request, Response,
    body::Incoming,
    service::{Service, service_fn},
};
use send_wrapper::SendWrapper;

use crate::{
    net::{HyperStream, Stream},
    time,
};

/// What one connection may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's head, and of everything else that waits to be read or written. A longer head is answered 431.
    pub buffer_bytes: usize,
    /// Headers of a request; more are answered 431.
    pub headers: usize,
    /// How long a new connection may take until its first request is whole.
    pub first_request: Duration,
    /// How long a connection may take until its next request is whole; it is closed then.
    pub idle: Duration,
    /// How long a peer may take none of what is written to it; the connection is ended then.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffer_bytes: 64 << 10,
            headers: 128,
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
        }
    }
}

/// Why a connection ended, other than by its end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer did something else than HTTP, vanished, or was too slow.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Nothing came.
    #[error("no request came")]
    Silent,
}

/// Serves one connection until it ends.
pub async fn serve<S, B>(stream: Stream, service: S, limits: Limits) -> Result<(), ServeError>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let heard = Rc::new(Cell::new(false));
    let service = service_fn(|request| {
        heard.set(true);
        service.call(request)
    });
    let stream = Patient {
        stream: HyperStream::new(stream),
        stall: limits.stall,
        waiting: None,
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer)
        .max_buf_size(limits.buffer_bytes)
        .max_headers(limits.headers)
        .header_read_timeout(limits.idle)
        .serve_connection(stream, service);
    let silence = async {
        time::sleep(limits.first_request).await;
        if heard.get() {
            std::future::pending::<()>().await;
        }
    };
    match select(pin!(connection), pin!(silence)).await {
        Either::Left((ended, _)) => Ok(ended?),
        Either::Right(((), _)) => Err(ServeError::Silent),
    }
}

/// A stream whose writes fail once the peer has taken nothing for too long: a reader that stands still would hold its place for ever.
struct Patient {
    stream: HyperStream,
    stall: Duration,
    /// Set while a write waits.
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Patient {
    fn wait<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(time::sleep(stall)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl hyper::rt::Read for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wait(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.wait(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wait(cx, closed)
    }
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

    /// What a client that writes `sent` reads back until the server closes, and how that ended.
    fn exchange(
        limits: Limits,
        answer: usize,
        client: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static,
    ) -> Result<(), ServeError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        run_control(async {
            let listener = Listener::unix(&path).unwrap();
            let server = spawn(Class::Maintenance, "http", async move {
                let stream = listener.accept().await.unwrap();
                let service = service_fn(|_: Request<Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; answer]))))
                });
                serve(stream, service, limits).await
            });
            let client = crate::blocking(move || client(std::os::unix::net::UnixStream::connect(path).unwrap()));
            client.await.unwrap();
            server.await.unwrap()
        })
        .unwrap()
    }

    fn quick() -> Limits {
        Limits {
            first_request: Duration::from_millis(300),
            idle: Duration::from_secs(2),
            stall: Duration::from_millis(500),
            ..Limits::default()
        }
    }

    fn read_all(mut stream: std::os::unix::net::UnixStream) -> String {
        use std::io::Read;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn who_says_nothing_or_half_a_head_is_closed() {
        let ended = exchange(quick(), 0, |stream| assert_eq!(read_all(stream), ""));
        assert!(matches!(ended, Err(ServeError::Silent)), "{ended:?}");
        let ended = exchange(quick(), 0, |mut stream| {
            use std::io::Write;
            stream.write_all(b"GET / HTTP/1.1\r\nhost:").unwrap();
            read_all(stream);
        });
        assert!(matches!(ended, Err(ServeError::Silent)), "{ended:?}");
    }

    #[test]
    fn who_takes_nothing_of_an_answer_is_closed() {
        let ended = exchange(quick(), 64 << 20, |mut stream| {
            use std::io::Write;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            std::thread::sleep(Duration::from_secs(2));
        });
        assert!(matches!(ended, Err(ServeError::Http(_))), "{ended:?}");
    }

    #[test]
    fn a_head_beyond_the_limits_is_refused() {
        let refused = |head: String, silent: bool| {
            let ended = exchange(quick(), 0, move |mut stream| {
                use std::io::Write;
                let _ = stream.write_all(head.as_bytes());
                let answer = read_all(stream);
                // What is left unread when the server closes may take the answer with it.
                assert!(
                    answer.starts_with("HTTP/1.1 431") || (silent && answer.is_empty()),
                    "{answer}"
                );
            });
            assert!(matches!(ended, Err(ServeError::Http(_))), "{ended:?}");
        };
        refused(format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), false);
        refused(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)), true);
    }

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
                serve(stream, service, Limits::default()).await.unwrap();
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
