//! An RTMP encoder that shares no code with corenvr: for what ffmpeg does not send, such as H.265 and streams that have run for days.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::process::run;

/// Bytes of a chunk, as announced.
const CHUNK_LEN: usize = 1000;

/// How type 3 chunks are written behind an extended time stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// With the time stamp again, as the specification says.
    Repeated,
    /// Without it, as older encoders do.
    LeftOut,
}

/// How H.265 is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hevc {
    /// Codec 12 of a legacy tag.
    Legacy,
    /// `hvc1` of enhanced RTMP.
    Enhanced,
}

/// An access unit of a clip, as a file holds it: 4-byte lengths.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Decoding and presentation time in ms.
    pub dts_ms: u32,
    /// As above.
    pub pts_ms: u32,
    /// A key frame.
    pub key: bool,
    /// The unit.
    pub data: Vec<u8>,
}

/// The picture of a Matroska clip: its configuration record and its access units in decode order.
pub fn units_of(clip: &Path) -> (Vec<u8>, Vec<Unit>) {
    let probe = |entries: &str, data: bool| {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-select_streams", "v:0", "-show_entries", entries]);
        if data {
            command.arg("-show_data");
        }
        let out = run(command.args(["-of", "compact=p=0"]).arg(clip)).stdout;
        String::from_utf8(out).unwrap()
    };
    let hex = |line: &str| -> Vec<u8> {
        let digits = line.split_once(": ").map_or("", |(_, rest)| rest);
        let digits: String = digits.chars().take(40).filter(|c| !c.is_whitespace()).collect();
        (0..digits.len() / 2)
            .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    };
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=extradata",
    ]);
    let dump = run(command.arg("-show_data").arg(clip)).stdout;
    let record = String::from_utf8(dump)
        .unwrap()
        .lines()
        .filter(|l| l.starts_with("0000"))
        .flat_map(hex)
        .collect();
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i"]).arg(clip);
    let all = run(command.args(["-map", "0:v:0", "-c", "copy", "-f", "data", "-"])).stdout;
    let mut rest = &all[..];
    let units = probe("packet=pts_time,dts_time,size,flags", false)
        .lines()
        .filter(|l| l.contains("size="))
        .map(|line| {
            let field = |name: &str| {
                let pairs = line.split('|').filter_map(|pair| pair.split_once('='));
                pairs
                    .filter(|(k, _)| *k == name)
                    .map(|(_, v)| v.to_owned())
                    .next()
                    .unwrap_or_default()
            };
            let ms = |name: &str| field(name).parse::<f64>().ok().map(|s| (s * 1000.0).round() as i64);
            let (data, tail) = rest.split_at(field("size").parse().unwrap());
            rest = tail;
            let pts = ms("pts_time").unwrap();
            Unit {
                dts_ms: ms("dts_time").unwrap_or(pts).max(0) as u32,
                pts_ms: pts as u32,
                key: field("flags").starts_with('K'),
                data: data.to_vec(),
            }
        })
        .collect();
    (record, units)
}

/// A publisher's connection.
pub struct Encoder {
    stream: TcpStream,
    extended: Extended,
}

impl Encoder {
    /// Connects and publishes, which must be accepted.
    pub fn publish(port: u16, key: &str, extended: Extended) -> Self {
        let (encoder, answers) = Self::ask(port, key, extended);
        assert!(answers.contains("NetStream.Publish.Start"), "{answers}");
        encoder
    }

