//! TLS for streams: a server's identity, and the session that lies between a [`Stream`] and its socket.
//!
//! rustls is a state machine without IO; here are the system calls around it. TLS 1.2 and 1.3 only. There are no session tickets and there
//! is no cache of sessions: whoever connects gets the certificate that is in force, and nothing is kept of connections that have ended.

use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::{self, BufRead, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use glommio::io::PollableFd;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::{
    Connection, InconsistentKeys, ServerConfig, ServerConnection,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    net::{Stream, other},
    time, yield_if_needed,
};

/// A certificate file or a key file is read no further than this; a larger one is refused.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Certificates of a chain; a file with more is refused, since every handshake carries them all.
const CHAIN_LEN_MAX: usize = 16;
/// What a peer may send before its handshake is done; one that sends more is cut off.
const HANDSHAKE_BYTES_MAX: usize = 128 << 10;
/// Plaintext that is encrypted at a time. So much, and a little for the records, may wait in a session until the socket takes it.
const CHUNK_LEN: usize = 32 << 10;
/// Receives of one call; a peer that sends records without content gets no more of the shard's time than this.
const RECEIVES_MAX: usize = 16;

/// A certificate or key that cannot be used. Names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}. Remedy: {}", path.display(), read_remedy(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{} is larger than {} KiB. Remedy: name a PEM file with a certificate and its chain, or its key", path.display(), PEM_BYTES_MAX / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not PEM.
    #[error("{} is damaged: {reason}. Remedy: copy it again from where it was issued", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate in PEM form (BEGIN CERTIFICATE). Remedy: {DER_REMEDY}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There are too many certificates in the file.
    #[error("{} holds more than {CHAIN_LEN_MAX} certificates. Remedy: leave in it the server's own and those that lead to its authority", path.display())]
    ChainTooLong {
        /// The file.
        path: PathBuf,
    },
    /// The certificate cannot be understood.
    #[error("{}: its first certificate is not valid: {reason}. Remedy: have it issued again", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no key in the file.
    #[error("{} holds no private key in PEM form (PKCS#8, PKCS#1 or SEC1). Remedy: name the file that was made together with the certificate", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is protected by a password.
    #[error("{}: the key is encrypted, and nobody is there to type its password. Remedy: openssl pkey -in {} -out plain.key", path.display(), path.display())]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// The key is of a kind that is not supported.
    #[error("{}: the key cannot be used: {reason}. Remedy: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits and more", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("the key in {} does not fit the first certificate in {}. Remedy: name the key that was made with it; the server's own certificate comes first in the file", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

const DER_REMEDY: &str =
    "name the certificate's own file; one in DER form becomes PEM by `openssl x509 -inform der -in FILE -out cert.pem`";

fn read_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "put the file there, or correct the path; `corenvr tls self-signed` makes a certificate and its key"
        }
        io::ErrorKind::PermissionDenied => {
            "let the service's user read it: chgrp corenvr FILE && chmod 640 FILE, and let it enter the directories above"
        }
        _ => "check the path and the disk",
    }
}

/// What a server proves itself with: a chain of certificates and the key of the first one. A clone is the same identity: what
/// [`Identity::reload`] changes holds for all of them, on every shard.
#[derive(Clone)]
pub struct Identity {
    slot: Arc<Slot>,
    config: Arc<ServerConfig>,
}

/// The certificate in force.
struct Slot {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Slot {
    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slot.fmt(f)
    }
}

