//! A server on a shard of its own, with live cameras that the test drives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, CodecParameters, Frame};
use corenvr_playback::{
    Access, Action, Channels, Gate, Limits, LiveRouter, PlaybackStats, RouteError, ServerConfig, run_shard,
};
use corenvr_proto::auth::{Secret, Verifier};
use corenvr_shard::{Config, Shards, Worker, start};
use corenvr_store::{
    Archive,
    live::{LiveItem, LiveTail, Subscribe, Subscribers, TailLimits},
};

use crate::footage::{Storage, name};

/// Cameras in memory: what the recorder is in real life.
#[derive(Clone, Default)]
pub struct Cameras(Arc<Mutex<HashMap<CameraName, Camera>>>);

struct Camera {
    tail: LiveTail,
    subscribers: Subscribers,
}

impl Cameras {
    pub fn add(&self, camera: &str, tracks: Arc<[CodecParameters]>) {
        let camera_state = Camera {
            tail: LiveTail::new(tracks, TailLimits::default()),
            subscribers: Subscribers::default(),
        };
        self.0.lock().unwrap().insert(name(camera), camera_state);
    }

    pub fn push(&self, camera: &str, frame: Frame) {
        let mut all = self.0.lock().unwrap();
        let camera = all.get_mut(&name(camera)).unwrap();
        camera.tail.push(frame.clone());
        camera.subscribers.send(&LiveItem::Frame(frame));
    }

    pub fn send(&self, camera: &str, item: &LiveItem) {
        let mut all = self.0.lock().unwrap();
        let camera = all.get_mut(&name(camera)).unwrap();
        if let LiveItem::Parameters(p) = item {
            camera.tail.reset(p.clone());
        }
        camera.subscribers.send(item);
    }

    pub fn subscriptions(&self, camera: &str) -> usize {
        self.0.lock().unwrap()[&name(camera)].subscribers.len()
    }

    fn router(&self) -> LiveRouter {
        let cameras = self.clone();
        Arc::new(move |subscribe: Subscribe| {
            let mut all = cameras.0.lock().unwrap();
            let camera = all.get_mut(&subscribe.camera).ok_or(RouteError::NoSuchCamera)?;
            camera.subscribers.subscribe(&camera.tail, subscribe);
            Ok(())
        })
    }
}

/// Lets everybody see everything, except cameras whose name begins with `secret`.
struct Open;

impl Gate for Open {
    fn access(&self, user: Option<&str>, _: Action, camera: &CameraName) -> Access {
        match (camera.as_str().starts_with("secret"), user) {
            (false, _) | (true, Some("alice")) => Access::Allow,
            (true, None) => Access::NeedLogin,
            (true, Some(_)) => Access::Forbid,
        }
    }
}

pub struct Server {
    shards: Option<Shards>,
    pub stats: Arc<PlaybackStats>,
    pub cameras: Cameras,
    pub port: u16,
}

impl Server {
    /// With these storages.
    pub fn start(storages: &[&Storage]) -> Self {
        Self::with_limits(storages, Limits::default())
    }

    pub fn with_limits(storages: &[&Storage], limits: Limits) -> Self {
        let password = |user: &str| matches!(user, "alice" | "bob").then(|| Secret::Password("pass".into()));
        let config = Arc::new(ServerConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            tls_listen: Vec::new(),
            tls: None,
            login: Arc::new(Verifier::new("corenvr", [7; 32], Instant::now(), true, password)),
            limits,
            channels: Channels::new(|n| (n == 1).then(|| name("door"))),
        });
        let archives: Vec<Worker<Archive>> = storages.iter().map(|s| s.worker.clone()).collect();
        let cameras = Cameras::default();
        let stats = PlaybackStats::new();
        let (router, shard_stats) = (cameras.router(), stats.clone());
        let shards = start(&Config { cpus: vec![0] }, move |ctx| {
            let (config, archives, router, stats) =
                (config.clone(), archives.clone(), router.clone(), shard_stats.clone());
            async move {
                run_shard(ctx, config, archives, router, Arc::new(Open), stats)
                    .await
                    .unwrap();
            }
        })
        .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while stats.listening().is_empty() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self {
            shards: Some(shards),
            port: stats.listening()[0].port(),
            stats,
            cameras,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{path}", self.port)
    }

    /// Waits until nothing plays and no session is left.
    pub fn wait_for_quiet(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.stats.snapshot().sessions.is_empty() {
            assert!(Instant::now() < deadline, "{:?}", self.stats.snapshot());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(shards) = self.shards.take() {
            assert!(
                shards.join(Duration::from_secs(30)) || std::thread::panicking(),
                "the shard does not stop"
            );
        }
    }
}
