//! One shard's part of the recorder: which cameras it runs, and the answers to what comes into its inbox.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use corenvr_media::{CameraName, WallTime};
use corenvr_shard::{Class, ShardContext, Stop, Task, TaskName, Worker, channel::OneshotSender, spawn};
use corenvr_store::{
    Archive, GapCause,
    live::{LiveItem, Subscribe},
};

use crate::{
    BackfillError, BackfillSpan, CameraConfig, CameraMode, CameraState, CameraStatus, HandleError, Inbox,
    RecorderConfig, SPANS_MAX, Source,
    backfill::{Job, Plan},
    camera::{self, Shared},
    handle::Command,
    links::{Links, ShardLinks},
    live::Live,
    load::DiskLoad,
    retention::RetentionHandle,
    writer::{Budget, Disk, Queue},
};

/// A storage directory as the recorder uses it.
#[derive(Clone)]
pub struct Storage {
    /// The directory.
    pub path: PathBuf,
    /// Its archive, on the thread that owns it.
    pub archive: Worker<Archive>,
    /// What it takes to write to it.
    pub load: Arc<DiskLoad>,
}

/// Runs the cameras of one shard until `ctx.stop` is requested; returns when every open segment is sealed.
/// A full disk asks `retention` to make room at once.
pub async fn run_shard(
    ctx: ShardContext,
    mut inbox: Inbox,
    storages: Arc<[Storage]>,
    config: RecorderConfig,
    retention: RetentionHandle,
    links: Links,
) {
    let config = config.clamped();
    let mut shard = Shard {
        id: ctx.id.0,
        budget: Budget::new(config.queue_bytes_shard),
        config: Rc::new(config),
        links: Rc::new(links.of_shard(ctx.id.0, ctx.count)),
        disks: storages
            .iter()
            .enumerate()
            .map(|(index, s)| Disk::new(index, s.clone(), retention.clone()))
            .collect(),
        slots: HashMap::new(),
    };
    loop {
        let command = {
            let mut stopped = std::pin::pin!(ctx.stop.requested());
            std::future::poll_fn(|cx| {
                use std::{future::Future, task::Poll};
                if stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                inbox.0.poll_recv(cx)
            })
            .await
        };
        match command {
            Some(command) => shard.handle(command),
            None => break,
        }
    }
    shard.stop().await;
}

struct Shard {
    id: u16,
    config: Rc<RecorderConfig>,
    links: Rc<ShardLinks>,
    budget: Rc<Budget>,
    disks: Vec<Rc<Disk>>,
    slots: HashMap<CameraName, (Rc<Slot>, Task<()>)>,
}

/// The place of one camera: the settings it is to have, whatever runs now.
struct Slot {
    /// `None`: to be removed.
    desired: RefCell<Option<Rc<CameraConfig>>>,
    /// Stops what runs under the settings before.
    stop: RefCell<Stop>,
    /// Why it was stopped.
    cause: Cell<GapCause>,
    shared: RefCell<Rc<Shared>>,
    live: Rc<RefCell<Live>>,
    removed: RefCell<Vec<OneshotSender<bool>>>,
    /// The last job that fills gaps of it.
    backfill: RefCell<Option<Rc<Job>>>,
}

impl Slot {
    fn change(&self, desired: Option<Rc<CameraConfig>>, cause: GapCause) {
        *self.desired.borrow_mut() = desired;
        self.cause.set(cause);
        self.stop.borrow().request();
    }

    /// Ends the job that fills gaps, if one runs, and waits until its last segment is sealed.
    async fn end_backfill(&self) -> bool {
        let job = self.backfill.borrow().clone();
        let Some(job) = job.filter(|job| !job.is_done()) else {
            return false;
        };
        job.stop();
        job.ended().await;
        true
    }
}

