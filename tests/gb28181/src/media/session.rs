//! One media session: from the clock over container and packets to its socket.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    cursor::{Cursor, Next},
    ps::{Muxer, Times},
    rtp::{Framing, PacketHead, Packets},
};
use crate::{
    ArchiveSpan, Deviation, Deviations, Impairment, MediaTransport, SessionId, SessionKind, Source, UnitData, UnitLog,
    log::now,
};

/// Datagrams that a session sends before the others have their turn: a key frame in one burst is more than a receive buffer holds.
const BURST_MAX: usize = 24;
/// The pause between two such groups.
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// How often an idle connection is looked at for its end.
const PEEK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a full connection is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);
/// Access units that a session may send in one turn of the thread, when it has fallen behind.
const UNITS_PER_TURN: usize = 64;
/// Where deviant time stamps change, from the start of the session.
const JUMP_AT_90K: i64 = 3 * 90_000;
const HOUR_90K: u64 = 3600 * 90_000;
/// How long media goes on behind a BYE.
pub const STRAGGLE: Duration = Duration::from_secs(2);

/// What a session is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: SessionId,
    pub kind: SessionKind,
    pub transport: MediaTransport,
    pub remote: SocketAddr,
    pub payload_type: u8,
    pub ssrc: u32,
    pub range: Option<(corenvr_media::WallTime, corenvr_media::WallTime)>,
    /// The speed of a download.
    pub speed: f64,
}

/// What all sessions of a device share.
#[derive(Debug, Clone)]
pub struct Common {
    pub source: Arc<Source>,
    pub archive: Vec<ArchiveSpan>,
    pub deviations: Deviations,
    pub impairment: Impairment,
    pub log_units: bool,
}

/// The way to the platform.
#[derive(Debug)]
pub enum Link {
    /// Nothing yet: the ACK or the connection is to come.
    None,
    Udp(UdpSocket),
    Listening(TcpListener),
    Tcp(TcpStream),
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// To be looked at again then.
    Until(Instant),
    /// There is nothing to do until a command comes.
    Idle,
    /// Everything of a playback has just been sent.
    Sent,
    /// The connection has ended.
    Broken,
}

/// What a turn adds to the log.
#[derive(Debug, Default)]
pub struct Progress {
    pub units: Vec<UnitLog>,
    pub units_sent: u64,
    pub stalls: u64,
    pub connected: Option<SocketAddr>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    pub plan: Plan,
    pub link: Link,
    common: Common,
    pub cursor: Cursor,
    muxer: Muxer,
    pub packets: Packets,
    rng: StdRng,
    stream: Vec<u8>,
    /// Added to PTS and RTP time.
    pts_base: u64,
    rtp_base: u32,
    started: bool,
    pub paused: bool,
    /// Silent without a word.
    pub stalled: bool,
    finished: bool,
    peek_at: Option<Instant>,
    /// Media ends then.
    pub until: Option<Instant>,
    pub progress: Progress,
}

impl Session {
    pub fn new(plan: Plan, link: Link, common: Common) -> Self {
        let has = |d| common.deviations.has(d);
        let mut rng = StdRng::seed_from_u64(u64::from(plan.id.0) ^ u64::from(plan.ssrc) << 8);
        let framing = match plan.transport {
            MediaTransport::Udp => Framing::Datagram,
            _ if has(Deviation::InterleavedFraming) => Framing::Interleaved,
            _ => Framing::Length,
        };
        let cursor = match plan.range {
            None => Cursor::live(common.source.clone(), plan.id.0, has(Deviation::MidGopStart)),
            Some(range) => {
                let mut cursor = Cursor::archive(common.source.clone(), &common.archive, range);
                if plan.kind == SessionKind::Download {
                    cursor.set_scale(plan.speed);
                }
                cursor
            }
        };
        let wrap = has(Deviation::RtpWrap);
        let (rtp_base, seq) = (rng.random::<u32>() >> 1, rng.random::<u16>() >> 1);
        let packets = Packets::new(
            framing,
            common.deviations,
            common.impairment,
            if wrap { 65_500 } else { seq },
            u64::from(plan.id.0) + 1,
        );
        Self {
            // Far enough from 0 for a GOP that begins in front of the range, and for the hour that time may fall back.
            pts_base: if has(Deviation::PtsWrap) {
                (1 << 33) - 3 * 90_000
            } else {
                2 * HOUR_90K + u64::from(rng.random::<u16>()) * 90
            },
            rtp_base: if wrap { 0u32.wrapping_sub(2 * 90_000) } else { rtp_base },
            cursor,
            muxer: Muxer::new(&common.source, common.deviations),
            packets,
            rng,
            stream: Vec::new(),
            started: false,
            paused: false,
            stalled: false,
            finished: false,
            peek_at: None,
            until: None,
            progress: Progress::default(),
            link,
            common,
            plan,
        }
    }

    /// Sends what is due.
    pub fn turn(&mut self, at: Instant) -> Turn {
        if self.until.is_some_and(|end| at >= end) {
            return Turn::Broken;
        }
        match self.work(at) {
            Ok(turn) => turn,
            Err(_) => Turn::Broken,
        }
    }