impl Identity {
    /// Reads a certificate with its chain and the key, both PEM; they may be in one file. Blocks: not for a shard. Whether the certificate
    /// is valid at this time, and for which names, is not looked at: an expired one is better than none.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, IdentityError> {
        let identity = Self::vacant(cert, key);
        identity.reload()?;
        Ok(identity)
    }

    /// One whose files have not been read: every handshake fails until [`Identity::reload`] has succeeded. For a server that is to listen
    /// although its certificate is broken.
    pub fn vacant(cert: &Path, key: &Path) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let slot = Arc::new(Slot {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(None),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("ring has cipher suites of both versions")
            .with_no_client_auth()
            .with_cert_resolver(slot.clone());
        config.send_tls13_tickets = 0;
        Self {
            slot,
            config: Arc::new(config),
        }
    }

    /// Reads the files again: connections that begin from now on get what is in them. Says whether the certificate is another one. If it
    /// fails, the old one stays in force. Blocks.
    pub fn reload(&self) -> Result<bool, IdentityError> {
        let new = certified(&self.slot.cert, &self.slot.key, self.config.crypto_provider())?;
        let mut current = self.slot.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.as_ref().is_none_or(|old| old.cert != new.cert);
        *current = Some(Arc::new(new));
        Ok(changed)
    }

    /// The chain in force, DER, the server's own certificate first; empty if there is none.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        let current = self.slot.current();
        current.iter().flat_map(|c| &c.cert).map(|c| c.to_vec()).collect()
    }

    /// The certificates of a file, DER, in its order; the key is not looked at. Blocks.
    pub fn read_chain(cert: &Path) -> Result<Vec<Vec<u8>>, IdentityError> {
        Ok(read_chain(cert)?.iter().map(|c| c.to_vec()).collect())
    }

    /// The file of the certificate.
    pub fn cert_path(&self) -> &Path {
        &self.slot.cert
    }

    /// The file of the key.
    pub fn key_path(&self) -> &Path {
        &self.slot.key
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(IdentityError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read_pem(path)?;
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|e| IdentityError::Damaged {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        if chain.len() == CHAIN_LEN_MAX {
            return Err(IdentityError::ChainTooLong { path: path.to_owned() });
        }
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate { path: path.to_owned() });
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let bytes = read_pem(path)?;
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            let path = path.to_owned();
            if contains(&bytes, b"BEGIN ENCRYPTED PRIVATE KEY") {
                return Err(IdentityError::KeyEncrypted { path });
            }
            Err(IdentityError::NoKey { path })
        }
        // The older way of OpenSSL: the password's parameters are headers within the section.
        Err(_) if contains(&bytes, b"Proc-Type: 4,ENCRYPTED") => {
            Err(IdentityError::KeyEncrypted { path: path.to_owned() })
        }
        // Without the error's own words: they may quote the key.
        Err(_) => Err(IdentityError::Damaged {
            path: path.to_owned(),
            reason: "its PEM sections cannot be read".into(),
        }),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

fn certified(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, IdentityError> {
    let chain = read_chain(cert)?;
    let secret = read_key(key)?;
    let signer = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|e| IdentityError::Key {
            path: key.to_owned(),
            reason: e.to_string(),
        })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        Err(e) => Err(IdentityError::Certificate {
            path: cert.to_owned(),
            reason: e.to_string(),
        }),
    }
}

impl Stream {
    /// Does a server's handshake within `limit`; what comes back is the same connection, encrypted. Bytes that were read before are lost
    /// to it, so none may have been. A peer that does not speak TLS, sends too much or gives up is an error, and its connection is closed.
    pub async fn accept_tls(self, identity: &Identity, limit: Duration) -> io::Result<Self> {
        let connection = ServerConnection::new(identity.config.clone()).map_err(io::Error::other)?;
        self.encrypt(connection.into(), limit).await
    }

