//! What a channel of a GB28181 device costs beside an RTSP camera with the same clip: media over TCP (the device connects) and over UDP.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use corenvr_tests::process::{Guarded, corenvr, free_port};

use super::{LOAD_CPU, Recorder, clip, measure, simulated_cameras};

const DEVICE: &str = "34020000001180000001";
const SERVER: &str = "34020000002000000001";
const PASSWORD: &str = "bench-password";

/// Prints the table.
pub fn run(seconds: u64, channels: usize) {
    println!(
        "| {channels} cameras | ms CPU per camera-second | ratio to RTSP | RSS | packets lost |\n|---|---|---|---|---|"
    );
    let rtsp = {
        let (_sim, port) = simulated_cameras(channels);
        let recorder = Recorder::start(channels, port);
        row("RTSP over TCP", &recorder, seconds, channels, None)
    };
    for (name, word) in [("GB28181 over TCP", "tcp-passive"), ("GB28181 over UDP", "udp")] {
        let sip = free_port();
        let recorder = Recorder::configured(&format!(
            "[gb28181]\nlisten = \"127.0.0.1:{sip}\"\npassword = \"{PASSWORD}\"\nmedia_ports = \"33000-{}\"\n\
             [[camera]]\nname = \"site\"\nurl = \"gb28181://{DEVICE}/*?transport={word}\"\n",
            33_000 + 4 * channels
        ))
        .run();
        let _device = device(sip, channels);
        row(name, &recorder, seconds, channels, Some(rtsp));
    }
}

fn row(name: &str, recorder: &Recorder, seconds: u64, channels: usize, beside: Option<f64>) -> f64 {
    recorder.wait_recording(channels);
    std::thread::sleep(Duration::from_secs(5));
    let (cpu, rss) = measure(recorder.pid(), seconds, channels);
    let status = recorder.json(&["status"]);
    let cameras = status["cameras"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lost: u64 = cameras
        .iter()
        .filter_map(|c| c["counters"]["packets_lost"].as_u64())
        .sum();
    println!(
        "| {name} | {cpu:.2} | {:.2} | {rss:.0} MiB | {lost} |",
        cpu / beside.unwrap_or(cpu)
    );
    cpu
}

fn device(sip: u16, channels: usize) -> Guarded {
    let child = Command::new("taskset")
        .args(["-c", LOAD_CPU])
        .arg(corenvr())
        .args([
            "sim",
            "gb28181",
            "--server",
            &format!("127.0.0.1:{sip}"),
            "--server-id",
            SERVER,
        ])
        .args([
            "--device",
            DEVICE,
            "--password",
            PASSWORD,
            "--channels",
            &channels.to_string(),
        ])
        .arg("--file")
        .arg(clip())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Guarded(child)
}