impl Shard {
    fn handle(&mut self, command: Command) {
        match command {
            Command::Apply(camera, reply) => reply.send(self.apply(*camera)),
            Command::Remove(name, reply) => self.remove(&name, reply),
            Command::Status(name, reply) => reply.send(self.status(name.as_ref())),
            Command::Subscribe(subscribe) => self.subscribe(subscribe),
            Command::Backfill(name, spans, reply) => reply.send(self.backfill(&name, spans)),
            Command::BackfillStatus(name, reply) => {
                let job = self.slot(&name).and_then(|slot| slot.backfill.borrow().clone());
                reply.send(job.map(|job| job.report()));
            }
            Command::StopBackfill(name, reply) => match self.slot(&name).cloned() {
                None => reply.send(false),
                Some(slot) => spawn(
                    Class::Maintenance,
                    TaskName::of_camera(&name, "backfill stop"),
                    async move {
                        reply.send(slot.end_backfill().await);
                    },
                )
                .detach(),
            },
        }
    }

    fn apply(&mut self, camera: CameraConfig) -> Result<(), HandleError> {
        if camera.storage >= self.disks.len() {
            return Err(HandleError::NoStorage {
                index: camera.storage,
                count: self.disks.len(),
            });
        }
        self.slots
            .retain(|_, (slot, _)| slot.desired.borrow().is_some() || !slot.removed.borrow().is_empty());
        let camera = Rc::new(camera);
        if let Some((slot, _)) = self.slots.get(&camera.name) {
            if slot.desired.borrow().as_ref() != Some(&camera) {
                slot.change(Some(camera), GapCause::Operator);
            }
            return Ok(());
        }
        let live = Rc::new(RefCell::new(Live::default()));
        let slot = Rc::new(Slot {
            shared: RefCell::new(Rc::new(self.shared(&camera, &live))),
            desired: RefCell::new(Some(camera.clone())),
            stop: RefCell::default(),
            cause: Cell::new(GapCause::Operator),
            live,
            removed: RefCell::default(),
            backfill: RefCell::default(),
        });
        let runner = Runner {
            id: self.id,
            config: self.config.clone(),
            links: self.links.clone(),
            budget: self.budget.clone(),
            disks: self.disks.clone(),
            slot: slot.clone(),
        };
        let task = spawn(
            Class::Recording,
            TaskName::of_camera(&camera.name, "camera"),
            runner.run(),
        );
        self.slots.insert(camera.name.clone(), (slot, task));
        Ok(())
    }

    fn shared(&self, camera: &CameraConfig, live: &Rc<RefCell<Live>>) -> Shared {
        new_shared(self.id, &self.config, &self.budget, camera, live)
    }

    fn remove(&mut self, name: &CameraName, reply: OneshotSender<bool>) {
        match self.slots.get(name) {
            Some((slot, _)) if slot.desired.borrow().is_some() => {
                slot.removed.borrow_mut().push(reply);
                slot.change(None, GapCause::Operator);
            }
            _ => reply.send(false),
        }
    }

    /// The slot of a camera that exists.
    fn slot(&self, name: &CameraName) -> Option<&Rc<Slot>> {
        let slot = self.slots.get(name).map(|(slot, _)| slot);
        slot.filter(|slot| slot.desired.borrow().is_some())
    }

    fn backfill(&self, name: &CameraName, spans: Vec<BackfillSpan>) -> Result<(), BackfillError> {
        let no_camera = || BackfillError::NoSuchCamera(name.clone());
        let slot = self.slot(name).ok_or_else(no_camera)?;
        let camera = slot.desired.borrow().clone().ok_or_else(no_camera)?;
        let Source::Gb28181(url) = &camera.source else {
            return Err(BackfillError::NoArchive(name.clone()));
        };
        let reach = self.links.gb28181.clone().ok_or(BackfillError::SwitchedOff)?;
        if slot.backfill.borrow().as_ref().is_some_and(|job| !job.is_done()) {
            return Err(BackfillError::Running(name.clone()));
        }
        if spans.len() > SPANS_MAX {
            return Err(BackfillError::TooMany(spans.len()));
        }
        // An index was checked when the settings came into force.
        let disk = self.disks.get(camera.storage).cloned().ok_or_else(no_camera)?;
        let plan = Plan {
            camera: name.clone(),
            url: (**url).clone(),
            audio: camera.audio,
            reach,
            disk,
            config: self.config.clone(),
        };
        *slot.backfill.borrow_mut() = Some(Job::start(plan, spans));
        Ok(())
    }

