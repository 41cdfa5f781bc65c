//! Signs of life for systemd: passed on only while every part makes progress.
//!
//! One stuck part is enough to stop them, since it does not come back by itself: a shard that hangs records none of its cameras. An archive
//! whose thread waits for its disk in the kernel is the exception: a restart would wait for the same disk, and the cameras of all other
//! disks would stand still with it. That is told by the log, `/healthz` and the metrics instead.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_shard::{Class, Task, WorkerState, spawn, time};

use super::{appliance::Appliance, notify::Notify};

/// A shard or the control executor that was not heard of for this long is stuck.
const SHARD_SILENT_MAX: Duration = Duration::from_secs(10);
/// An archive that had something to do for this long without doing any of it is stuck. Deleting or repairing on a slow disk takes its time.
const ARCHIVE_STUCK_MAX: Duration = Duration::from_secs(120);
/// A message about a stuck part is repeated this often.
const REPEAT: Duration = Duration::from_secs(30);

/// A part and for how long it has made no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `shard-0`, `control`, `archive /data`.
    pub name: String,
    /// Without progress for.
    pub silent: Duration,
    /// What it is stuck in, as far as is known.
    pub held_by: Option<String>,
    /// Stuck after.
    pub limit: Duration,
}

impl Part {
    /// A shard.
    pub fn shard(name: String, silent: Duration, held_by: Option<String>) -> Self {
        Self {
            name,
            silent,
            held_by,
            limit: SHARD_SILENT_MAX,
        }
    }

    /// An archive; one that waits for its disk is not called stuck.
    pub fn archive(name: String, state: &WorkerState) -> Self {
        let waits = state
            .thread
            .as_ref()
            .is_some_and(corenvr_shard::ThreadState::waits_for_disk);
        Self {
            name,
            silent: if waits { Duration::ZERO } else { state.stuck_for },
            held_by: state.thread.as_ref().map(ToString::to_string),
            limit: ARCHIVE_STUCK_MAX,
        }
    }
}

/// Decides whether a sign of life is given.
pub struct Watchdog {
    limit: Duration,
    said: Option<Instant>,
}

impl Watchdog {
    /// `limit`: after how long without a sign systemd ends the service.
    pub const fn new(limit: Duration) -> Self {
        Self { limit, said: None }
    }

    /// How often to look: several times within the limit, so that a look that is late does not cost the service.
    pub fn interval(&self) -> Duration {
        (self.limit / 4).min(Duration::from_secs(5))
    }

    /// The parts that are stuck; a sign of life is due if there are none. With a short limit a shard is stuck after half of it.
    pub fn stuck<'a>(&self, parts: &'a [Part]) -> Vec<&'a Part> {
        let limit = |p: &Part| {
            if p.limit == SHARD_SILENT_MAX {
                p.limit.min(self.limit / 2)
            } else {
                p.limit
            }
        };
        parts.iter().filter(|p| p.silent >= limit(p)).collect()
    }

    /// Gives the sign or says why not.
    fn pass(&mut self, parts: &[Part], notify: &Notify) {
        let stuck = self.stuck(parts);
        if stuck.is_empty() {
            self.said = None;
            return notify.watchdog();
        }
        if self.said.is_none_or(|said| said.elapsed() >= REPEAT) {
            notify.status(&format!("{} makes no progress", stuck[0].name));
            for part in stuck {
                let held_by = part.held_by.as_deref();
                tracing::error!(part = %part.name, silent_ms = part.silent.as_millis() as u64, held_by, "makes no progress; systemd gets no sign of life");
            }
            self.said = Some(Instant::now());
        }
    }
}

/// Passes signs of life on, if systemd wants any.
pub fn start(appliance: Rc<Appliance>, notify: Arc<Notify>) -> Option<Task<()>> {
    let limit = notify.watchdog_limit()?;
    let parts = move || appliance.parts();
    Some(spawn(
        Class::Maintenance,
        "watchdog",
        run(Watchdog::new(limit), parts, notify),
    ))
}

