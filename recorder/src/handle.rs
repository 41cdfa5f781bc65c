//! How the rest of the process talks to the recorder: one bounded inbox per shard, a handle that knows who owns what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use corenvr_media::CameraName;
use corenvr_shard::{
    ShardId,
    channel::{OneshotReceiver, OneshotSender, Receiver, Sender, TrySendError, bounded_named, oneshot},
};
use corenvr_store::live::Subscribe;

use crate::{
    BackfillError, BackfillReport, BackfillSpan, CameraConfig, CameraStatus, ProbeError, ProbeReport, Source,
    TransportChoice, owner,
};

/// Messages that may wait for a shard. One more is refused with [`HandleError::Busy`]; whoever sent it tells its own client.
pub const INBOX_MAX: usize = 4096;

/// A request to the recorder was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Too many requests wait.
    #[error("shard {} has too many requests waiting: try again", .0.0)]
    Busy(ShardId),
    /// The recorder is stopping.
    #[error("the recorder has stopped")]
    Stopped,
    /// The settings name a storage directory that does not exist.
    #[error("storage {index} does not exist: there are {count}")]
    NoStorage {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

/// What a shard's recorder is asked to do.
pub(crate) enum Command {
    Apply(Box<CameraConfig>, OneshotSender<Result<(), HandleError>>),
    /// Answers when the camera's last segment is sealed.
    Remove(CameraName, OneshotSender<bool>),
    Status(Option<CameraName>, OneshotSender<Vec<CameraStatus>>),
    Subscribe(Subscribe),
    Backfill(CameraName, Vec<BackfillSpan>, OneshotSender<Result<(), BackfillError>>),
    BackfillStatus(CameraName, OneshotSender<Option<BackfillReport>>),
    /// Answers when the job has ended, and whether there was one.
    StopBackfill(CameraName, OneshotSender<bool>),
}

/// The receiving ends, one for each shard; each is taken once, by [`crate::run_shard`]'s caller.
#[derive(Clone)]
pub struct Inboxes(Arc<Mutex<Vec<Option<Inbox>>>>);

/// The receiving end of one shard.
pub struct Inbox(pub(crate) Receiver<Command>);

impl Inboxes {
    /// The inbox of a shard; `None` if it was taken already or there is no such shard.
    pub fn take(&self, shard: ShardId) -> Option<Inbox> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(usize::from(shard.0))?.take()
    }
}

/// The whole recorder, from any thread or shard. Cloning is cheap.
#[derive(Clone)]
pub struct RecorderHandle {
    shards: Arc<[Sender<Command>]>,
    /// Cameras whose shard an operator chose. Read once per request, never per frame.
    wanted: Arc<RwLock<HashMap<CameraName, u16>>>,
}