    fn status(&self, name: Option<&CameraName>) -> Vec<CameraStatus> {
        let exists = |slot: &Slot| slot.desired.borrow().is_some();
        let status = |slot: &Slot| slot.shared.borrow().status();
        match name {
            Some(name) => {
                let slot = self.slots.get(name).filter(|(s, _)| exists(s));
                slot.map(|(s, _)| status(s)).into_iter().collect()
            }
            None => self
                .slots
                .values()
                .filter(|(s, _)| exists(s))
                .map(|(s, _)| status(s))
                .collect(),
        }
    }

    fn subscribe(&self, mut subscribe: Subscribe) {
        let slot = self.slots.get(&subscribe.camera);
        let recorded = slot.filter(|(s, _)| s.desired.borrow().as_ref().is_some_and(|c| c.mode != CameraMode::Off));
        match recorded {
            Some((slot, _)) => slot.live.borrow_mut().subscribe(subscribe),
            None => drop(subscribe.sink.send(LiveItem::End)),
        }
    }

    /// Stops every camera at once and waits until all are sealed.
    async fn stop(self) {
        for (slot, _) in self.slots.values() {
            slot.change(None, GapCause::Restart);
        }
        for (name, (_, task)) in self.slots {
            if let Err(panicked) = task.await {
                tracing::error!(camera = %name, %panicked, "camera failed while it was stopped");
            }
        }
    }
}

fn new_shared(
    shard: u16,
    config: &RecorderConfig,
    budget: &Rc<Budget>,
    camera: &CameraConfig,
    live: &Rc<RefCell<Live>>,
) -> Shared {
    let queue = Rc::new(Queue::new(config.queue_bytes, budget.clone()));
    Shared::new(camera, shard, queue, live.clone(), config.queue_bytes)
}

/// Runs one camera under whatever settings it is to have, one after the other.
struct Runner {
    id: u16,
    config: Rc<RecorderConfig>,
    links: Rc<ShardLinks>,
    budget: Rc<Budget>,
    disks: Vec<Rc<Disk>>,
    slot: Rc<Slot>,
}

impl Runner {
    async fn run(self) {
        let mut cause = None;
        let mut last: Option<WallTime> = None;
        loop {
            let stop = Stop::default();
            *self.slot.stop.borrow_mut() = stop.clone();
            let Some(camera) = self.slot.desired.borrow().clone() else {
                break;
            };
            let shared = Rc::new(new_shared(
                self.id,
                &self.config,
                &self.budget,
                &camera,
                &self.slot.live,
            ));
            shared.set_last_frame(last);
            *self.slot.shared.borrow_mut() = shared.clone();
            if camera.mode == CameraMode::Off {
                shared.set_state(CameraState::Disabled);
                self.slot.live.borrow_mut().end();
                stop.requested().await;
            } else if let Some(disk) = self.disks.get(camera.storage) {
                let slot = self.slot.clone();
                let stop_cause = move || slot.cause.get();
                camera::run(
                    camera,
                    self.config.clone(),
                    self.links.clone(),
                    disk.clone(),
                    shared.clone(),
                    cause,
                    stop,
                    stop_cause,
                )
                .await;
            }
            cause = Some(GapCause::Operator);
            last = shared.last_frame();
            if self.slot.desired.borrow().is_none() {
                break;
            }
            // Removed, and added again before it was gone.
            self.answer_removals();
        }
        self.slot.live.borrow_mut().end();
        self.slot.end_backfill().await;
        self.answer_removals();
    }

    fn answer_removals(&self) {
        for reply in self.slot.removed.take() {
            reply.send(true);
        }
    }
}
