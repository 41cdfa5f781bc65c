//! What the device did and what was done to it, for a test to compare with what arrived.

use std::{
    net::SocketAddr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use corenvr_media::WallTime;

use crate::Track;

/// SIP messages that are kept; more push out the oldest.
const SIP_TEXTS_MAX: usize = 4096;

/// A media session of this device, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// What a session is for: the `s=` of the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SessionKind {
    Play,
    Playback,
    Download,
}

/// How media travels, as the platform sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaTransport {
    /// RTP over UDP.
    Udp,
    /// The platform listens, the device connects: `a=setup:passive` in the offer.
    TcpPassive,
    /// The device listens, the platform connects: `a=setup:active` in the offer.
    TcpActive,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The platform sent BYE, CANCEL or MANSRTSP TEARDOWN.
    Platform,
    /// The device sent BYE.
    Device,
    /// The 200 was never acknowledged.
    NoAck,
    /// The media connection failed or was closed.
    Connection,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The INVITE is answered with 200.
    Answered,
    /// Acknowledged; the media connection is being made.
    Connecting,
    /// Media is being sent.
    Streaming,
    /// MANSRTSP PAUSE.
    Paused,
    /// Everything that was asked for has been sent (playback and download).
    Sent,
    /// Over.
    Ended(EndCause),
}

/// One access unit that was sent, or would have been but for deliberate loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitLog {
    /// Video or audio.
    pub track: Track,
    /// Decoding can start here.
    pub key: bool,
    /// PTS in units of 1/90 000 s, from 0 at the session's start (at the start of the range that was asked for, in playback), before
    /// deviations and before it is wrapped. In playback it may be negative: the GOP begins before the range.
    pub pts_90k: i64,
    /// The PTS as it stands in the PES header: 33 bits, with jumps and offset.
    pub pts_wire: u64,
    /// The RTP time of its packets.
    pub rtp_time: u32,
    /// The sequence number of its first packet.
    pub seq_first: u16,
    /// How many packets it is cut into; sequence numbers go on without a hole.
    pub packets: u32,
    /// Sequence numbers of packets that were deliberately not sent.
    pub lost: Vec<u16>,
    /// Packets that were sent later than in order.
    pub reordered: u32,
    /// Packets that were sent twice.
    pub duplicated: u32,
    /// Size of the access unit: NAL units without start codes, or the audio frame without ADTS.
    pub size: u32,
    /// SHA-256 over the slices: NAL units of type 1 to 5 (H.264) or 0 to 31 (H.265), without start codes, one after the other;
    /// over the whole frame for audio.
    pub slices_sha256: [u8; 32],
    /// When it was handed to the socket.
    pub sent_at: WallTime,
    /// In playback and download, the moment of the archive that it shows.
    pub archive_time: Option<WallTime>,
}

impl UnitLog {
    /// Whether all of its packets were sent.
    pub fn whole(&self) -> bool {
        self.lost.is_empty()
    }
}

/// A media session.
#[derive(Debug, Clone)]
pub struct SessionLog {
    /// Its number.
    pub id: SessionId,
    /// The channel asked for, by the Request-URI.
    pub channel: String,
    /// What for.
    pub kind: SessionKind,
    /// How.
    pub transport: MediaTransport,
    /// The Call-ID of the dialog.
    pub call_id: String,
    /// The offer's SDP.
    pub offer: String,
    /// The SSRC that the offer asked for, from `y=`.
    pub ssrc_asked: Option<u32>,
    /// The SSRC in the RTP packets.
    pub ssrc: u32,
    /// The platform's media address.
    pub remote: SocketAddr,
    /// The device's media address, as soon as there is one.
    pub local: Option<SocketAddr>,
    /// The range of a playback or download.
    pub range: Option<(WallTime, WallTime)>,
    /// How far it is.
    pub state: SessionState,
    /// Every access unit, in the order of sending.
    pub units: Vec<UnitLog>,
    /// Access units so far; goes on where `units` is switched off.
    pub units_sent: u64,
    /// RTP packets put on the wire, copies included.
    pub packets_sent: u64,
    /// RTP packets deliberately not sent.
    pub packets_lost: u64,
    /// How often the device waited because the platform did not read (TCP).
    pub stalls: u64,
}