impl RecorderHandle {
    /// A handle for `shards` shards (at least one) and the inboxes that they are to serve.
    pub fn new(shards: u16) -> (Self, Inboxes) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..shards.max(1))
            .map(|_| {
                let (tx, rx) = bounded_named("recorder", INBOX_MAX);
                (tx, Some(Inbox(rx)))
            })
            .unzip();
        let handle = Self {
            shards: senders.into(),
            wanted: Arc::default(),
        };
        (handle, Inboxes(Arc::new(Mutex::new(inboxes))))
    }

    /// The shard that owns a camera.
    pub fn owner(&self, name: &CameraName) -> ShardId {
        let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
        owner(name, self.shards.len() as u16, wanted.get(name).copied())
    }

    /// Starts a camera, or changes its settings. With unchanged settings nothing happens to it; with changed ones its segment is
    /// sealed and it starts anew. Other cameras are never touched. Returns when the settings are in force (the camera may still
    /// be connecting).
    pub async fn apply(&self, camera: CameraConfig) -> Result<(), HandleError> {
        let before = self.owner(&camera.name);
        {
            let mut wanted = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
            match camera.shard {
                Some(shard) => wanted.insert(camera.name.clone(), shard),
                None => wanted.remove(&camera.name),
            };
        }
        let after = self.owner(&camera.name);
        if before != after {
            let name = camera.name.clone();
            self.ask(before, |reply| Command::Remove(name, reply))?.await;
        }
        let reply = self.ask(after, |reply| Command::Apply(Box::new(camera), reply))?;
        reply.await.unwrap_or(Err(HandleError::Stopped))
    }

    /// Stops a camera and forgets it; its footage stays. Returns when its last segment is sealed, and whether there was such a camera.
    pub async fn remove(&self, name: &CameraName) -> Result<bool, HandleError> {
        let reply = self.ask(self.owner(name), |reply| Command::Remove(name.clone(), reply))?;
        let existed = reply.await.ok_or(HandleError::Stopped)?;
        self.wanted.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(existed)
    }

    /// Every camera, ordered by name.
    pub async fn status(&self) -> Result<Vec<CameraStatus>, HandleError> {
        let mut replies = Vec::with_capacity(self.shards.len());
        for shard in 0..self.shards.len() as u16 {
            replies.push(self.ask(ShardId(shard), |reply| Command::Status(None, reply))?);
        }
        let mut all = Vec::new();
        for reply in replies {
            all.extend(reply.await.ok_or(HandleError::Stopped)?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One camera; `None` if there is none of that name.
    pub async fn camera_status(&self, name: &CameraName) -> Result<Option<CameraStatus>, HandleError> {
        let reply = self.ask(self.owner(name), |reply| Command::Status(Some(name.clone()), reply))?;
        Ok(reply.await.ok_or(HandleError::Stopped)?.pop())
    }

    /// Hands a subscription to the owner of its camera. The sink hears [`corenvr_store::live::LiveItem::End`] and nothing else if
    /// there is no such camera; of a camera that is down it hears nothing until its stream comes.
    /// The subscription comes back if it cannot be delivered.
    pub fn subscribe(&self, subscribe: Subscribe) -> Result<(), (Subscribe, HandleError)> {
        let shard = self.owner(&subscribe.camera);
        match self.shards[usize::from(shard.0)].try_send(Command::Subscribe(subscribe)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Command::Subscribe(s))) => Err((s, HandleError::Busy(shard))),
            Err(TrySendError::Closed(Command::Subscribe(s))) => Err((s, HandleError::Stopped)),
            Err(_) => unreachable!("a channel gives back what it was given"),
        }
    }

    /// Begins to fill spans of a camera's past from the camera's own archive; returns once that is under way.
    /// [`Self::backfill_status`] tells how far it is. The camera goes on being recorded.
    pub async fn backfill(&self, name: &CameraName, spans: Vec<BackfillSpan>) -> Result<(), BackfillError> {
        let reply = self.ask(self.owner(name), |reply| Command::Backfill(name.clone(), spans, reply))?;
        reply.await.unwrap_or(Err(HandleError::Stopped.into()))
    }

    /// The last back-fill of a camera since it was configured or the recorder started; `None` if there was none.
    pub async fn backfill_status(&self, name: &CameraName) -> Result<Option<BackfillReport>, HandleError> {
        let reply = self.ask(self.owner(name), |reply| Command::BackfillStatus(name.clone(), reply))?;
        reply.await.ok_or(HandleError::Stopped)
    }

    /// Stops a back-fill; what has come is kept. Returns when its last segment is sealed, and whether there was one.
    pub async fn stop_backfill(&self, name: &CameraName) -> Result<bool, HandleError> {
        let reply = self.ask(self.owner(name), |reply| Command::StopBackfill(name.clone(), reply))?;
        reply.await.ok_or(HandleError::Stopped)
    }

    /// Looks at a camera without recording it. Runs on the executor of the caller.
    pub async fn probe(&self, source: &Source, transport: TransportChoice) -> Result<ProbeReport, ProbeError> {
        crate::probe(source, transport).await
    }

    fn ask<T: Send>(
        &self,
        shard: ShardId,
        command: impl FnOnce(OneshotSender<T>) -> Command,
    ) -> Result<OneshotReceiver<T>, HandleError> {
        let (tx, rx) = oneshot();
        match self.shards[usize::from(shard.0)].try_send(command(tx)) {
            Ok(()) => Ok(rx),
            Err(TrySendError::Full(_)) => Err(HandleError::Busy(shard)),
            Err(TrySendError::Closed(_)) => Err(HandleError::Stopped),
        }
    }
}
