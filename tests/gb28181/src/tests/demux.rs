//! The other direction, for tests only: RTP packets from a socket, and strict reading of what stands in them.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use corenvr_media::VideoCodec;
use sha2::{Digest, Sha256};

use crate::source::is_slice;

/// An RTP packet.
#[derive(Debug, Clone)]
pub struct Packet {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub time: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

impl Packet {
    /// RFC 3550 5.1.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 12 || bytes[0] >> 6 != 2 {
            return None;
        }
        let mut payload = &bytes[12 + 4 * usize::from(bytes[0] & 15)..];
        if bytes[0] & 0x10 != 0 {
            payload = &payload[4 + 4 * usize::from(u16::from_be_bytes([payload[2], payload[3]]))..];
        }
        if bytes[0] & 0x20 != 0 {
            payload = &payload[..payload.len() - usize::from(*payload.last()?)];
        }
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Some(Self {
            marker: bytes[1] >> 7 == 1,
            payload_type: bytes[1] & 0x7F,
            seq: word(0) as u16,
            time: word(4),
            ssrc: word(8),
            payload: payload.to_vec(),
        })
    }
}

enum Door {
    Udp(UdpSocket),
    Listener(TcpListener),
    Stream(TcpStream),
}

/// Collects packets until it is asked for them.
pub struct Collector {
    pub port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Packet>>,
}

impl Collector {
    pub fn udp() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self::start(port, Door::Udp(socket))
    }

    pub fn tcp_passive() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::start(port, Door::Listener(listener))
    }

    pub fn tcp_active(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        Self::start(port, Door::Stream(stream))
    }

    fn start(port: u16, door: Door) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || match door {
            Door::Udp(socket) => collect_datagrams(&socket, &stopped),
            Door::Stream(stream) => collect_stream(stream, &stopped),
            Door::Listener(listener) => loop {
                match listener.accept() {
                    Ok((stream, _)) => return collect_stream(stream, &stopped),
                    Err(_) if stopped.load(Ordering::Relaxed) => return Vec::new(),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            },
        });
        Self { port, stop, thread }
    }

    /// What came.
    pub fn finish(self) -> Vec<Packet> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn collect_datagrams(socket: &UdpSocket, stop: &AtomicBool) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(len) = socket.recv(&mut buffer) {
            packets.push(Packet::parse(&buffer[..len]).expect("an RTP packet"));
        }
    }
    packets
}

fn collect_stream(mut stream: TcpStream, stop: &AtomicBool) -> Vec<Packet> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&chunk[..len]),
            Err(_) => {}
        }
    }
    let mut packets = Vec::new();
    let mut rest = bytes.as_slice();
    loop {
        // Garbage of the simulated device: 7 bytes that begin with FE 01.
        if rest.starts_with(&[0xFE, 0x01, 0x13]) {
            rest = rest.get(7..).unwrap_or_default();
        }
        let head = if rest.first() == Some(&b'$') { 2 } else { 0 };
        let Some(len) = rest.get(head..head + 2) else {
            return packets;
        };
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let Some(packet) = rest.get(head + 2..head + 2 + len) else {
            return packets;
        };
        packets.push(Packet::parse(packet).expect("an RTP packet"));
        rest = &rest[head + 2 + len..];
    }
}

/// What a piece of a program stream holds.
#[derive(Debug, Default)]
pub struct Piece {
    /// Video PES packets: PTS where there is one, and payload.
    pub video: Vec<(Option<u64>, Vec<u8>)>,
    pub audio: Vec<(Option<u64>, Vec<u8>)>,
    /// Stream types of the map.
    pub map: Option<Vec<u8>>,
    pub map_crc_right: bool,
    pub system_header: bool,
    pub pack_stuffing: usize,
    pub other_ids: Vec<u8>,
}

