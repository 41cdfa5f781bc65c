//! The device against `ZLMediaKit`, a public server with an RTP server for GB28181, so that two mistakes of ours cannot agree with each other.
//!
//! Start it (`MediaServer -c config.ini`), then `ZLM=127.0.0.1:HTTP_PORT ZLM_RTSP=RTSP_PORT cargo test -p corenvr-gb28181-device -- --ignored zlm`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
};

use super::{
    CHANNEL, PATIENCE, config,
    container::{decoded, write_raw},
    h264, h265,
    platform::{Platform, offer},
};
use crate::{Deviation, Deviations, Device, SipTransport, Source};

fn api(call: &str) -> String {
    let address = std::env::var("ZLM").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /index/api/{call} HTTP/1.1\r\nHost: zlm\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split("\r\n\r\n").nth(1).unwrap().to_owned()
}

/// Streams to the server for some seconds and has `ffmpeg` decode what it serves: pictures decoded, errors, codecs.
fn relayed(source: Arc<Source>, deviations: Deviations, transport: &str, id: &str) -> Result<(usize, String), String> {
    let secret = std::env::var("ZLM_SECRET").unwrap_or_default();
    let mode = match transport {
        "udp" => 0,
        "passive" => 1,
        _ => 2,
    };
    let ssrc = 200_000_001;
    let opened = api(&format!(
        "openRtpServer?secret={secret}&port=0&tcp_mode={mode}&stream_id={id}"
    ));
    let port = opened.split("\"port\" : ").nth(1).ok_or(&opened)?;
    let port: u16 = port
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let mut platform = Platform::new(SipTransport::Udp);
    let device_source = source.clone();
    let mut config = config(&platform, source);
    config.deviations = deviations;
    let device = Device::start(config).unwrap();
    platform.register();
    let mut call = platform
        .invite(CHANNEL, &offer("Play", transport, port, "0 0", ssrc))
        .map_err(|s| s.to_string())?;
    if transport == "active" {
        let media = call.sdp.split("m=video ").nth(1).unwrap().split(' ').next().unwrap();
        let connected = api(&format!(
            "connectRtpServer?secret={secret}&stream_id={id}&dst_url=127.0.0.1&dst_port={media}"
        ));
        if !connected.contains("\"code\" : 0") {
            return Err(connected);
        }
    }
    let session = device.wait_invite(PATIENCE).unwrap();
    device.wait_units(session, 100, PATIENCE);
    let result = pulled(id, &device_source);
    platform.within(&mut call, "BYE", "");
    api(&format!("closeRtpServer?secret={secret}&stream_id={id}"));
    Ok(result)
}

/// What `ffmpeg` decodes of a stream of the server in four seconds: pictures that are, by their MD5, pictures of the source; and the rest in words.
fn pulled(id: &str, source: &Source) -> (usize, String) {
    let rtsp = std::env::var("ZLM_RTSP").unwrap_or_else(|_| "554".into());
    let output = Command::new("timeout")
        .args([
            "20",
            "ffmpeg",
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "info",
            "-rtsp_transport",
            "tcp",
            "-i",
        ])
        .arg(format!("rtsp://127.0.0.1:{rtsp}/rtp/{id}"))
        .args([
            "-t",
            "4",
            "-map",
            "0:v",
            "-map",
            "0:a?",
            "-fps_mode",
            "passthrough",
            "-f",
            "framemd5",
            "-",
        ])
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&output.stdout);
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    write_raw(source, &raw);
    let own = decoded(&raw, &["-map", "0:v", "-fps_mode", "passthrough"]);
    let md5 = |l: &&str| l.rsplit(',').next().unwrap_or_default().trim().to_owned();
    let lines = || list.lines().filter(|l| l.starts_with("0,"));
    let pictures = lines().filter(|l| own.contains(&md5(l))).count();
    let foreign = lines().count() - pictures;
    let sound = list.lines().filter(|l| l.starts_with("1,")).count();
    let errors = String::from_utf8_lossy(&output.stderr);
    let streams: Vec<&str> = errors
        .lines()
        .take_while(|l| !l.contains("Stream mapping"))
        .filter(|l| l.contains("Stream #0:"))
        .map(str::trim)
        .collect();
    let trouble = errors
        .lines()
        .filter(|l| l.contains("error") || l.contains("corrupt") || l.contains("Invalid"))
        .count();
    (
        pictures,
        format!("{foreign} pictures that were never sent, {sound} sound packets, {trouble} complaints, {streams:?}"),
    )
}

#[test]
#[ignore = "needs a running ZLMediaKit"]
fn zlm_relays_what_the_device_sends() {
    for transport in ["passive", "udp", "active"] {
        for (name, source) in [("h264", h264()), ("h265", h265())] {
            let result = relayed(
                source,
                Deviations::NONE,
                transport,
                &format!("plain-{name}-{transport}"),
            );
            println!("{name} over {transport}: {result:?}");
            let (pictures, _) = result.unwrap();
            assert!(pictures >= 75, "{name} over {transport}: {pictures} pictures");
        }
    }
}

/// Nothing is required here: the list says with which deviations the public server copes.
#[test]
#[ignore = "needs a running ZLMediaKit"]
fn zlm_with_deviations() {
    for deviation in Deviation::ALL {
        if matches!(
            deviation,
            Deviation::InviteSilent | Deviation::Invite486 | Deviation::Invite488
        ) {
            continue;
        }
        let packets = matches!(deviation, Deviation::Loss | Deviation::Reorder | Deviation::Duplicates);
        let transport = if packets { "udp" } else { "passive" };
        let result = relayed(
            h264(),
            Deviations::NONE.with(*deviation),
            transport,
            &format!("with-{deviation}"),
        );
        println!("{deviation}: {result:?}");
    }
}
