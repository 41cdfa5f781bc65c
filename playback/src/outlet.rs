//! Frames to packets: the tracks of a session with their sequence numbers, synchronisation sources and reports.
//!
//! Sequence numbers and sources last as long as the session, whatever is played in between: players freeze or fail where they change.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use corenvr_media::{CodecParameters, Frame, VideoCodec, WallTime};
use corenvr_proto::rtp::{
    HeaderExtension,
    packetize::{PacketizeError, Packetizer, parameter_sets},
    rtcp::{self, SenderInfo},
};

use corenvr_shard::time;

use crate::{
    pacer::ticks,
    plan::Mark,
    silence::Silence,
    transport::{Link, Outbox},
};

/// Datagrams that may leave at once, and how long the next such group waits: a player's receive buffer, which the kernel makes for some
/// 90 full packets, would overflow under a key frame or a burst at the speed of this machine.
const DATAGRAM_GROUP: u32 = 24;
const DATAGRAM_SPACING: Duration = Duration::from_millis(2);
/// The longest RTP packet: fits an Ethernet frame with IPv6 and a tunnel around it.
const MTU: usize = 1400;
const CNAME: &str = "corenvr";

/// The set-up tracks of a session.
pub struct Outlet {
    outbox: Rc<Outbox>,
    tracks: Vec<Track>,
    datagrams: Datagrams,
}

struct Track {
    /// Which track of the description it is.
    described: usize,
    video: Option<VideoCodec>,
    /// Parameter sets for key frames that have none.
    sets: Bytes,
    clock_rate: u32,
    packetizer: Packetizer,
    ssrc: u32,
    /// RTP time of media time 0.
    origin: u32,
    packets: u32,
    octets: u32,
    link: Link,
    /// What a track of sound sends in trick play.
    silence: Option<Silence>,
}

/// The profile of ONVIF's RTP header extension (Streaming Specification, "RTP header extension").
const REPLAY_PROFILE: u16 = 0xABAC;

/// What ONVIF's RTP header extension says of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayInfo {
    /// When it was captured.
    pub time: WallTime,
    /// What it is to its neighbours.
    pub mark: Mark,
    /// The low byte of the PLAY's sequence number.
    pub cseq: u8,
}

impl ReplayInfo {
    fn to_bytes(self) -> [u8; 12] {
        let Mark {
            clean,
            section_end,
            discontinuity,
            terminal,
        } = self.mark;
        let bit = |set: bool, at: u8| u8::from(set) << at;
        let mut out = [0; 12];
        out[..8].copy_from_slice(&self.time.to_ntp().to_be_bytes());
        out[8] = bit(clean, 7) | bit(section_end, 6) | bit(discontinuity, 5) | bit(terminal, 4);
        out[9] = self.cseq;
        out
    }
}

/// Packets that wait for a UDP socket, back to back.
#[derive(Default)]
struct Datagrams {
    bytes: Vec<u8>,
    /// End in `bytes`, track, and whether it is RTCP.
    ends: Vec<(usize, usize, bool)>,
    sent: usize,
    /// When the current group began and how many left in it.
    group: Option<(Instant, u32)>,
}

impl Outlet {
    /// No tracks yet.
    pub fn new(outbox: Rc<Outbox>) -> Self {
        Self {
            outbox,
            tracks: Vec::new(),
            datagrams: Datagrams::default(),
        }
    }

    /// Sets a track up. Returns its SSRC.
    pub fn add(&mut self, described: usize, parameters: &CodecParameters, payload_type: u8, link: Link) -> u32 {
        let ssrc = rand::random();
        self.tracks.push(Track {
            described,
            video: match parameters {
                CodecParameters::Video(v) => Some(v.codec),
                CodecParameters::Audio(_) => None,
            },
            sets: parameter_sets(parameters),
            clock_rate: parameters.clock_rate(),
            packetizer: Packetizer::new(parameters, payload_type, ssrc, rand::random(), MTU),
            ssrc,
            origin: rand::random(),
            packets: 0,
            octets: 0,
            link,
            silence: match parameters {
                CodecParameters::Video(_) => None,
                CodecParameters::Audio(a) => Silence::of(a),
            },
        });
        ssrc
    }

    /// Takes a track out. Returns whether it was set up.
    pub fn remove(&mut self, described: usize) -> bool {
        let before = self.tracks.len();
        self.tracks.retain(|t| t.described != described);
        self.datagrams.clear();
        before != self.tracks.len()
    }

    /// Whether no track is set up.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// For `RTP-Info`: each track with the sequence number of its next packet and the RTP time of `media`.
    pub fn next(&self, media: i64) -> impl Iterator<Item = (usize, u16, u32)> {
        self.tracks
            .iter()
            .map(move |t| (t.described, t.packetizer.next_sequence(), t.rtp_time(media)))
    }

