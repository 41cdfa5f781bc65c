//! What viewers cost at each rate: an archive is written, then played to many sessions at once, while one more seeks in it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, CodecParameters, Frame, WallTime};
use corenvr_shard::{Class, run_control, spawn, time::sleep};
use corenvr_store::{
    Archive, ArchiveOptions, SegmentHeader,
    mkv::{file::SegmentFile, import::read_clip},
};

use crate::{Recorder, clip, measure, rtsp::Client};

const CAMERAS: usize = 8;
const SEGMENTS: i64 = 2;
const SEGMENT_SECONDS: i64 = 180;
/// Footage of each camera, in seconds.
const LENGTH: f64 = (SEGMENTS * SEGMENT_SECONDS) as f64;
const CLUSTER_SECONDS: i64 = 2;
const SEEKS: u64 = 200;

/// Prints a row for each rate and number of sessions.
pub fn run(seconds: u64) {
    let recorder = Recorder::prepare(0, 0);
    let start = write_archive(&recorder.dir.path().join("rec"));
    let recorder = recorder.run();
    let pid = recorder.pid();
    std::thread::sleep(Duration::from_secs(5));
    println!(
        "recorder without viewers: {:.1} ms CPU per second\n",
        measure(pid, 5, 1).0
    );
    println!(
        "| rate | sessions | ms CPU per session-second | PLAY to first packet p50 | p99 | from disk per session-second | sent | RSS |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for (rate, sessions) in [(1.0, 50), (1.0, 200), (8.0, 50), (32.0, 50), (-8.0, 50)] {
        let viewers = Viewers::start(recorder.rtsp_port, sessions, &start, rate);
        std::thread::sleep(Duration::from_secs(5));
        let (before, begun) = (counters(&recorder), Instant::now());
        let (per_session, rss) = measure(pid, seconds.min(20), sessions);
        let (after, elapsed) = (counters(&recorder), begun.elapsed().as_secs_f64());
        let mut times = first_packets(recorder.rtsp_port, &start, rate);
        times.sort();
        let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
        drop(viewers);
        let mib = |i: usize| (after[i] - before[i]) / elapsed / sessions as f64 / f64::from(1 << 20);
        println!(
            "| {rate}x | {sessions} | {per_session:.2} | {:.1} ms | {:.1} ms | {:.2} MiB | {:.2} MiB | {rss:.0} MiB |",
            at(0.5),
            at(0.99),
            mib(0),
            mib(1)
        );
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// Bytes read from disk and bytes sent so far; an earlier version, given by `CORENVR` to compare with, may not count them.
fn counters(recorder: &Recorder) -> [f64; 2] {
    let status = recorder.json(&["status"]);
    let counters = &status["playback"]["counters"];
    ["bytes_read", "bytes"].map(|name| counters[name].as_f64().unwrap_or(f64::NAN))
}

/// Writes the clip again and again for every camera; returns when it begins.
fn write_archive(storage: &Path) -> String {
    eprintln!("writing {CAMERAS} recordings of {LENGTH} s");
    let source = read_clip(&std::fs::read(clip()).unwrap()).unwrap();
    let tracks: Arc<[CodecParameters]> = source.tracks.into();
    let first = source.frames.iter().map(|f| f.time).min().unwrap();
    let clip_micros = 10_000_000;
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let start = WallTime::from_micros(WallTime::from_system(hour_ago).as_micros() / 1_000_000 * 1_000_000);
    let mut archive = Archive::open(&ArchiveOptions::new(storage)).unwrap();
    archive.recover(&mut |_| ()).unwrap();
    for camera in 1..=CAMERAS {
        for segment in 0..SEGMENTS {
            let start = start.offset(segment * SEGMENT_SECONDS * 1_000_000);
            let header = SegmentHeader {
                camera: CameraName::new(&format!("cam{camera}")).unwrap(),
                start,
                tracks: tracks.clone(),
                gap_before: None,
                backfilled_until: None,
            };
            let opened = archive.open_segment(header).unwrap();
            let mut file = SegmentFile::start(&opened.path, opened.header).unwrap();
            for cluster in 0..SEGMENT_SECONDS / CLUSTER_SECONDS {
                let from = cluster * CLUSTER_SECONDS * 1_000_000;
                let within = from % clip_micros..from % clip_micros + CLUSTER_SECONDS * 1_000_000;
                let part: Vec<Frame> = source
                    .frames
                    .iter()
                    .filter(|f| within.contains(&f.time.micros_since(first)))
                    .map(|f| Frame {
                        time: start.offset(from + f.time.micros_since(first) - within.start),
                        ..f.clone()
                    })
                    .collect();
                for info in file.append(&part).unwrap() {
                    archive.cluster_durable(&opened.key, &info).unwrap();
                }
            }
            let sealed = file.seal().unwrap();
            archive.seal_segment(&opened.key, sealed).unwrap();
        }
    }
    archive.flush().unwrap();
    start.to_clock()
}

/// The place of a viewer in the footage that leaves most of it to be played in the direction of its rate.
fn spread(i: u64, rate: f64) -> f64 {
    let place = (i * 7) as f64 % (LENGTH / 4.0);
    if rate < 0.0 { LENGTH - place } else { place }
}

fn request(at: f64, rate: f64) -> String {
    format!("Range: npt={at:.3}-\r\nScale: {rate:.1}\r\n")
}

/// Sessions that play and throw away, on a thread of this process.
struct Viewers(std::sync::mpsc::Sender<()>, Option<std::thread::JoinHandle<()>>);

impl Viewers {
    fn start(port: u16, sessions: usize, start: &str, rate: f64) -> Self {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let start = start.to_owned();
        let thread = std::thread::spawn(move || {
            run_control(async move {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                let mut tasks = Vec::new();
                for i in 0..sessions {
                    let url = format!("rtsp://127.0.0.1:{port}/cam{}?start={start}", 1 + i % CAMERAS);
                    tasks.push(spawn(Class::Playback, "viewer", async move {
                        let mut client = Client::set_up(address, &url).await.unwrap();
                        for round in 0.. {
                            client
                                .play(&request(spread(i as u64 + 3 * round, rate), rate))
                                .await
                                .unwrap();
                            let until = Instant::now() + Duration::from_secs_f64(LENGTH / 2.0 / rate.abs());
                            while Instant::now() < until {
                                client.buffer.clear();
                                if client.stream.read_into(&mut client.buffer).await.unwrap() == 0 {
                                    return;
                                }
                            }
                        }
                    }));
                    sleep(Duration::from_millis(20)).await;
                }
                while matches!(rx.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                    sleep(Duration::from_millis(50)).await;
                }
            })
            .unwrap();
        });
        Self(tx, Some(thread))
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        let _ = self.0.send(());
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

fn first_packets(port: u16, start: &str, rate: f64) -> Vec<Duration> {
    let url = format!("rtsp://127.0.0.1:{port}/cam1?start={start}");
    run_control(async move {
        let mut client = Client::set_up(SocketAddr::from(([127, 0, 0, 1], port)), &url)
            .await
            .unwrap();
        client.play(&request(LENGTH / 2.0, rate)).await.unwrap();
        let (mut times, mut seed) = (Vec::new(), 1u64);
        for _ in 0..SEEKS {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = 2.0 + (seed >> 33) as f64 / f64::from(u32::MAX >> 1) * (LENGTH - 7.0);
            times.push(client.seek(&request(at, rate)).await.unwrap());
            sleep(Duration::from_millis(50)).await;
        }
        times
    })
    .unwrap()
}
