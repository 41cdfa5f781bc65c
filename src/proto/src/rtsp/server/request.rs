//! Requests with their headers parsed, or the response that says what is wrong with them.

use bytes::Bytes;

use super::{PUBLIC, SessionId, is_refused, reply};
use crate::rtsp::{
    Headers, Lower, Method, Mode, Range, RangeError, Rate, Request, RequestUri, Response, StatusCode, Transport,
    header::{FrameFilter, parse_yes_no},
};

/// The feature tag of ONVIF replay.
const ONVIF_REPLAY: &str = "onvif-replay";

/// What a request asks for. A `session` is always one of this connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// What can be done; also a sign of life.
    Options {
        /// `None` for `*`.
        uri: Option<RequestUri>,
        /// The session it keeps alive.
        session: Option<SessionId>,
    },
    /// What is there. The client accepts SDP: others were answered 406.
    Describe {
        /// Of what.
        uri: RequestUri,
    },
    /// Prepare a track.
    Setup {
        /// The track.
        uri: RequestUri,
        /// What the client can take and this server could serve (unicast, to be played), best first; never empty.
        transports: Vec<Transport>,
        /// The session to add it to.
        session: Option<SessionId>,
    },
    /// Start, resume, seek, or change speed.
    Play(Box<PlayRequest>),
    /// Stop sending.
    Pause {
        /// The presentation or a track.
        uri: RequestUri,
        /// The session.
        session: SessionId,
    },
    /// End the session, or take one track out of it.
    Teardown {
        /// The presentation or a track.
        uri: RequestUri,
        /// The session.
        session: SessionId,
    },
    /// Ask for parameters; with an empty body a sign of life.
    GetParameter {
        /// `None` for `*`.
        uri: Option<RequestUri>,
        /// The session it keeps alive.
        session: Option<SessionId>,
        /// Parameter names.
        body: Bytes,
    },
    /// Set parameters; with an empty body a sign of life.
    SetParameter {
        /// `None` for `*`.
        uri: Option<RequestUri>,
        /// The session it keeps alive.
        session: Option<SessionId>,
        /// Parameters.
        body: Bytes,
    },
}

/// A PLAY request.
#[derive(Debug, Clone, PartialEq)]
pub struct PlayRequest {
    /// The presentation or a track.
    pub uri: RequestUri,
    /// The session.
    pub session: SessionId,
    /// Where; `None` resumes.
    pub range: Option<Range>,
    /// Scale header.
    pub scale: Option<Rate>,
    /// Speed header; positive.
    pub speed: Option<Rate>,
    /// ONVIF's Rate-Control.
    pub rate_control: Option<bool>,
    /// ONVIF's Frames.
    pub frames: Option<FrameFilter>,
    /// ONVIF's Immediate.
    pub immediate: bool,
    /// `x-corenvr-step`.
    pub step: Option<Step>,
}

/// Which frame to step to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next one.
    Forward,
    /// The one before.
    Backward,
}

impl Action {
    /// The URI of the request; `None` for `*`.
    pub const fn uri(&self) -> Option<&RequestUri> {
        match self {
            Self::Options { uri, .. } | Self::GetParameter { uri, .. } | Self::SetParameter { uri, .. } => uri.as_ref(),
            Self::Describe { uri } | Self::Setup { uri, .. } | Self::Pause { uri, .. } | Self::Teardown { uri, .. } => {
                Some(uri)
            }
            Self::Play(play) => Some(&play.uri),
        }
    }

    /// The session of the request.
    pub const fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Describe { .. } => None,
            Self::Options { session, .. }
            | Self::Setup { session, .. }
            | Self::GetParameter { session, .. }
            | Self::SetParameter { session, .. } => session.as_ref(),
            Self::Pause { session, .. } | Self::Teardown { session, .. } => Some(session),
            Self::Play(play) => Some(&play.session),
        }
    }
}

/// Whether the request requires ONVIF replay; an error answers a feature that is not known.
pub(super) fn check_require(headers: &Headers) -> Result<bool, Response> {
    let mut onvif = false;
    let mut unknown: Vec<&str> = Vec::new();
    for tag in headers.list("Require").chain(headers.list("Proxy-Require")) {
        if tag.eq_ignore_ascii_case(ONVIF_REPLAY) {
            onvif = true;
        } else {
            unknown.push(tag);
        }
    }
    if unknown.is_empty() {
        Ok(onvif)
    } else {
        Err(reply::unsupported(&unknown.join(", ")))
    }
}