    /// Key frames from now on belong to these parameters.
    pub fn set_parameters(&mut self, described: usize, parameters: &CodecParameters) {
        for track in self.tracks.iter_mut().filter(|t| t.described == described) {
            track.sets = parameter_sets(parameters);
        }
    }

    /// Queues the packets of a frame; [`Self::flush`] sends them. `replay` goes into the first one's header. Returns their bytes; 0 if the
    /// track is not set up.
    pub fn push(
        &mut self,
        described: usize,
        frame: &Frame,
        media: i64,
        replay: Option<&ReplayInfo>,
    ) -> Result<u64, PacketizeError> {
        let Some(index) = self.tracks.iter().position(|t| t.described == described) else {
            return Ok(0);
        };
        let (track, outbox, datagrams) = (&mut self.tracks[index], &self.outbox, &mut self.datagrams);
        let with_sets = track.with_sets(frame);
        let data = with_sets.as_ref().unwrap_or(&frame.data);
        let time = track.rtp_time(media);
        let (mut packets, mut octets, mut bytes) = (0, 0, 0);
        let channel = match track.link {
            Link::Interleaved { rtp, .. } => Some(rtp),
            Link::Datagrams { .. } => None,
        };
        let replay = replay.map(|r| r.to_bytes());
        let extension = replay.as_ref().map(|data| HeaderExtension {
            profile: REPLAY_PROFILE,
            data,
        });
        track
            .packetizer
            .packetize(data, time, extension, &mut |head, payload| {
                packets += 1;
                octets += payload.len() as u32;
                bytes += (head.len() + payload.len()) as u64;
                match channel {
                    Some(channel) => outbox.push_interleaved(channel, head, payload),
                    None => datagrams.push(index, false, head, payload),
                }
            })?;
        track.packets = track.packets.wrapping_add(packets);
        track.octets = track.octets.wrapping_add(octets);
        Ok(bytes)
    }

    /// Queues a sender report on every track: `wall` is the moment of `media`; `None` leaves both fields 0, which ONVIF wants where packets
    /// do not keep to the clock. With `bye`, every source ends.
    pub fn report(&mut self, media: i64, wall: Option<WallTime>, bye: Option<&str>) {
        for (index, track) in self.tracks.iter().enumerate() {
            let mut packet = BytesMut::with_capacity(128);
            let info = SenderInfo {
                ntp: wall.map_or(0, WallTime::to_ntp),
                rtp: wall.map_or(0, |_| track.rtp_time(media)),
                packets: track.packets,
                octets: track.octets,
            };
            rtcp::write_sender_report(&mut packet, track.ssrc, &info, &[], CNAME);
            if let Some(reason) = bye {
                rtcp::write_bye(&mut packet, track.ssrc, reason);
            }
            match track.link {
                Link::Interleaved { rtcp, .. } => self.outbox.push_interleaved(rtcp, &packet, &[]),
                Link::Datagrams { .. } => self.datagrams.push(index, true, &packet, &[]),
            }
        }
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.outbox.len() + self.datagrams.bytes.len()
    }

    /// Whether a track is sound.
    pub fn is_sound(&self, described: usize) -> bool {
        self.tracks
            .iter()
            .any(|t| t.described == described && t.video.is_none())
    }

    /// Whether a track of sound is set up that silence can be sent on.
    pub fn has_silence(&self) -> bool {
        self.tracks.iter().any(|t| t.silence.is_some())
    }

    /// Silence begins at a media time.
    pub fn restart_silence(&mut self, media: i64) {
        for silence in self.tracks.iter_mut().filter_map(|t| t.silence.as_mut()) {
            silence.restart(media);
        }
    }

    /// The next silent frame of any track that begins before `media`: its track, its bytes, and its media time.
    pub fn next_silence(&mut self, media: i64) -> Option<(usize, Bytes, i64)> {
        self.tracks.iter_mut().find_map(|track| {
            let silence = track.silence.as_mut()?;
            let at = silence.upcoming();
            (at < media).then(|| {
                silence.give();
                (track.described, silence.data.clone(), at)
            })
        })
    }