    async fn encrypt(self, connection: Connection, limit: Duration) -> io::Result<Self> {
        if self.is_tls() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the stream is encrypted already",
            ));
        }
        let session = Session {
            fd: self.fd.clone(),
            state: RefCell::new(State {
                connection,
                ended: false,
                broken: None,
                shut_when_flushed: false,
            }),
        };
        time::timeout(limit, session.handshake()).await.map_err(|_| {
            let text = format!("the TLS handshake was not done within {} s", limit.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
        Ok(Self {
            tls: Some(Rc::new(session)),
            drained: false,
            ..self
        })
    }
}

/// The session of an encrypted stream. Its clones share it; nothing in it waits, so that every call borrows the state for itself.
pub(crate) struct Session {
    fd: Rc<PollableFd<OwnedFd>>,
    state: RefCell<State>,
}

struct State {
    connection: Connection,
    /// `close_notify` has been sent: nothing may follow it.
    ended: bool,
    /// What the peer did wrong: nothing that it sent afterwards is looked at.
    broken: Option<rustls::Error>,
    /// Our direction of the socket ends as soon as it has taken what waits.
    shut_when_flushed: bool,
}

impl Session {
    async fn handshake(&self) -> io::Result<()> {
        let mut heard = 0;
        loop {
            yield_if_needed().await;
            match self.step(&mut heard)? {
                Step::Done => return Ok(()),
                Step::Again => {}
                Step::Readable => self.fd.readable().await.map_err(other)?,
                Step::Writable => self.fd.writable().await.map_err(other)?,
            }
        }
    }

    fn step(&self, heard: &mut usize) -> io::Result<Step> {
        let mut state = self.state.borrow_mut();
        if !state.flush(&self.fd)? {
            return Ok(Step::Writable);
        }
        if !state.connection.is_handshaking() {
            return Ok(Step::Done);
        }
        match state.connection.read_tls(&mut Socket::new(&self.fd)) {
            Ok(0) => {
                let text = "the peer hung up during the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Ok(n) => *heard += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Readable),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Step::Again),
            Err(e) => return Err(e),
        }
        if *heard > HANDSHAKE_BYTES_MAX {
            let text = "the peer sends more than a TLS handshake has";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        state.process(&self.fd);
        state.check()?;
        Ok(Step::Again)
    }

    /// Hands out what has come, at most `room` bytes in several pieces. 0 bytes are the end: the peer has closed its direction, whether
    /// or not it said so first (many players do not; what is carried here knows by itself where a message ends). `WouldBlock` when
    /// nothing has come, `Interrupted` when there was nothing so far and more may be there. With it comes whether the socket is empty.
    pub(crate) fn read_now(&self, room: usize, mut put: impl FnMut(&[u8])) -> io::Result<(usize, bool)> {
        let mut state = self.state.borrow_mut();
        let mut total = 0;
        let mut drained = false;
        for _ in 0..RECEIVES_MAX {
            match state.take(room - total, &mut put) {
                Some(0) => return Ok((total, false)),
                Some(n) => total += n,
                None => {}
            }
            if total == room {
                // More may be decrypted already, which no readiness of the socket would tell.
                return Ok((total, false));
            }
            // All that the socket had is decrypted and handed out: only now may its readiness be waited for.
            if drained && total > 0 {
                return Ok((total, state.broken.is_none()));
            }
            // What came before a mistake is given first.
            if total == 0 {
                state.check()?;
            } else if state.broken.is_some() {
                return Ok((total, false));
            }
            let mut socket = Socket::new(&self.fd);
            match state.connection.read_tls(&mut socket) {
                Ok(_) => drained = socket.drained,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if total == 0 {
                        return Err(e);
                    }
                    return Ok((total, true));
                }
                // After a failure of the socket the next call finds its end.
                Err(_) if total > 0 => return Ok((total, false)),
                Err(e) => return Err(e),
            }
            state.process(&self.fd);
        }
        if total == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok((total, false))
    }

    /// Takes what fits: as long as the socket takes all of it at once, everything; 0 while ciphertext waits.
    pub(crate) fn write_now(&self, data: &[u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        if state.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        while state.flush(&self.fd)? && taken < data.len() {
            let chunk = &data[taken..data.len().min(taken + CHUNK_LEN)];
            taken += state.connection.writer().write(chunk)?;
        }
        Ok(taken)
    }

    /// Gives the socket what waits; says whether nothing waits any more.
    pub(crate) fn flush_now(&self) -> io::Result<bool> {
        self.state.borrow_mut().flush(&self.fd)
    }

    /// Ciphertext waits for the socket.
    pub(crate) fn has_pending(&self) -> bool {
        self.state.borrow().connection.wants_write()
    }

    /// Says that nothing more comes; our direction of the socket ends when all of it has left.
    pub(crate) fn end(&self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.end();
        state.shut_when_flushed = true;
        state.flush(&self.fd).map(drop)
    }

    /// Says that nothing more comes, as far as the socket takes it.
    pub(crate) fn farewell(&self) {
        let mut state = self.state.borrow_mut();
        state.end();
        // The connection ends here anyhow.
        drop(state.flush(&self.fd));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.farewell();
    }
}

enum Step {
    Done,
    Again,
    Readable,
    Writable,
}

impl State {
    /// Hands out decrypted bytes; `None` if there are none, `Some(0)` at the end.
    fn take(&mut self, room: usize, put: &mut impl FnMut(&[u8])) -> Option<usize> {
        let mut total = 0;
        let mut reader = self.connection.reader();
        while total < room {
            match reader.fill_buf() {
                Ok([]) => return Some(total),
                Ok(piece) => {
                    let n = piece.len().min(room - total);
                    put(&piece[..n]);
                    reader.consume(n);
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Some(total),
                Err(_) => break,
            }
        }
        (total > 0).then_some(total)
    }

    /// Decrypts what was received. A peer that breaks the rules is told so, as far as the socket takes it; that it takes nothing more is
    /// for the writer to find.
    fn process(&mut self, fd: &PollableFd<OwnedFd>) {
        self.broken = self.connection.process_new_packets().err();
        drop(self.flush(fd));
    }

    fn check(&self) -> io::Result<()> {
        let failure = |e| io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {e}"));
        self.broken.as_ref().map_or(Ok(()), |e| Err(failure(e)))
    }

    fn flush(&mut self, fd: &PollableFd<OwnedFd>) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket::new(fd)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if std::mem::take(&mut self.shut_when_flushed) {
            rustix::net::shutdown(fd.get_ref(), rustix::net::Shutdown::Write)?;
        }
        Ok(true)
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.connection.send_close_notify();
        }
    }
}

/// The socket in the terms of the standard library, never waiting.
struct Socket<'a> {
    fd: &'a PollableFd<OwnedFd>,
    /// The last receive did not fill its buffer.
    drained: bool,
}

impl<'a> Socket<'a> {
    const fn new(fd: &'a PollableFd<OwnedFd>) -> Self {
        Self { fd, drained: false }
    }
}

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl Read for Socket<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let len = room.len();
        let (n, _) = rustix::net::recv(self.fd.get_ref(), room, RecvFlags::DONTWAIT)?;
        // 0 is the end, which the next receive finds again.
        self.drained = n > 0 && n < len;
        Ok(n)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.fd.get_ref(), data, SEND)?)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(
            self.fd.get_ref(),
            parts,
            &mut SendAncillaryBuffer::default(),
            SEND,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
