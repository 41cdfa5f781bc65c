//! What a playing session costs. Not run by itself:
//! `cargo test --release -p corenvr-playback --test rtsp -- --ignored --nocapture bench`.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use corenvr_media::Frame;

use crate::{
    client::{Client, played},
    footage::{GOP, Storage, at, sound, tracks, video},
    server::Server,
};

/// CPU seconds of the thread of that name, from the kernel's clock of 100 a second.
fn cpu_of(thread: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ticks = tasks.filter_map(|t| {
        let dir = t.ok()?.path();
        let name = std::fs::read_to_string(dir.join("comm")).ok()?;
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        (name.trim() == thread).then(|| fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap())
    });
    ticks.sum::<f64>() / 100.0
}

/// About 4 Mbit/s: 20 kB a picture, key frames twice that, and a packet of sound with each.
fn minute() -> Vec<Frame> {
    (0..25 * 60)
        .flat_map(|n| {
            let mut picture = video(n, at(n * 40));
            let mut nal = picture.data[4..].to_vec();
            nal.resize(if n % GOP == 0 { 40_000 } else { 19_500 }, 0x55);
            picture.data = [&(nal.len() as u32).to_be_bytes()[..], &nal].concat().into();
            [picture, sound(n, at(n * 40))]
        })
        .collect()
}

#[test]
#[ignore = "takes a minute and is of use on an idle machine only"]
fn bench() {
    let storage = Storage::new();
    let mut open = storage.open("door", tracks(), at(0));
    // A cluster is what two seconds of recording are.
    for part in minute().chunks(100) {
        open.flush(part);
    }
    open.seal();
    let server = Server::start(&[&storage]);
    for (sessions, udp) in [(1, false), (50, false), (200, false), (50, true)] {
        let url = server.url("door?start=20261120T120000Z");
        let mut first = Vec::new();
        let mut streams = Vec::new();
        let clients: Vec<_> = (0..sessions)
            .map(|i| {
                let mut client = Client::open(&url, udp);
                let asked = Instant::now();
                played(&client.play(Some(&format!("npt={}-", i % 20))));
                if !udp {
                    let mut stream = client.stream();
                    stream.set_read_timeout(None).unwrap();
                    stream.read_exact(&mut [0; 64]).unwrap();
                }
                first.push(asked.elapsed());
                let mut stream = client.stream().try_clone().unwrap();
                streams.push(client.stream().try_clone().unwrap());
                std::thread::spawn(move || {
                    stream.set_read_timeout(None).unwrap();
                    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
                    while let Ok(n) = stream.read(&mut buffer) {
                        bytes += n;
                        if n == 0 {
                            break;
                        }
                    }
                    drop(client);
                    bytes
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        let (cpu, begun) = (cpu_of("shard-0"), Instant::now());
        let before = server.stats.snapshot().counters;
        std::thread::sleep(Duration::from_secs(10));
        let used = (cpu_of("shard-0") - cpu) * 1000.0;
        let after = server.stats.snapshot().counters;
        let seconds = begun.elapsed().as_secs_f64() * f64::from(sessions);
        first.sort();
        println!(
            "{sessions} sessions over {}: {:.2} ms CPU a session-second, {:.2} Mbit/s each, PLAY to first byte p50 {:?} p99 {:?}",
            if udp { "udp" } else { "tcp" },
            used / seconds,
            (after.bytes - before.bytes) as f64 * 8.0 / seconds / 1e6,
            first[first.len() / 2],
            first[first.len() * 99 / 100],
        );
        for stream in &streams {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
        for client in clients {
            drop(client.join());
        }
        server.wait_for_quiet();
    }
}