async fn run(mut watchdog: Watchdog, parts: impl Fn() -> Vec<Part>, notify: Arc<Notify>) {
    loop {
        watchdog.pass(&parts(), &notify);
        time::sleep(watchdog.interval()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use corenvr_shard::{Config, ThreadState, run_control};

    use super::*;

    fn worker(stuck_for: u64, state: char) -> WorkerState {
        WorkerState {
            queued: 1,
            stuck_for: Duration::from_secs(stuck_for),
            thread: Some(ThreadState {
                state,
                system_call: None,
                wait_channel: None,
            }),
            panics: 0,
        }
    }

    #[test]
    fn one_stuck_part_is_enough_unless_it_waits_for_its_disk() {
        let well = Part::shard("shard-0".into(), Duration::from_millis(90), None);
        let stuck = Part::shard("shard-1".into(), Duration::from_secs(11), None);
        let watchdog = Watchdog::new(Duration::from_secs(30));
        let names = |parts: &[Part]| watchdog.stuck(parts).iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        assert!(names(std::slice::from_ref(&well)).is_empty());
        assert_eq!(names(&[well.clone(), stuck]), ["shard-1"]);
        let slow = Part::archive("archive /a".into(), &worker(100, 'R'));
        assert!(names(&[well.clone(), slow]).is_empty());
        let hung = Part::archive("archive /a".into(), &worker(121, 'S'));
        assert_eq!(names(&[well.clone(), hung]), ["archive /a"]);
        let disk = Part::archive("archive /a".into(), &worker(1000, 'D'));
        assert!(names(&[well, disk]).is_empty());
        // A shorter limit is kept as well.
        let stuck = [Part::shard("shard-1".into(), Duration::from_secs(2), None)];
        assert_eq!(Watchdog::new(Duration::from_secs(4)).stuck(&stuck).len(), 1);
    }

    /// Two real shards, one of which stands still for a while: the signs stop meanwhile and come again afterwards.
    #[test]
    fn signs_of_life_stop_while_one_of_two_shards_stands_still() {
        const LIMIT: Duration = Duration::from_secs(2);
        const STANDS_STILL: Duration = Duration::from_secs(5);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let listening = std::thread::spawn(move || {
            let (mut signs, mut buffer) = (Vec::new(), [0; 256]);
            while let Ok(n) = systemd.recv(&mut buffer) {
                match &buffer[..n] {
                    b"WATCHDOG=1" => signs.push(Instant::now()),
                    b"STOPPING=1\nSTATUS=Finishing the open recordings" => break,
                    _ => {}
                }
            }
            signs
        });
        let shards = corenvr_shard::start(&Config { cpus: vec![0, 0] }, |context| async move {
            if context.id.0 == 1 {
                time::sleep(Duration::from_secs(2)).await;
                spawn(Class::Recording, "stands still", async {
                    std::thread::sleep(STANDS_STILL);
                })
                .await
                .unwrap();
            }
            context.stop.requested().await;
        })
        .unwrap();
        let stats = shards.stats();
        let notify = Arc::new(Notify::to(path.to_str().unwrap(), Some(LIMIT)));
        let stopping = notify.clone();
        run_control(async move {
            let parts = move || {
                let snapshots = stats.iter().map(|s| s.snapshot());
                snapshots.map(|s| Part::shard(s.name, s.silent_for, None)).collect()
            };
            let feeding = spawn(Class::Maintenance, "watchdog", run(Watchdog::new(LIMIT), parts, notify));
            time::sleep(STANDS_STILL + Duration::from_secs(5)).await;
            feeding.cancel().await;
        })
        .unwrap();
        stopping.stopping();
        let signs = listening.join().unwrap();
        assert!(shards.join(Duration::from_secs(20)));
        let longest = signs.windows(2).map(|w| w[1] - w[0]).max().unwrap();
        assert!(
            signs.len() > 5 && longest > LIMIT,
            "the longest pause was {longest:?} of {} signs",
            signs.len()
        );
        assert!(longest < STANDS_STILL + LIMIT, "{longest:?}");
    }
}
