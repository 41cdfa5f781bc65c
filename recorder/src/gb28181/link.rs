//! Between a camera on its shard and the SIP server on the control executor: what is asked, what is told.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use corenvr_proto::gb28181::{
    mansrtsp,
    sdp::{self, MediaTransport, SessionKind, StreamChoice},
    url::Gb28181Url,
};
use corenvr_shard::channel::{Receiver, Sender, bounded_named};

/// Requests of all cameras that may wait for the server. One more fails, and its camera tries again.
const ASKS_MAX: usize = 8192;
/// What may wait for one camera. A camera that does not look for so long has lost its session.
pub(super) const TOLD_MAX: usize = 32;

/// Where cameras reach the SIP server; `Clone` and `Send`.
#[derive(Clone)]
pub struct Signalling {
    asks: Sender<Ask>,
    next: Arc<AtomicU64>,
}

/// The server's end.
pub struct SignallingInbox(pub(super) Receiver<Ask>);

/// One way to the server, and the inbox that [`super::Server::start`] takes.
pub fn signalling() -> (Signalling, SignallingInbox) {
    let (asks, inbox) = bounded_named("gb28181-cameras", ASKS_MAX);
    let signalling = Signalling {
        asks,
        next: Arc::default(),
    };
    (signalling, SignallingInbox(inbox))
}

/// One session of a camera, named by its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LinkId(u64);

/// What a camera asks of the server.
pub(super) enum Ask {
    /// Tell me when this can be invited.
    Open {
        id: LinkId,
        url: Box<Gb28181Url>,
        told: Sender<Told>,
    },
    Invite {
        id: LinkId,
        kind: SessionKind,
        transport: MediaTransport,
        stream: Option<StreamChoice>,
        media_port: u16,
    },
    Info {
        id: LinkId,
        action: mansrtsp::Action,
    },
    KeyFrame(LinkId),
    /// Ends what there is. Nothing is told any more.
    Close(LinkId),
}

/// What the server tells a camera.
#[derive(Debug)]
pub(crate) enum Told {
    /// It cannot be invited yet, in words. Comes again when the reason changes.
    Waiting(String),
    /// It can be invited.
    Ready,
    /// The INVITE was accepted.
    Answered(Box<Answered>),
    /// The INVITE came to nothing.
    Refused { status: Option<u16>, reason: String },
    /// The device has a new registration or address: media that has stopped will not come back.
    Moved,
    /// What became of an INFO.
    Info {
        status: Option<u16>,
        answer: Option<mansrtsp::Response>,
    },
    /// The session is over. `complete`: because all that was asked for has been sent.
    Ended { reason: String, complete: bool },
}

/// What the device has agreed to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub answer: sdp::Answer,
    /// The SSRC that it was asked to use.
    pub ssrc: u32,
    /// Where its SIP messages come from.
    pub source: IpAddr,
}

/// The server cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("too many requests wait for the SIP server")]
    Busy,
    #[error("the SIP server has stopped")]
    Stopped,
}

/// A camera's end of its session. Dropping it ends the session.
pub(crate) struct Link {
    id: LinkId,
    asks: Sender<Ask>,
    told: Receiver<Told>,
}

impl Signalling {
    /// Begins to wait for a device or channel.
    pub(crate) fn open(&self, url: &Gb28181Url) -> Result<Link, LinkError> {
        let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let (tell, told) = bounded_named("gb28181-links", TOLD_MAX);
        let link = Link {
            id,
            asks: self.asks.clone(),
            told,
        };
        link.ask(Ask::Open {
            id,
            url: Box::new(url.clone()),
            told: tell,
        })?;
        Ok(link)
    }
}

impl Link {
    /// The next thing the server tells; `None` when it has stopped.
    pub async fn told(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Invites; after [`Told::Ready`].
    pub fn invite(
        &self,
        kind: SessionKind,
        transport: MediaTransport,
        stream: Option<StreamChoice>,
        media_port: u16,
    ) -> Result<(), LinkError> {
        self.ask(Ask::Invite {
            id: self.id,
            kind,
            transport,
            stream,
            media_port,
        })
    }

    /// Steers a session of the archive.
    pub fn info(&self, action: mansrtsp::Action) -> Result<(), LinkError> {
        self.ask(Ask::Info { id: self.id, action })
    }

    /// Asks for a key frame. One that cannot be asked for now is asked for later by whoever needs it.
    pub fn key_frame(&self) {
        let _ = self.ask(Ask::KeyFrame(self.id));
    }

    fn ask(&self, ask: Ask) -> Result<(), LinkError> {
        use corenvr_shard::channel::TrySendError;
        self.asks.try_send(ask).map_err(|e| match e {
            TrySendError::Full(_) => LinkError::Busy,
            TrySendError::Closed(_) => LinkError::Stopped,
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A full inbox loses this: the server finds the closed channel the next time it has something to tell, or at its next round.
        let _ = self.ask(Ask::Close(self.id));
    }
}