    /// Sends what waits, for as long as that takes: a full connection is a pause. Cancel safe.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.flush_datagrams().await?;
        self.outbox.flush().await
    }

    /// Sends the datagrams that wait.
    pub async fn flush_datagrams(&mut self) -> io::Result<()> {
        while let Some(&(end, index, is_rtcp)) = self.datagrams.ends.get(self.datagrams.sent) {
            let start = self
                .datagrams
                .sent
                .checked_sub(1)
                .map_or(0, |i| self.datagrams.ends[i].0);
            self.datagrams.space().await;
            if let Link::Datagrams { rtp, rtcp } = &self.tracks[index].link {
                let (sender, to) = if is_rtcp { rtcp } else { rtp };
                sender.send_to(&self.datagrams.bytes[start..end], *to).await?;
            }
            self.datagrams.sent += 1;
        }
        self.datagrams.clear();
        Ok(())
    }
}

impl Datagrams {
    fn push(&mut self, track: usize, is_rtcp: bool, head: &[u8], payload: &[u8]) {
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(payload);
        self.ends.push((self.bytes.len(), track, is_rtcp));
    }

    /// Waits where too many datagrams have left in too short a time.
    async fn space(&mut self) {
        let now = Instant::now();
        match &mut self.group {
            Some((begun, count)) if now < *begun + DATAGRAM_SPACING => {
                *count += 1;
                if *count > DATAGRAM_GROUP {
                    let next = *begun + DATAGRAM_SPACING;
                    time::sleep_until(next).await;
                    self.group = Some((Instant::now(), 1));
                }
            }
            _ => self.group = Some((now, 1)),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.sent = 0;
    }
}

impl Track {
    fn rtp_time(&self, media: i64) -> u32 {
        self.origin.wrapping_add(ticks(media, self.clock_rate))
    }

    /// The frame with parameter sets in front, if it is a key frame that needs them.
    fn with_sets(&self, frame: &Frame) -> Option<Bytes> {
        let codec = self.video?;
        if !frame.key || self.sets.is_empty() || has_sets(codec, &frame.data) {
            return None;
        }
        let mut data = BytesMut::with_capacity(self.sets.len() + frame.data.len());
        data.extend_from_slice(&self.sets);
        data.extend_from_slice(&frame.data);
        Some(data.freeze())
    }
}

/// Whether parameter sets come before the first slice of a length-prefixed access unit.
fn has_sets(codec: VideoCodec, mut data: &[u8]) -> bool {
    while let Some((len, rest)) = data.split_first_chunk::<4>() {
        let Some(&head) = rest.first() else { return false };
        match codec {
            // SPS is 7, slices are 1 to 5 (H.264 table 7-1).
            VideoCodec::H264 => match head & 0x1F {
                7 => return true,
                1..=5 => return false,
                _ => {}
            },
            // VPS and SPS are 32 and 33, slices are below 32 (H.265 table 7-1).
            VideoCodec::H265 => match (head >> 1) & 0x3F {
                32 | 33 => return true,
                0..=31 => return false,
                _ => {}
            },
            VideoCodec::Mjpeg | VideoCodec::Av1 => return true,
        }
        let len = u32::from_be_bytes(*len) as usize;
        data = rest.get(len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(types: &[u8]) -> Vec<u8> {
        types.iter().flat_map(|t| [0, 0, 0, 2, *t, 9]).collect()
    }

    #[test]
    fn the_replay_extension_has_the_bits_of_the_standard() {
        let mut info = ReplayInfo {
            time: WallTime::from_micros(500_000),
            mark: Mark {
                clean: true,
                section_end: false,
                discontinuity: true,
                terminal: false,
            },
            cseq: 0x45,
        };
        // 1970 in seconds since 1900 (RFC 3550 section 4), then half a second.
        let ntp = [0x83, 0xAA, 0x7E, 0x80, 0x80, 0, 0, 0];
        assert_eq!(info.to_bytes()[..8], ntp);
        assert_eq!(info.to_bytes()[8..], [0b1010_0000, 0x45, 0, 0]);
        info.mark = Mark {
            clean: false,
            section_end: true,
            discontinuity: false,
            terminal: true,
        };
        assert_eq!(info.to_bytes()[8], 0b0101_0000);
    }

    #[test]
    fn parameter_sets_are_found_before_the_first_slice_only() {
        assert!(has_sets(VideoCodec::H264, &unit(&[9, 0x67, 0x68, 0x65])));
        assert!(!has_sets(VideoCodec::H264, &unit(&[9, 6, 0x65])));
        assert!(!has_sets(VideoCodec::H264, &unit(&[0x65, 0x67])));
        assert!(has_sets(VideoCodec::H265, &unit(&[35 << 1, 32 << 1, 19 << 1])));
        assert!(!has_sets(VideoCodec::H265, &unit(&[19 << 1])));
        assert!(!has_sets(VideoCodec::H264, &[0xFF, 0xFF, 0xFF, 0xFF, 9]));
        assert!(!has_sets(VideoCodec::H264, &[]));
    }
}