/// Parses a request. `own` finds the connection's session of an identifier.
pub(super) fn parse(request: &Request, own: impl Fn(&str) -> Option<SessionId>) -> Result<Action, Response> {
    if matches!(request.method, Method::Other(_)) {
        return Err(Response::new(StatusCode::NOT_IMPLEMENTED).with("Public", PUBLIC));
    }
    if is_refused(&request.method) {
        return Err(Response::new(StatusCode::METHOD_NOT_ALLOWED).with("Allow", PUBLIC));
    }
    let session = match request.headers.session() {
        Some(header) => Some(own(&header.id).ok_or_else(session_not_found)?),
        None => None,
    };
    let any_uri = match request.uri.as_str() {
        "*" => None,
        uri => Some(RequestUri::parse(uri).map_err(|e| reply::bad_request(e.to_string()))?),
    };
    let uri = || {
        any_uri
            .clone()
            .ok_or_else(|| reply::bad_request("the method needs a URL"))
    };
    let needed = || session.clone().ok_or_else(session_not_found);
    Ok(match request.method {
        Method::Describe => {
            check_accept(&request.headers)?;
            Action::Describe { uri: uri()? }
        }
        Method::Setup => Action::Setup {
            uri: uri()?,
            transports: transports(&request.headers)?,
            session,
        },
        Method::Play => Action::Play(Box::new(play(&request.headers, uri()?, needed()?)?)),
        Method::Pause => Action::Pause {
            uri: uri()?,
            session: needed()?,
        },
        Method::Teardown => Action::Teardown {
            uri: uri()?,
            session: needed()?,
        },
        Method::GetParameter => Action::GetParameter {
            uri: any_uri,
            session,
            body: request.body.clone(),
        },
        Method::SetParameter => Action::SetParameter {
            uri: any_uri,
            session,
            body: request.body.clone(),
        },
        _ => Action::Options { uri: any_uri, session },
    })
}

fn session_not_found() -> Response {
    Response::new(StatusCode::SESSION_NOT_FOUND)
}

/// 406 for a client that names what it accepts and leaves SDP out.
fn check_accept(headers: &Headers) -> Result<(), Response> {
    let mut types = headers
        .list("Accept")
        .map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let named = headers.list("Accept").next().is_some();
    if named && !types.any(|t| matches!(t.as_str(), "application/sdp" | "application/*" | "*/*" | "*")) {
        return Err(Response::new(StatusCode::NOT_ACCEPTABLE).because("Only application/sdp is served"));
    }
    Ok(())
}

fn transports(headers: &Headers) -> Result<Vec<Transport>, Response> {
    let Some(value) = headers.get("Transport") else {
        return Err(reply::bad_request("SETUP needs a Transport header"));
    };
    let mut list = Transport::parse_list(value);
    list.retain(|t| {
        let reachable = t.lower == Lower::Tcp || t.client_port.is_some();
        reachable && !t.multicast && t.mode != Some(Mode::Record)
    });
    if list.is_empty() {
        return Err(Response::new(StatusCode::UNSUPPORTED_TRANSPORT));
    }
    Ok(list)
}

fn play(headers: &Headers, uri: RequestUri, session: SessionId) -> Result<PlayRequest, Response> {
    /// An absent header is `None`, one that cannot be read an error that names it.
    fn optional<T>(headers: &Headers, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Response> {
        let bad = || reply::bad_request(format!("malformed {name} header"));
        headers.get(name).map(|v| read(v).ok_or_else(bad)).transpose()
    }
    let range = match headers.get("Range").map(Range::parse).transpose() {
        Ok(range) => range,
        Err(RangeError::Unit) => return Err(reply::invalid_range("Only npt and clock ranges are served")),
        Err(e @ RangeError::Syntax) => return Err(reply::bad_request(e.to_string())),
    };
    Ok(PlayRequest {
        uri,
        session,
        range,
        scale: optional(headers, "Scale", Rate::parse)?,
        speed: optional(headers, "Speed", |v| Rate::parse(v).filter(|r| r.get() > 0.0))?,
        rate_control: optional(headers, "Rate-Control", parse_yes_no)?,
        frames: optional(headers, "Frames", FrameFilter::parse)?,
        immediate: optional(headers, "Immediate", parse_yes_no)?.unwrap_or(false),
        step: optional(headers, "x-corenvr-step", |v| match v.trim() {
            "1" | "+1" => Some(Step::Forward),
            "-1" => Some(Step::Backward),
            _ => None,
        })?,
    })
}
