//! Encrypted streams against rustls as the client: over our own streams, and over the standard library's.

use super::*;
use crate::{Class, Task, blocking, net::Listener, run_control, spawn};
use bytes::BytesMut;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use std::{fs, net::SocketAddr, net::TcpStream, os::fd::AsRawFd, time::Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A certificate with its key, in files.
struct Files {
    dir: tempfile::TempDir,
    cert: rcgen::Certificate,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cert = Self::write(dir.path());
        Self { dir, cert }
    }

    fn write(dir: &Path) -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        cert
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self) -> Result<Identity, IdentityError> {
        Identity::load(&self.path("cert.pem"), &self.path("key.pem"))
    }
}

fn client(trusted: &rcgen::Certificate, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// The two ends of an encrypted connection: server, client.
async fn pair(files: &Files) -> (Stream, Stream) {
    let identity = files.load().unwrap();
    let listener = Listener::tcp(local()).unwrap();
    let address = listener.local_addr();
    let server = spawn(Class::Live, "server", async move {
        let stream = listener.accept().await.unwrap();
        stream.accept_tls(&identity, LIMIT).await.unwrap()
    });
    let stream = Stream::connect(address, LIMIT).await.unwrap();
    let client = stream.encrypt(client(&files.cert, BOTH).into(), LIMIT).await.unwrap();
    (server.await.unwrap(), client)
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

async fn read_to_end(mut stream: Stream) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    while stream.read_into(&mut buffer).await.unwrap() > 0 {}
    buffer.to_vec()
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    let files = Files::new();
    run_control(async {
        let (server, client) = pair(&files).await;
        assert!(server.is_tls() && client.is_tls());
        let (up, down) = (noise(5 << 20), noise(7 << 20));
        let send = |stream: Stream, data: Vec<u8>| {
            spawn(Class::Live, "sender", async move {
                stream.write_all(&data).await.unwrap();
                stream.shutdown_write().unwrap();
                stream.flush().await.unwrap();
            })
        };
        let sending = [send(server.clone(), down.clone()), send(client.clone(), up.clone())];
        let at_client = spawn(Class::Live, "reader", read_to_end(client.clone()));
        assert!(read_to_end(server.clone()).await == up);
        assert!(at_client.await.unwrap() == down);
        for task in sending {
            task.await.unwrap();
        }
        assert_eq!(server.write_now(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(server.detach().err().unwrap().kind(), io::ErrorKind::Unsupported);
        assert!(client.accept_tls(&files.load().unwrap(), LIMIT).await.is_err());
    })
    .unwrap();
}

#[test]
fn a_slow_reader_stops_the_writer_and_gets_every_byte() {
    let files = Files::new();
    run_control(async {
        let (server, mut client) = pair(&files).await;
        server.set_send_buffer(64 << 10).unwrap();
        let data = noise(8 << 20);
        // Without anybody reading, only so much is accepted, and it stays so.
        let mut sent = 0;
        loop {
            let n = server.write_now(&data[sent..]).unwrap();
            sent += n;
            if n == 0 {
                break;
            }
        }
        assert!(sent < 7 << 20, "{sent}");
        assert!(server.has_pending());
        assert_eq!(server.write_now(&data[sent..]).unwrap(), 0);
        let (writer, rest) = (server.clone(), data[sent..].to_vec());
        let writing = spawn(Class::Live, "writer", async move {
            let mut rest = &rest[..];
            while !rest.is_empty() {
                match writer.write_now(rest).unwrap() {
                    0 => writer.writable().await.unwrap(),
                    n => rest = &rest[n..],
                }
            }
            writer.flush().await.unwrap();
            assert!(!writer.has_pending());
        });
        let mut buffer = BytesMut::new();
        while buffer.len() < data.len() {
            client.read_into(&mut buffer).await.unwrap();
            if buffer.len() < 1 << 20 {
                time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert!(buffer == data);
        writing.await.unwrap();
    })
    .unwrap();
}

#[test]
fn a_read_that_is_given_up_loses_nothing() {
    let files = Files::new();
    run_control(async {
        let (server, mut client) = pair(&files).await;
        let data = noise(1 << 20);
        let (writer, all) = (server.clone(), data.clone());
        let writing = spawn(Class::Live, "writer", async move {
            for piece in all.chunks(10_007) {
                writer.write_all(piece).await.unwrap();
                time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut buffer = BytesMut::new();
        while buffer.len() < data.len() {
            drop(time::timeout(Duration::from_micros(300), client.read_into(&mut buffer)).await);
        }
        assert!(buffer == data);
        writing.await.unwrap();
    })
    .unwrap();
}

#[test]
fn the_end_is_seen_with_and_without_a_goodbye() {
    let files = Files::new();
    run_control(async {
        let (server, mut client) = pair(&files).await;
        server.write_all(b"last words").await.unwrap();
        // With the last clone the session goes, and says so.
        drop(server);
        let mut buffer = BytesMut::new();
        while client.read_into(&mut buffer).await.unwrap() > 0 {}
        assert_eq!(buffer, "last words");
        // Cut like a cable, a task that waits sees it as well.
        let (server, client) = pair(&files).await;
        let waiting = spawn(Class::Live, "reader", read_to_end(server));
        rustix::net::shutdown(client.fd.get_ref(), rustix::net::Shutdown::Both).unwrap();
        assert!(waiting.await.unwrap().is_empty());
        let (server, client) = pair(&files).await;
        let waiting = spawn(Class::Live, "reader", read_to_end(server.clone()));
        server.shutdown().unwrap();
        assert!(waiting.await.unwrap().is_empty());
        drop(client);
    })
    .unwrap();
}

/// What becomes of a handshake with somebody who sends these bytes and, perhaps, hangs up.
async fn refused(identity: &Identity, bytes: &[u8], hang_up: bool, limit: Duration) -> io::Error {
    let listener = Listener::tcp(local()).unwrap();
    let stranger = Stream::connect(listener.local_addr(), LIMIT).await.unwrap();
    let stream = listener.accept().await.unwrap();
    let (writer, bytes) = (stranger.clone(), bytes.to_vec());
    let writing = spawn(Class::Live, "stranger", async move {
        // The other side may have hung up before all of it is sent.
        drop(writer.write_all(&bytes).await);
        if hang_up {
            drop(writer.shutdown());
        }
    });
    let error = stream.accept_tls(identity, limit).await.err().unwrap();
    drop(stranger);
    writing.cancel().await;
    error
}

#[test]
fn strangers_are_turned_away() {
    let files = Files::new();
    let identity = files.load().unwrap();
    let hello = {
        let mut bytes = Vec::new();
        client(&files.cert, BOTH).write_tls(&mut bytes).unwrap();
        bytes
    };
    run_control(async {
        let short = Duration::from_millis(300);
        let request = b"OPTIONS rtsp://h/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n";
        let error = refused(&identity, request, false, LIMIT).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let error = refused(&identity, &noise(1 << 20), false, LIMIT).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        for cut in [0, 1, 5, hello.len() / 2, hello.len() - 1, hello.len()] {
            let error = refused(&identity, &hello[..cut], true, LIMIT).await;
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}: {error}");
        }
        // Half a greeting and then nothing: the limit ends it.
        let error = refused(&identity, &hello[..20], false, short).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        // A greeting that claims 16 MB, and goes on for as long as it is let.
        let mut claims = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
        claims.resize(5 + 0x4000, 0);
        for _ in 0..64 {
            claims.extend_from_slice(&[0x16, 3, 3, 0x40, 0]);
            claims.resize(claims.len() + 0x4000, 0);
        }
        let error = refused(&identity, &claims, false, LIMIT).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    })
    .unwrap();
}

#[test]
fn junk_after_the_handshake_ends_the_connection() {
    let files = Files::new();
    run_control(async {
        let (mut server, client) = pair(&files).await;
        let junk = noise(100_000);
        // What was said before counts.
        client.write_all(b"sense").await.unwrap();
        rustix::net::send(client.fd.get_ref(), &junk, SEND).unwrap();
        let mut buffer = BytesMut::new();
        server.read_into(&mut buffer).await.unwrap();
        assert_eq!(buffer.split(), "sense");
        let error = server.read_into(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(server.read_into(&mut buffer).await.is_err() && buffer.is_empty());
    })
    .unwrap();
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn hundreds_of_connections_cost_little_each() {
    const MANY: usize = 200;
    let files = Files::new();
    let identity = files.load().unwrap();
    run_control(async {
        let listener = Listener::tcp(local()).unwrap();
        let address = listener.local_addr();
        let before = resident();
        let trusted = files.cert.clone();
        // Half of them never finish their handshake.
        let opening: Task<Vec<Stream>> = spawn(Class::Live, "clients", async move {
            let mut open = Vec::new();
            for i in 0..MANY {
                let stream = Stream::connect(address, LIMIT).await.unwrap();
                open.push(if i % 2 == 0 {
                    stream.encrypt(client(&trusted, BOTH).into(), LIMIT).await.unwrap()
                } else {
                    stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
                    stream
                });
            }
            open
        });
        let mut servers = Vec::new();
        for _ in 0..MANY {
            let (stream, identity) = (listener.accept().await.unwrap(), identity.clone());
            servers.push(spawn(Class::Live, "handshake", async move {
                stream.accept_tls(&identity, Duration::from_secs(3)).await
            }));
        }
        let clients = opening.await.unwrap();
        let mut encrypted = Vec::new();
        for server in servers {
            encrypted.extend(server.await.unwrap().ok());
        }
        assert_eq!(encrypted.len(), MANY / 2);
        let filler = vec![7; 64 << 10];
        for stream in &encrypted {
            // Nobody reads: what is accepted is the socket's and one chunk.
            stream.set_send_buffer(16 << 10).unwrap();
            while stream.write_now(&filler).unwrap() > 0 {}
        }
        let each = resident().saturating_sub(before) / MANY;
        // Both ends live in this process; a session without a bound would hold megabytes.
        assert!(each < 512 << 10, "{each} bytes");
        drop(clients);
    })
    .unwrap();
}

#[test]
fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let files = Files::new();
    let identity = files.load().unwrap();
    run_control(async {
        let listener = Listener::tcp(local()).unwrap();
        let address = listener.local_addr();
        let serving = identity.clone();
        let server = spawn(Class::Live, "server", async move {
            let mut open = Vec::new();
            loop {
                let stream = listener.accept().await.unwrap();
                if let Ok(stream) = stream.accept_tls(&serving, LIMIT).await {
                    // The client may have gone as soon as it had what it came for.
                    drop(stream.write_all(b"hello").await);
                    open.push(stream);
                }
            }
        });
        let connect = async |trusted: &rcgen::Certificate| {
            let stream = Stream::connect(address, LIMIT).await.unwrap();
            stream.encrypt(client(trusted, BOTH).into(), LIMIT).await
        };
        let mut first = connect(&files.cert).await.unwrap();
        let new = Files::write(files.dir.path());
        assert!(connect(&files.cert).await.is_ok(), "not before it is reloaded");
        assert!(identity.reload().unwrap());
        assert!(connect(&new).await.is_ok() && connect(&files.cert).await.is_err());
        assert!(!identity.reload().unwrap());
        fs::write(files.path("cert.pem"), "nonsense").unwrap();
        assert!(matches!(identity.reload(), Err(IdentityError::NoCertificate { .. })));
        assert!(connect(&new).await.is_ok());
        assert_eq!(identity.chain(), [new.der().to_vec()]);
        let mut buffer = BytesMut::new();
        first.read_into(&mut buffer).await.unwrap();
        assert_eq!(buffer, "hello");
        server.cancel().await;
    })
    .unwrap();
}

#[test]
fn without_a_certificate_every_handshake_fails_until_there_is_one() {
    let files = Files::new();
    let path = files.path("later.pem");
    let identity = Identity::vacant(&path, &files.path("key.pem"));
    assert!(matches!(identity.reload(), Err(IdentityError::Read { .. })) && identity.chain().is_empty());
    let mut hello = Vec::new();
    client(&files.cert, BOTH).write_tls(&mut hello).unwrap();
    run_control(async {
        let error = refused(&identity, &hello, false, LIMIT).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    })
    .unwrap();
    fs::rename(files.path("cert.pem"), path).unwrap();
    assert!(identity.reload().unwrap());
}

/// Blocks; for a thread of its own.
fn exchange(address: SocketAddr, connection: ClientConnection) -> io::Result<Vec<u8>> {
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn http_is_served_with_both_versions_of_tls() {
    use http_body_util::Full;
    use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
    let files = Files::new();
    let identity = files.load().unwrap();
    let body = bytes::Bytes::from(noise(3 << 20));
    run_control(async {
        for version in BOTH {
            let listener = Listener::tcp(local()).unwrap();
            let (address, connection) = (listener.local_addr(), client(&files.cert, &[version]));
            let asking = spawn(Class::Live, "client", blocking(move || exchange(address, connection)));
            let stream = listener.accept().await.unwrap();
            let stream = stream.accept_tls(&identity, LIMIT).await.unwrap();
            let served_body = body.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let body = served_body.clone();
                async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(body))) }
            });
            let served = spawn(Class::Maintenance, "http", async move {
                let stream = crate::net::HyperStream::new(stream);
                http1::Builder::new().serve_connection(stream, service).await.unwrap();
            });
            // To its end, which only comes cleanly with a goodbye.
            let answer = asking.await.unwrap().unwrap().unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&body));
            served.await.unwrap();
        }
    })
    .unwrap();
}

#[test]
fn every_kind_of_mistake_in_the_files_is_named_with_its_remedy() {
    let files = Files::new();
    let other = Files::new();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let says = |error: Result<Identity, IdentityError>, words: &[&str]| {
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("Remedy: ") && words.iter().all(|w| text.contains(w)),
            "{text}"
        );
        assert!(!text.contains("MIG"), "{text}");
    };
    let missing = files.path("missing.pem");
    says(
        Identity::load(&missing, &key),
        &["missing.pem", "cannot be read", "self-signed"],
    );
    says(Identity::load(&cert, &missing), &["missing.pem"]);
    says(Identity::load(&key, &key), &["key.pem", "no certificate"]);
    says(Identity::load(&cert, &cert), &["cert.pem", "no private key"]);
    says(
        Identity::load(&cert, &other.path("key.pem")),
        &["does not fit", "cert.pem", "key.pem"],
    );
    let odd = files.path("odd.pem");
    let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let with = |text: String| {
        fs::write(&odd, text).unwrap();
        odd.clone()
    };
    says(
        Identity::load(&cert, &with(pem("ENCRYPTED PRIVATE KEY", "AAAA"))),
        &["encrypted", "openssl pkey"],
    );
    let old = pem(
        "RSA PRIVATE KEY",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA",
    );
    says(Identity::load(&cert, &with(old)), &["encrypted"]);
    says(
        Identity::load(&cert, &with(pem("PRIVATE KEY", "AAAA"))),
        &["cannot be used"],
    );
    says(
        Identity::load(&with(pem("CERTIFICATE", "AAAA")), &key),
        &["first certificate is not valid"],
    );
    says(Identity::load(&with(pem("CERTIFICATE", "A?A")), &key), &["damaged"]);
    says(
        Identity::load(&with(pem("CERTIFICATE", "AAAA").repeat(CHAIN_LEN_MAX + 1)), &key),
        &["more than 16"],
    );
    says(
        Identity::load(&with("x".repeat(PEM_BYTES_MAX as usize + 1)), &key),
        &["larger than"],
    );
    // Both in one file, whatever else stands there.
    let both = format!(
        "notes\n{}{}",
        fs::read_to_string(&key).unwrap(),
        fs::read_to_string(&cert).unwrap()
    );
    let one = with(both);
    assert!(Identity::load(&one, &one).is_ok());
    let shown = format!("{:?}", files.load().unwrap());
    assert!(shown.contains("cert.pem") && shown.len() < 300, "{shown}");
}

#[test]
fn plain_streams_hold_nothing_back() {
    run_control(async {
        let listener = Listener::tcp(local()).unwrap();
        let client = Stream::connect(listener.local_addr(), LIMIT).await.unwrap();
        let server = listener.accept().await.unwrap();
        assert!(!server.is_tls());
        server.set_send_buffer(16 << 10).unwrap();
        while server.write_now(&[0; 4096]).unwrap() > 0 {}
        let begun = Instant::now();
        server.flush().await.unwrap();
        assert!(!server.has_pending() && begun.elapsed() < LIMIT);
        assert!(client.fd.as_raw_fd() >= 0);
    })
    .unwrap();
}