    /// Connects and asks to publish; what the server answered, as text.
    pub fn ask(port: u16, key: &str, extended: Extended) -> (Self, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&[3]).unwrap();
        stream.write_all(&[7; 1536]).unwrap();
        let mut hello = vec![0; 1 + 2 * 1536];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello[1..=1536]).unwrap();
        let mut encoder = Self { stream, extended };
        encoder.message(2, 1, 0, 0, &(CHUNK_LEN as u32).to_be_bytes(), 128);
        let string = |text: &str| [&[2, 0, text.len() as u8], text.as_bytes()].concat();
        let number = |n: f64| [&[0][..], &n.to_be_bytes()].concat();
        let property = |name: &str, value: &str| [&[0, name.len() as u8], name.as_bytes(), &string(value)].concat();
        let connect = [
            string("connect"),
            number(1.0),
            vec![3],
            property("app", "live"),
            property("tcUrl", &format!("rtmp://127.0.0.1:{port}/live")),
            vec![0, 0, 9],
        ];
        encoder.command(0, &connect.concat());
        encoder.command(0, &[string("createStream"), number(2.0), vec![5]].concat());
        let publish = [string("publish"), number(3.0), vec![5], string(key), string("live")];
        encoder.command(1, &publish.concat());
        let mut answers = Vec::new();
        let mut buffer = [0; 4096];
        // Read on until the answer to publish is there.
        loop {
            let n = encoder.stream.read(&mut buffer).unwrap();
            answers.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&answers).into_owned();
            if n == 0 || text.contains("NetStream.Publish.") {
                return (encoder, text);
            }
        }
    }

    fn command(&mut self, stream_id: u32, body: &[u8]) {
        self.message(3, 20, 0, stream_id, body, CHUNK_LEN);
    }

    fn message(&mut self, chunk_stream: u8, kind: u8, time: u32, stream_id: u32, body: &[u8], chunk_len: usize) {
        let mut out = vec![chunk_stream];
        let extended = time >= 0xFF_FFFF;
        out.extend_from_slice(&time.min(0xFF_FFFF).to_be_bytes()[1..]);
        out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        out.push(kind);
        out.extend_from_slice(&stream_id.to_le_bytes());
        if extended {
            out.extend_from_slice(&time.to_be_bytes());
        }
        for (index, piece) in body.chunks(chunk_len).enumerate() {
            if index > 0 {
                out.push(0xC0 | chunk_stream);
                if extended && self.extended == Extended::Repeated {
                    out.extend_from_slice(&time.to_be_bytes());
                }
            }
            out.extend_from_slice(piece);
        }
        self.stream.write_all(&out).unwrap();
    }

    /// Sends the configuration record of H.265.
    pub fn hevc_record(&mut self, time: u32, record: &[u8], hevc: Hevc) {
        let head: &[u8] = match hevc {
            Hevc::Legacy => &[0x1C, 0, 0, 0, 0],
            Hevc::Enhanced => b"\x90hvc1",
        };
        self.message(6, 9, time, 1, &[head, record].concat(), CHUNK_LEN);
    }

    /// Sends an access unit of H.265, `offset` being added to its time.
    pub fn hevc_unit(&mut self, unit: &Unit, offset: u32, hevc: Hevc) {
        let composition = (unit.pts_ms - unit.dts_ms).to_be_bytes();
        let frame = if unit.key { 1 } else { 2 };
        let head = match hevc {
            Hevc::Legacy => [&[frame << 4 | 0x0C, 1], &composition[1..]].concat(),
            // Without a composition time there is a shorter form.
            Hevc::Enhanced if unit.pts_ms == unit.dts_ms => [&[0x80 | frame << 4 | 3][..], b"hvc1"].concat(),
            Hevc::Enhanced => [&[0x80 | frame << 4 | 1][..], b"hvc1", &composition[1..]].concat(),
        };
        let time = unit.dts_ms.wrapping_add(offset);
        self.message(6, 9, time, 1, &[&head, &unit.data[..]].concat(), CHUNK_LEN);
    }

    /// Sends a clip of H.265 at its own pace, its first time stamp being `offset`.
    pub fn hevc_clip(&mut self, clip: &Path, offset: u32, hevc: Hevc) {
        let (record, units) = units_of(clip);
        self.hevc_record(offset, &record, hevc);
        let begun = Instant::now();
        for unit in &units {
            let due = Duration::from_millis(u64::from(unit.dts_ms));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            self.hevc_unit(unit, offset, hevc);
        }
    }
}
