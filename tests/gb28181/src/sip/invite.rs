//! Media dialogs: INVITE, ACK, INFO with MANSRTSP, BYE, and the announcement of a playback's end.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

use rand::Rng;

use super::{
    agent::{Agent, Purpose, token},
    message::{Message, uri_of, user_of},
    sdp::{Answer, Offer},
    xml,
};
use crate::{
    Deviation, EndCause, Event, MediaTransport, SessionId, SessionLog, SessionState,
    media::{
        Control, Order,
        session::{Link, Plan},
    },
};

/// The pause before the first repetition of a 200 that is not acknowledged (RFC 3261 13.3.1.4).
const T1: Duration = Duration::from_millis(500);
/// How long an ACK is waited for.
const ACK_LIMIT: Duration = Duration::from_secs(32);
/// The pause between answers that are repeated for no reason, and how many there are.
const REPEAT_PAUSE: Duration = Duration::from_millis(200);
const REPEATS: u32 = 3;
/// How long the media thread may take to say where it is.
const POSITION_LIMIT: Duration = Duration::from_millis(500);
/// The port that is announced where the device connects: RFC 4145 4.1.
const DISCARD_PORT: u16 = 9;

/// A dialog with its session.
pub struct Dialog {
    pub session: SessionId,
    pub channel: String,
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    ok: Vec<u8>,
    acked: bool,
    resend: Option<Instant>,
    interval: Duration,
    deadline: Instant,
    repeats: u32,
    /// What begins with the ACK.
    start: Option<(Plan, Link)>,
}

impl Dialog {
    pub fn next_timer(&self) -> Option<Instant> {
        let deadline = (!self.acked).then_some(self.deadline);
        self.resend.into_iter().chain(deadline).min()
    }
}

impl Agent {
    pub fn invite(&mut self, message: &Message) {
        if self.has(Deviation::InviteSilent) {
            return self.refused(message, 0);
        }
        self.reply(message, 100, "Trying", |m| m);
        let channel = user_of(message.uri()).to_owned();
        let known = self.channels.iter().any(|(c, _)| c.id == channel);
        // A camera shows its channel under its own id as well.
        let own = channel == self.config.device_id && !self.channels.is_empty();
        let busy = self.dialogs.contains_key(message.get("Call-ID").unwrap_or_default());
        let refusal = match () {
            () if self.has(Deviation::Invite486) => Some((486, "Busy Here")),
            () if self.has(Deviation::Invite488) || busy => Some((488, "Not Acceptable Here")),
            () if !known && !own => Some((404, "Not Found")),
            () => None,
        };
        if let Some((status, reason)) = refusal {
            self.reply(message, status, reason, |m| m);
            return self.refused(message, status);
        }
        let text = String::from_utf8_lossy(&message.body).into_owned();
        let offer = match Offer::parse(&text) {
            Ok(offer) => offer,
            Err(reason) => {
                self.log.event(Event::Malformed(format!("offer: {reason}")));
                self.reply(message, 488, "Not Acceptable Here", |m| m);
                return self.refused(message, 488);
            }
        };
        let Ok((link, local)) = self.open_link(&offer) else {
            self.reply(message, 486, "Busy Here", |m| m);
            return self.refused(message, 486);
        };
        self.accept(message, &channel, text, &offer, (link, local));
    }

    fn refused(&self, message: &Message, status: u16) {
        let channel = user_of(message.uri()).to_owned();
        self.log.event(Event::InviteRefused { channel, status });
    }

    fn open_link(&self, offer: &Offer) -> io::Result<(Link, SocketAddr)> {
        let ip = self.config.local_ip;
        Ok(match offer.transport {
            MediaTransport::Udp => {
                let socket = UdpSocket::bind((ip, 0))?;
                socket.connect(offer.remote)?;
                socket.set_nonblocking(true)?;
                let local = socket.local_addr()?;
                (Link::Udp(socket), local)
            }
            MediaTransport::TcpPassive => (Link::None, (ip, DISCARD_PORT).into()),
            MediaTransport::TcpActive => {
                let listener = TcpListener::bind((ip, 0))?;
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                (Link::Listening(listener), local)
            }
        })
    }

    /// The SSRC of the packets, and the y= of the answer.
    fn ssrc(&self, offer: &Offer) -> (u32, Option<String>) {
        let own: u32 = rand::rng().random_range(1..1_000_000_000);
        let asked = offer.ssrc.unwrap_or(own);
        let (ssrc, y) = if self.has(Deviation::SsrcInAnswer) {
            (own, Some(format!("{own:010}")))
        } else if self.has(Deviation::SsrcOwn) {
            (own, offer.y.clone())
        } else if self.has(Deviation::SsrcZero) {
            (0, offer.y.clone())
        } else {
            (asked, offer.y.clone().or_else(|| Some(format!("{asked:010}"))))
        };
        (ssrc, y.filter(|_| !self.has(Deviation::NoSsrcInAnswer)))
    }