/// Reads a piece of a program stream; every byte has to belong to something.
pub fn program_stream(bytes: &[u8]) -> Piece {
    let mut piece = Piece::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        assert_eq!(rest[..3], [0, 0, 1], "no start code at {at}");
        let len = |i: usize| usize::from(u16::from_be_bytes([rest[i], rest[i + 1]]));
        at += match rest[3] {
            0xBA => {
                piece.pack_stuffing = usize::from(rest[13] & 7);
                14 + piece.pack_stuffing
            }
            0xBB => {
                piece.system_header = true;
                6 + len(4)
            }
            0xBC => {
                let map = &rest[..6 + len(4)];
                let entries = map[12..map.len() - 4].chunks(4);
                piece.map = Some(entries.map(|e| e[0]).collect());
                piece.map_crc_right = crate::media::ps::crc32_mpeg(map) == 0;
                map.len()
            }
            id @ (0xC0 | 0xE0) => {
                let end = match len(4) {
                    0 => rest[6..]
                        .windows(4)
                        .position(|w| w[..3] == [0, 0, 1] && w[3] >= 0xB9)
                        .map_or(rest.len(), |p| p + 6),
                    len => 6 + len,
                };
                let header = usize::from(rest[8]);
                let pts = (rest[7] & 0x80 != 0).then(|| {
                    let t: Vec<u64> = rest[9..14].iter().map(|b| u64::from(*b)).collect();
                    (t[0] >> 1 & 7) << 30 | t[1] << 22 | (t[2] >> 1) << 15 | t[3] << 7 | t[4] >> 1
                });
                let list = if id == 0xE0 { &mut piece.video } else { &mut piece.audio };
                list.push((pts, rest[9 + header..end].to_vec()));
                end
            }
            id => {
                piece.other_ids.push(id);
                6 + len(4)
            }
        };
    }
    piece
}

/// NAL units of a byte stream.
pub fn nals(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut starts: Vec<usize> = (0..stream.len().saturating_sub(2))
        .filter(|i| stream[*i..*i + 3] == [0, 0, 1])
        .collect();
    starts.push(stream.len());
    let strip = |nal: &[u8]| nal[..nal.iter().rposition(|b| *b != 0).map_or(0, |p| p + 1)].to_vec();
    starts.windows(2).map(|w| strip(&stream[w[0] + 3..w[1]])).collect()
}

/// NAL units of RTP packets by RFC 6184 and RFC 7798, in order.
pub fn elementary(codec: VideoCodec, packets: &[&Packet]) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    for p in packets.iter().map(|p| p.payload.as_slice()) {
        let h265 = codec == VideoCodec::H265;
        let kind = if h265 { p[0] >> 1 & 0x3F } else { p[0] & 0x1F };
        let (start, header, body) = match (h265, kind) {
            (true, 49) => (p[2] >> 7 == 1, vec![p[0] & 0x81 | (p[2] & 0x3F) << 1, p[1]], &p[3..]),
            (false, 28) => (p[1] >> 7 == 1, vec![p[0] & 0xE0 | p[1] & 0x1F], &p[2..]),
            _ => (true, Vec::new(), p),
        };
        if start {
            nals.push(header);
        }
        nals.last_mut().unwrap().extend_from_slice(body);
    }
    nals
}

/// The hash that the log has of a picture.
pub fn slices_sha256(codec: VideoCodec, nals: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    nals.iter().filter(|n| is_slice(codec, n)).for_each(|n| hash.update(n));
    hash.finalize().into()
}

/// Packets by sequence number, unwrapped from the first; copies are counted.
pub fn by_seq(packets: &[Packet], first: u16) -> (BTreeMap<i64, &Packet>, u32) {
    let mut map = BTreeMap::new();
    let (mut newest, mut copies) = (0i64, 0);
    for packet in packets {
        let seq = newest + i64::from(packet.seq.wrapping_sub(first.wrapping_add(newest as u16)) as i16);
        newest = newest.max(seq);
        copies += u32::from(map.insert(seq, packet).is_some());
    }
    (map, copies)
}
