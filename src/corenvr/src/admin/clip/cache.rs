//! Clips whose first pass is done, so that the parts of one clip need one pass only.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, TimeRange};
use corenvr_store::export::{Format, Prepared};

use crate::accounts::Who;

/// Most clips that are kept; the one that was not asked for the longest goes first.
const CLIPS_MAX: usize = 16;
/// Most bytes of tables that are kept. A clip with larger ones is not kept, and each of its parts needs a pass of its own.
const BYTES_MAX: usize = 128 << 20;
/// A clip that nobody asked for so long goes at the next request for any.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Most people and programs of one clip whose first request is told from the next; what is asked beyond is written down each time.
const ASKERS_MAX: usize = 64;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The camera.
    pub camera: CameraName,
    /// From when to when, as it was asked for.
    pub range: TimeRange,
    /// The kind of file.
    pub format: Format,
}

struct Entry {
    request: Request,
    identity: [u8; 32],
    clip: Arc<Prepared>,
    used: Instant,
    /// Who had something of it already.
    askers: Vec<(Who, Option<IpAddr>)>,
}

/// Clips, the one that was asked for last in front.
#[derive(Default)]
pub struct Cache {
    entries: VecDeque<Entry>,
}

impl Cache {
    /// The clip of footage that is the same to the byte.
    pub fn of_identity(&mut self, identity: &[u8; 32], request: &Request, now: Instant) -> Option<Arc<Prepared>> {
        let at = self.entries.iter().position(|e| e.identity == *identity)?;
        let mut entry = self.entries.remove(at)?;
        entry.request = request.clone();
        Some(self.touch(entry, now))
    }

    /// What was given last to this request.
    pub fn of_request(&mut self, request: &Request, now: Instant) -> Option<Arc<Prepared>> {
        let at = self.entries.iter().position(|e| e.request == *request)?;
        let entry = self.entries.remove(at)?;
        Some(self.touch(entry, now))
    }

    fn touch(&mut self, mut entry: Entry, now: Instant) -> Arc<Prepared> {
        entry.used = now;
        let clip = entry.clip.clone();
        self.entries.push_front(entry);
        clip
    }

    /// Keeps a clip.
    pub fn insert(&mut self, identity: [u8; 32], request: Request, clip: &Arc<Prepared>, now: Instant) {
        self.entries.retain(|e| e.identity != identity);
        if clip.memory() > BYTES_MAX {
            return;
        }
        self.entries.push_front(Entry {
            request,
            identity,
            clip: clip.clone(),
            used: now,
            askers: Vec::new(),
        });
        self.trim(now);
    }

    /// Lets go of what is too old or too much.
    pub fn trim(&mut self, now: Instant) {
        let mut bytes = 0;
        self.entries.retain(|e| now.duration_since(e.used) <= IDLE_MAX);
        self.entries.truncate(CLIPS_MAX);
        let fit = self.entries.iter().take_while(|e| {
            bytes += e.clip.memory();
            bytes <= BYTES_MAX
        });
        let fit = fit.count();
        self.entries.truncate(fit);
    }

    /// Whether somebody has had nothing of this clip yet; from now on they have.
    pub fn is_new(&mut self, clip: &Arc<Prepared>, who: &Who, peer: Option<IpAddr>) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|e| Arc::ptr_eq(&e.clip, clip)) else {
            return true;
        };
        if entry.askers.iter().any(|(w, p)| w == who && *p == peer) {
            return false;
        }
        if entry.askers.len() < ASKERS_MAX {
            entry.askers.push((who.clone(), peer));
        }
        true
    }
}