    /// The payload type, and what it means.
    fn encoding(&self, offer: &Offer) -> (u8, &'static str) {
        let h265 = self.config.source.video() == corenvr_media::VideoCodec::H265;
        if self.has(Deviation::RawEs) && h265 {
            (offer.payload_type("H265", 100), "H265/90000")
        } else if self.has(Deviation::RawEs) {
            (offer.payload_type("H264", 98), "H264/90000")
        } else if self.has(Deviation::VendorPayload) {
            (offer.payload_type("PS", 96), "DAHUA/90000")
        } else {
            (offer.payload_type("PS", 96), "PS/90000")
        }
    }

    fn accept(
        &mut self,
        message: &Message,
        channel: &str,
        text: String,
        offer: &Offer,
        (link, local): (Link, SocketAddr),
    ) {
        let (payload_type, encoding) = self.encoding(offer);
        let (ssrc, y) = self.ssrc(offer);
        let answer = Answer {
            offer,
            channel,
            local,
            payload_type,
            encoding,
            y,
        };
        let body = answer.text().into_bytes();
        let (tag, contact) = (token(), format!("<sip:{channel}@{}>", self.local()));
        let ok = self.reply_tagged(message, 200, "OK", &tag, |m| {
            m.with("Contact", contact).with_body("application/sdp", body)
        });
        let call_id = message.get("Call-ID").unwrap_or_default().to_owned();
        let session = self.log.change(|s| {
            let id = SessionId(s.sessions.len() as u32);
            s.sessions.push(SessionLog {
                id,
                channel: channel.into(),
                kind: offer.kind,
                transport: offer.transport,
                call_id: call_id.clone(),
                offer: text,
                ssrc_asked: offer.ssrc,
                ssrc,
                remote: offer.remote,
                local: (local.port() != DISCARD_PORT).then_some(local),
                range: offer.range,
                state: SessionState::Answered,
                units: Vec::new(),
                units_sent: 0,
                packets_sent: 0,
                packets_lost: 0,
                stalls: 0,
            });
            id
        });
        self.log.event(Event::Invited(session));
        let plan = Plan {
            id: session,
            kind: offer.kind,
            transport: offer.transport,
            remote: offer.remote,
            payload_type,
            ssrc,
            range: offer.range,
            speed: offer.download_speed,
        };
        let remote = message.get("From").unwrap_or_default().to_owned();
        let repeats = if self.has(Deviation::Repeated200) { REPEATS } else { 0 };
        let at = Instant::now();
        let dialog = Dialog {
            session,
            channel: channel.into(),
            local: format!("{};tag={tag}", message.get("To").unwrap_or_default()),
            target: uri_of(message.get("Contact").unwrap_or(&remote)).to_owned(),
            remote,
            cseq: 0,
            ok,
            acked: false,
            resend: Some(at + if repeats > 0 { REPEAT_PAUSE } else { T1 }),
            interval: T1,
            deadline: at + ACK_LIMIT,
            repeats,
            start: Some((plan, link)),
        };
        self.dialogs.insert(call_id, dialog);
    }

    pub fn ack(&mut self, message: &Message) {
        let Some(dialog) = self.dialogs.get_mut(message.get("Call-ID").unwrap_or_default()) else {
            return;
        };
        dialog.acked = true;
        if dialog.repeats == 0 {
            dialog.resend = None;
        }
        if let Some((plan, link)) = dialog.start.take() {
            self.log.event(Event::Acked(plan.id));
            // A media thread that is gone sends nothing.
            drop(self.orders.send(Order::Start(Box::new(plan), link)));
        }
    }

    /// Repeats answers, and gives dialogs up that are never acknowledged.
    pub fn dialog_timers(&mut self, at: Instant) {
        let mut again = Vec::new();
        let mut over = Vec::new();
        for dialog in self.dialogs.values_mut() {
            if !dialog.acked && at >= dialog.deadline {
                over.push(dialog.session);
            } else if dialog.resend.is_some_and(|t| t <= at) {
                again.push(dialog.ok.clone());
                if dialog.repeats > 0 {
                    dialog.repeats -= 1;
                    dialog.resend = (dialog.repeats > 0 || !dialog.acked).then_some(at + REPEAT_PAUSE);
                } else {
                    dialog.interval *= 2;
                    dialog.resend = (!dialog.acked).then_some(at + dialog.interval);
                }
            }
        }
        for bytes in again {
            self.write(&bytes);
        }
        for session in over {
            self.forget(session, EndCause::NoAck);
        }
    }

    pub fn bye(&mut self, message: &Message) {
        let dialog = self.dialogs.get(message.get("Call-ID").unwrap_or_default());
        let session = dialog.map(|d| d.session);
        if session.is_none() || self.has(Deviation::Bye481) {
            self.reply(message, 481, "Call/Transaction Does Not Exist", |m| m);
        } else {
            self.reply(message, 200, "OK", |m| m);
        }
        if let Some(session) = session {
            self.forget(session, EndCause::Platform);
        }
    }

    pub fn cancel(&mut self, message: &Message) {
        // The 200 went out at once: there is never anything left to cancel (RFC 3261 9.2).
        let known = self.dialogs.contains_key(message.get("Call-ID").unwrap_or_default());
        if known {
            self.reply(message, 200, "OK", |m| m);
        } else {
            self.reply(message, 481, "Call/Transaction Does Not Exist", |m| m);
        }
    }