    fn work(&mut self, at: Instant) -> io::Result<Turn> {
        if let Link::Listening(listener) = &self.link {
            match listener.accept() {
                Ok((stream, _)) => self.connected(stream)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Turn::Until(at + RETRY_INTERVAL * 5));
                }
                Err(error) => return Err(error),
            }
        }
        self.look_for_end(at)?;
        for _ in 0..UNITS_PER_TURN {
            if let Some(retry) = self.flush(at)? {
                return Ok(Turn::Until(retry));
            }
            if matches!(self.link, Link::None) || self.paused || self.stalled || self.finished {
                break;
            }
            let Some(due) = self.cursor.due(at) else {
                self.finished = true;
                self.packets.release(true);
                self.flush(at)?;
                return Ok(Turn::Sent);
            };
            if due > at {
                return Ok(Turn::Until(due));
            }
            self.unit();
        }
        Ok(match (&self.link, self.paused || self.stalled || self.finished) {
            (Link::Tcp(_), true) => Turn::Until(at + PEEK_INTERVAL),
            (Link::None, _) | (_, true) => Turn::Idle,
            _ => Turn::Until(at + BURST_PAUSE),
        })
    }

    /// The connection is there.
    pub fn connected(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        self.progress.connected = Some(stream.local_addr()?);
        self.link = Link::Tcp(stream);
        Ok(())
    }

    /// Goes on behind what was sent: after a seek or another speed.
    pub const fn restart(&mut self) {
        self.finished = false;
    }

    fn look_for_end(&mut self, at: Instant) -> io::Result<()> {
        let Link::Tcp(stream) = &mut self.link else {
            return Ok(());
        };
        if self.peek_at.is_some_and(|then| at < then) {
            return Ok(());
        }
        self.peek_at = Some(at + PEEK_INTERVAL);
        // Receiver reports come this way as well; nobody needs them here.
        let mut reports = [0; 2048];
        match stream.read(&mut reports) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Hands packets to the socket; a moment if some are left.
    fn flush(&mut self, at: Instant) -> io::Result<Option<Instant>> {
        match &mut self.link {
            Link::None | Link::Listening(_) => Ok(None),
            Link::Udp(socket) => {
                for _ in 0..BURST_MAX {
                    let Some(datagram) = self.packets.datagram() else {
                        return Ok(None);
                    };
                    match socket.send(datagram) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(Some(at + RETRY_INTERVAL));
                        }
                        // Nobody listens yet or any more; datagrams do not mind.
                        _ => self.packets.datagram_done(),
                    }
                }
                Ok((!self.packets.is_empty()).then_some(at + BURST_PAUSE))
            }
            Link::Tcp(stream) => {
                let dribble = self.common.deviations.has(Deviation::TcpDribble);
                loop {
                    let bytes = self.packets.stream();
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    match stream.write(bytes) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(len) => self.packets.stream_done(len),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.progress.stalls += 1;
                            return Ok(Some(at + RETRY_INTERVAL));
                        }
                        Err(error) => return Err(error),
                    }
                    if dribble && self.rng.random_ratio(1, 8) {
                        return Ok(Some(at + BURST_PAUSE));
                    }
                }
            }
        }
    }

    /// Makes packets of the next access unit.
    fn unit(&mut self) {
        let Some(next) = self.cursor.take() else { return };
        let source = self.common.source.clone();
        let unit = &source.units[next.index];
        let raw = self.common.deviations.has(Deviation::RawEs);
        if raw && unit.track() == crate::Track::Audio {
            return;
        }
        let (times, rtp_time) = self.times(next, raw);
        let mut log = UnitLog {
            track: unit.track(),
            key: unit.key,
            pts_90k: next.pts_90k,
            pts_wire: times.pts & 0x1_FFFF_FFFF,
            rtp_time,
            seq_first: self.packets.seq,
            packets: 0,
            lost: Vec::new(),
            reordered: 0,
            duplicated: 0,
            size: match &unit.data {
                UnitData::Nals(nals) => nals.iter().map(bytes::Bytes::len).sum::<usize>(),
                UnitData::Audio(data) => data.len(),
            } as u32,
            slices_sha256: source.hashes[next.index],
            sent_at: now(),
            archive_time: next.archive_time,
        };
        let head = PacketHead {
            payload_type: self.plan.payload_type,
            ssrc: self.plan.ssrc,
            time: rtp_time,
        };
        match &unit.data {
            UnitData::Nals(nals) if raw => self.packets.elementary_stream(head, source.video, nals, &mut log),
            _ => {
                self.stream.clear();
                self.muxer.unit(unit, times, &mut self.rng, &mut self.stream);
                self.packets.program_stream(head, &self.stream, &mut log);
            }
        }
        self.started = true;
        self.progress.units_sent += 1;
        if self.common.log_units {
            self.progress.units.push(log);
        }
    }

    fn times(&self, next: Next, raw: bool) -> (Times, u32) {
        let mut base = self.pts_base;
        let mut rtp_base = self.rtp_base;
        if next.dts_90k >= JUMP_AT_90K {
            if self.common.deviations.has(Deviation::PtsJump) {
                base += HOUR_90K;
                rtp_base = rtp_base.wrapping_add(HOUR_90K as u32);
            } else if self.common.deviations.has(Deviation::PtsJumpBack) {
                base -= HOUR_90K;
                rtp_base = rtp_base.wrapping_sub(HOUR_90K as u32);
            }
        }
        let times = Times {
            pts: base.wrapping_add_signed(next.pts_90k),
            dts: base.wrapping_add_signed(next.dts_90k),
        };
        // RTP carries a program stream at its decoding time; an elementary stream at its presentation time (RFC 6184 5.1).
        let rtp = if raw { next.pts_90k } else { next.dts_90k };
        (times, rtp_base.wrapping_add(rtp as u32))
    }

    /// The RTP time of the packet that comes next.
    pub fn next_rtp_time(&self) -> u32 {
        let raw = self.common.deviations.has(Deviation::RawEs);
        self.cursor.peek().map_or(0, |next| self.times(next, raw).1)
    }

    /// Whether media has been sent.
    pub const fn started(&self) -> bool {
        self.started
    }
}
