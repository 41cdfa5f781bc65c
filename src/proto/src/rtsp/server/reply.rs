//! Responses in the form that passed with VLC, mpv, FFmpeg and GStreamer. `CSeq` and Server are added on sending.

use std::borrow::Cow;

use super::{PUBLIC, SESSION_TIMEOUT, SessionId};
use crate::rtsp::{Range, Rate, Response, RtpInfo, SessionHeader, StatusCode, Transport};

/// What a PLAY was turned into.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlayReply {
    /// What is truly played, in the unit of the request, from the key frame where it begins. Players take their clock
    /// from it.
    pub range: Option<Range>,
    /// The scale that is truly served; `None` says nothing (GStreamer would apply it a second time).
    pub scale: Option<Rate>,
    /// The speed that is truly served; `None` says nothing.
    pub speed: Option<Rate>,
    /// ONVIF's Rate-Control as served.
    pub rate_control: Option<bool>,
    /// First packet of each track, exact, or nothing: a wrong one stops VLC's clock and GStreamer's picture.
    pub rtp_info: Vec<RtpInfo>,
}

fn ok() -> Response {
    Response::new(StatusCode::OK)
}

fn session(response: Response, id: &SessionId) -> Response {
    let header = SessionHeader {
        id: id.as_str().to_owned(),
        timeout: Some(SESSION_TIMEOUT),
    };
    response.with("Session", header.to_string())
}

/// To OPTIONS.
pub fn options() -> Response {
    ok().with("Public", PUBLIC)
}

/// To DESCRIBE. `base` is the URL that a client may append a track to.
pub fn describe(base: &str, sdp: String) -> Response {
    let mut response = ok().with("Content-Base", base).with("Content-Type", "application/sdp");
    response.body = sdp.into();
    response
}

/// To SETUP: the transport with the server's ports or channels, its SSRC and mode.
pub fn setup(id: &SessionId, transport: &Transport) -> Response {
    session(ok().with("Transport", transport.to_string()), id)
}

/// To PLAY.
pub fn play(id: &SessionId, reply: &PlayReply) -> Response {
    let mut response = session(ok(), id);
    let headers = &mut response.headers;
    if let Some(range) = reply.range {
        headers.push("Range", range.to_string());
    }
    if let Some(scale) = reply.scale {
        headers.push("Scale", scale.to_string());
    }
    if let Some(speed) = reply.speed {
        headers.push("Speed", speed.to_string());
    }
    if let Some(rate_control) = reply.rate_control {
        headers.push("Rate-Control", if rate_control { "yes" } else { "no" });
    }
    if !reply.rtp_info.is_empty() {
        headers.push("RTP-Info", RtpInfo::write_list(&reply.rtp_info));
    }
    response
}

/// To PAUSE; always 200, also when nothing plays: VLC ends at 455.
pub fn pause(id: &SessionId, range: Option<Range>) -> Response {
    let response = session(ok(), id);
    match range {
        Some(range) => response.with("Range", range.to_string()),
        None => response,
    }
}

/// To TEARDOWN.
pub fn teardown(id: &SessionId) -> Response {
    ok().with("Session", id.as_str())
}

/// To `GET_PARAMETER` and `SET_PARAMETER` as signs of life.
pub fn parameters(id: Option<&SessionId>) -> Response {
    match id {
        Some(id) => session(ok(), id),
        None => ok(),
    }
}

/// 400 with what is wrong.
pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Response {
    Response::new(StatusCode::BAD_REQUEST).because(reason)
}

/// 404 with what is not there, and where the nearest footage is.
pub fn not_found(reason: impl Into<Cow<'static, str>>) -> Response {
    Response::new(StatusCode::NOT_FOUND).because(reason)
}

/// 457 with what can be had.
pub fn invalid_range(reason: impl Into<Cow<'static, str>>) -> Response {
    Response::new(StatusCode::INVALID_RANGE).because(reason)
}

/// 551 with the feature tags that are not known.
pub fn unsupported(tags: &str) -> Response {
    Response::new(StatusCode::OPTION_NOT_SUPPORTED).with("Unsupported", tags)
}