    /// Ends a session without a word.
    fn forget(&mut self, session: SessionId, cause: EndCause) {
        self.dialogs.retain(|_, d| d.session != session);
        drop(self.orders.send(Order::End(session)));
        self.log.session_mut(session, |s| s.state = SessionState::Ended(cause));
        self.log.event(Event::Ended(session, cause));
    }

    /// A request inside a dialog, without Via.
    fn in_dialog(&mut self, session: SessionId, method: &str) -> Option<Message> {
        let contact = self.contact();
        let (call_id, dialog) = self.dialogs.iter_mut().find(|(_, d)| d.session == session)?;
        dialog.cseq += 1;
        Some(
            Message::new(format!("{method} {} SIP/2.0", dialog.target))
                .with("From", &dialog.local)
                .with("To", &dialog.remote)
                .with("Call-ID", call_id)
                .with("CSeq", format!("{} {method}", dialog.cseq))
                .with("Contact", contact),
        )
    }

    /// Ends a session by BYE.
    pub fn hang_up(&mut self, session: SessionId) {
        self.end_by_bye(session, EndCause::Device);
    }

    fn end_by_bye(&mut self, session: SessionId, cause: EndCause) {
        if let Some(message) = self.in_dialog(session, "BYE") {
            self.request(message, Purpose::Bye(session));
            self.forget(session, cause);
        }
    }

    pub fn hang_up_channel(&mut self, channel: &str) {
        let of_channel = self.dialogs.values().filter(|d| d.channel == channel);
        let sessions: Vec<SessionId> = of_channel.map(|d| d.session).collect();
        for session in sessions {
            self.hang_up(session);
        }
    }

    pub fn media_broken(&mut self, session: SessionId) {
        self.end_by_bye(session, EndCause::Connection);
    }

    /// The end of the file (GB/T 28181-2022 9.8.3).
    pub fn media_sent(&mut self, session: SessionId) {
        if self.has(Deviation::MediaStatusSilent) {
            return;
        }
        let Some(channel) = self
            .dialogs
            .values()
            .find(|d| d.session == session)
            .map(|d| d.channel.clone())
        else {
            return;
        };
        let sn = self.next_sn();
        let rest = format!("<DeviceID>{channel}</DeviceID>\r\n<NotifyType>121</NotifyType>\r\n");
        let body = xml::body(self.config.deviations, "Notify", "MediaStatus", &sn, &rest);
        if let Some(message) = self.in_dialog(session, "MESSAGE") {
            let message = message.with_body("Application/MANSCDP+xml", body);
            self.request(message, Purpose::MediaStatus(session));
        }
    }

    /// MANSRTSP (GB/T 28181-2022 annex B): the answer stands in the body of the 200.
    pub fn info(&mut self, message: &Message) {
        let dialog = self.dialogs.get(message.get("Call-ID").unwrap_or_default());
        let Some(session) = dialog.map(|d| d.session) else {
            return self.reply(message, 481, "Call/Transaction Does Not Exist", |m| m);
        };
        let text = String::from_utf8_lossy(&message.body).into_owned();
        self.log.event(Event::Mansrtsp(session, text.clone()));
        let method = text.split_whitespace().next().unwrap_or_default().to_owned();
        let header = |name: &str| {
            text.lines().find_map(|l| {
                let (n, v) = l.split_once(':')?;
                n.trim().eq_ignore_ascii_case(name).then(|| v.trim())
            })
        };
        let cseq = header("CSeq").unwrap_or("0");
        let from = header("Range").and_then(|r| r.strip_prefix("npt="));
        let from = from.and_then(|r| r.split('-').next()).map(str::trim);
        let scale: Option<f64> = header("Scale").and_then(|s| s.parse().ok()).filter(|s| *s != 0.0);
        let control = match method.as_str() {
            "PLAY" => Some(Control::Play {
                from_90k: from.and_then(|f| f.parse::<f64>().ok()).map(|s| (s * 90_000.0) as i64),
                scale,
            }),
            "PAUSE" => Some(Control::Pause),
            "TEARDOWN" => Some(Control::Look),
            _ => None,
        };
        let body = match control {
            None => format!("RTSP/1.0 501 Not Implemented\r\nCSeq: {cseq}\r\n\r\n"),
            Some(control) => {
                let (reply, position) = mpsc::channel();
                drop(self.orders.send(Order::Control(session, control, reply)));
                let info = position.recv_timeout(POSITION_LIMIT).map_or(String::new(), |p| {
                    format!("RTP-Info: seq={};rtptime={}\r\n", p.seq, p.rtp_time)
                });
                let range = from.map_or(String::new(), |f| format!("Range: npt={f}-\r\n"));
                format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{range}{info}\r\n")
            }
        };
        self.reply(message, 200, "OK", |m| {
            m.with_body("Application/MANSRTSP", body.into_bytes())
        });
        if method == "TEARDOWN" {
            self.forget(session, EndCause::Platform);
        }
    }
}