/// Something that happened in the signalling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A REGISTER was accepted, for so many seconds.
    #[allow(missing_docs)]
    Registered { expires_s: u32, date: Option<String> },
    /// A REGISTER was challenged.
    #[allow(missing_docs)]
    Challenged { qop: bool, algorithm: Option<String> },
    /// A REGISTER was refused with this status.
    RegisterRefused(u16),
    /// A REGISTER with Expires 0 was accepted.
    Unregistered,
    /// A keepalive was answered with this status.
    Keepalive(u16),
    /// A request of ours got no answer.
    Unanswered(&'static str),
    /// A Query MESSAGE: its `CmdType`.
    Query(String),
    /// PTZ: the 16 hex digits as received.
    #[allow(missing_docs)]
    Ptz { channel: String, command: String },
    /// A key frame was asked for, by the element of this name.
    #[allow(missing_docs)]
    KeyFrameAsked { channel: String, element: String },
    /// Another `DeviceControl`: the name and text of the element.
    #[allow(missing_docs)]
    Control {
        channel: String,
        element: String,
        value: String,
    },
    /// SUBSCRIBE was accepted; 0 seconds: ended.
    #[allow(missing_docs)]
    Subscribed { kind: String, expires_s: u32 },
    /// A NOTIFY was answered with this status.
    Notified(u16),
    /// An alarm was answered: the status of the SIP answer.
    AlarmAnswered(u16),
    /// An alarm of method 2 was not sent, because the one before has not been reset.
    AlarmWithheld,
    /// The platform's MANSCDP Response to our alarm came.
    AlarmConfirmed,
    /// An INVITE was accepted.
    Invited(SessionId),
    /// An INVITE was refused or ignored: the status, or 0.
    #[allow(missing_docs)]
    InviteRefused { channel: String, status: u16 },
    /// The ACK came.
    Acked(SessionId),
    /// A MANSRTSP request in an INFO: the session and the text.
    Mansrtsp(SessionId, String),
    /// `MediaStatus` 121 was answered with this status.
    MediaStatus(SessionId, u16),
    /// Our BYE was answered with this status.
    ByeAnswered(SessionId, u16),
    /// A session ended.
    Ended(SessionId, EndCause),
    /// The SIP connection was lost.
    Disconnected,
    /// What came cannot be understood: the reason.
    Malformed(String),
}

/// An event with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LoggedEvent {
    pub at: WallTime,
    pub event: Event,
}

/// A SIP message as it stood on the wire; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipText {
    /// When.
    pub at: WallTime,
    /// By the device; otherwise by the platform.
    pub sent: bool,
    /// The text.
    pub text: String,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    /// Signalling, in order.
    pub events: Vec<LoggedEvent>,
    /// Sessions by their numbers.
    pub sessions: Vec<SessionLog>,
    /// SIP messages, the newest 4096.
    pub sip: Vec<SipText>,
}

/// The log of a device; the device's threads write it while it is read.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything.
    pub fn snapshot(&self) -> LogState {
        self.lock().clone()
    }

    /// A copy of one session.
    pub fn session(&self, id: SessionId) -> Option<SessionLog> {
        self.lock().sessions.get(id.0 as usize).cloned()
    }

    /// Takes the events and SIP messages out of the log; sessions stay.
    pub fn take(&self) -> LogState {
        let mut state = self.lock();
        LogState {
            events: std::mem::take(&mut state.events),
            sip: std::mem::take(&mut state.sip),
            sessions: Vec::new(),
        }
    }

    /// Looks at the log without a copy; keep it short, the device's threads wait meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&LogState) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `look` finds what it wants; `None` when the time is over.
    pub fn wait<T>(&self, timeout: Duration, mut look: impl FnMut(&LogState) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for an event; `None` when the time is over.
    pub fn wait_event(&self, timeout: Duration, mut wanted: impl FnMut(&Event) -> bool) -> Option<LoggedEvent> {
        self.wait(timeout, |s| s.events.iter().find(|e| wanted(&e.event)).cloned())
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut LogState) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    pub(crate) fn event(&self, event: Event) {
        let at = now();
        self.change(|s| s.events.push(LoggedEvent { at, event }));
    }

    pub(crate) fn session_mut(&self, id: SessionId, change: impl FnOnce(&mut SessionLog)) {
        self.change(|s| {
            if let Some(session) = s.sessions.get_mut(id.0 as usize) {
                change(session);
            }
        });
    }

    pub(crate) fn sip(&self, sent: bool, bytes: &[u8]) {
        let text = SipText {
            at: now(),
            sent,
            text: String::from_utf8_lossy(bytes).into_owned(),
        };
        self.change(|s| {
            if s.sip.len() == SIP_TEXTS_MAX {
                s.sip.drain(..SIP_TEXTS_MAX / 2);
            }
            s.sip.push(text);
        });
    }
}

/// The wall clock.
pub(crate) fn now() -> WallTime {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_micros(since.as_micros() as i64)
}
