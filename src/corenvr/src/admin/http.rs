//! Requests and answers in the API's own terms: JSON in, JSON out, errors with message and remedy.

use std::collections::HashMap;

use bytes::Bytes;
use corenvr_media::WallTime;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use serde::{Serialize, de::DeserializeOwned};

use super::api::{ErrorBody, ErrorText};

/// Largest request body; a larger one is answered 413.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    text: ErrorText,
}

impl Failure {
    /// With a remedy; may be empty.
    pub fn new(status: StatusCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            status,
            text: ErrorText {
                message: message.into(),
                remedy: remedy.into(),
            },
        }
    }

    /// 400
    pub fn bad(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, remedy)
    }

    /// 503: we could not, just now.
    pub fn unavailable(error: &impl ToString) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "try again; `corenvr status` shows what is busy",
        )
    }

    /// 500
    pub fn internal(error: &impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "")
    }

    /// As an answer.
    pub fn into_answer(self) -> Answer {
        json(self.status, &ErrorBody { error: self.text })
    }
}

/// A document as an answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    answer
}

/// Reads a body of JSON.
pub async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let too_large = |_| {
        let message = format!("the request is larger than {BODY_BYTES_MAX} bytes, or was cut off");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message, "send less")
    };
    let bytes = body.map_err(too_large)?.to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::bad(format!("the request cannot be read: {e}"), "send JSON as documented"))
}

/// The query of a URL.
pub struct Query(HashMap<String, String>);

impl Query {
    /// Reads `a=b&c=d`; of a name that comes twice the last counts.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (unescape(name), unescape(value))
                })
                .collect(),
        )
    }

    /// A switch: present and not 0.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| v != "0" && v != "false")
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A time; `default` if it is absent.
    pub fn time(&self, name: &str, default: WallTime) -> Result<WallTime, Failure> {
        let Some(text) = self.0.get(name) else {
            return Ok(default);
        };
        WallTime::parse(text)
            .map_err(|e| Failure::bad(format!("{name}: {e}"), "write the time as 2026-11-20T10:00:00Z"))
    }
}

/// Undoes percent-encoding; a `+` stays one, since times carry it in their offset.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [b, tail @ ..] = rest {
        let hex = |b: &u8| char::from(*b).to_digit(16);
        match (b, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                out.push((hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0)) as u8);
                rest = after;
            }
            _ => {
                out.push(*b);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_its_times_and_switches() {
        let q = Query::parse(Some(
            "from=2026-11-20T10%3A00:00Z&to=2026-11-20T18:00:00+08:00&purge&force=0&%",
        ));
        let ten = WallTime::parse("2026-11-20T10:00:00Z").unwrap();
        assert_eq!(q.time("from", WallTime::MIN).unwrap(), ten);
        assert_eq!(q.time("to", WallTime::MIN).unwrap(), ten);
        assert_eq!(q.time("at", WallTime::MAX).unwrap(), WallTime::MAX);
        assert!(q.flag("purge") && !q.flag("force") && !q.flag("other"));
        let wrong = Query::parse(Some("from=soon")).time("from", WallTime::MIN).unwrap_err();
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
        assert!(wrong.text.message.starts_with("from: "));
    }
}
