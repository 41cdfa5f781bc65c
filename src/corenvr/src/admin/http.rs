//! Requests and answers in the API's own terms: JSON in, JSON out, bodies that may stream, failures as problem documents (RFC 9457).

use std::{collections::HashMap, io, pin::Pin, time::Duration};

use bytes::Bytes;
use corenvr_media::{TimeRange, WallTime};
use corenvr_shard::time;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use super::api::Problem;

/// Largest request body; a larger one is answered 413.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// How long a request body may take; a slower one is answered 408.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);

/// A body, whole or streamed. It stays on the control executor and need not be `Send`.
pub type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = io::Error>>>;

/// An answer.
pub type Answer = Response<BoxBody>;

/// A body of known bytes.
pub fn whole(bytes: impl Into<Bytes>) -> BoxBody {
    Box::pin(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    detail: String,
    remedy: String,
    /// Boxed, since a failure is handed on by value everywhere.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    /// With a remedy; may be empty.
    pub fn new(status: StatusCode, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            remedy: remedy.into(),
            header: None,
        }
    }

    /// With a header of its own.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// 400
    pub fn bad(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, remedy)
    }

    /// 401: who asks has not said who he is, or not rightly.
    pub fn login(message: impl Into<String>) -> Self {
        let remedy = "log in with POST /api/v1/session, or send a token as Authorization: Bearer";
        Self::new(StatusCode::UNAUTHORIZED, message, remedy).with(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"corenvr\""),
        )
    }

    /// 403
    pub fn forbidden(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message, remedy)
    }

    /// 404 for a path.
    pub fn nothing_at(path: &str) -> Self {
        // What comes from outside is not given back at any length.
        let path: String = path.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}"),
            "/api/v1/openapi.json lists what there is",
        )
    }

    /// 405, with what would be allowed.
    pub fn method(allowed: &[Method]) -> Self {
        let list: Vec<_> = allowed.iter().map(Method::as_str).collect();
        let list = list.join(", ");
        let failure = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this method does nothing here",
            format!("use {list}"),
        );
        match HeaderValue::try_from(list) {
            Ok(value) => failure.with(header::ALLOW, value),
            Err(_) => failure,
        }
    }

    /// 429: ask again after this time.
    pub fn too_many(message: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs().max(1);
        let remedy = format!("try again in {seconds} s");
        Self::new(StatusCode::TOO_MANY_REQUESTS, message, remedy).with(header::RETRY_AFTER, HeaderValue::from(seconds))
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

    /// The status it is answered with.
    #[cfg(test)]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// As an answer.
    pub fn into_answer(self) -> Answer {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Failure").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            remedy: self.remedy,
        };
        let mut answer = json(self.status, &problem);
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(self.header.map(|header| *header));
        answer
    }
}

/// A document as an answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
    text(status, "application/json", bytes)
}

/// 204
pub fn nothing() -> Answer {
    let mut answer = Response::new(whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// Bytes of a type as an answer.
pub fn text(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(whole(bytes));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Reads a body of JSON.
pub async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> Result<T, Failure> {
    must_be_json(headers)?;
    let too_large = || {
        let message = format!("the request is larger than {BODY_BYTES_MAX} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message, "send less")
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = read.map_err(|_| {
        let message = format!("the request did not come within {} s", BODY_TIME_MAX.as_secs());
        Failure::new(StatusCode::REQUEST_TIMEOUT, message, "send it at once")
    })?;
    let bytes = body
        .map_err(|error| match error.downcast::<http_body_util::LengthLimitError>() {
            Ok(_) => too_large(),
            Err(_) => Failure::bad("the request was cut off", "send it as a whole"),
        })?
        .to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::bad(format!("the request cannot be read: {e}"), "send JSON as documented"))
}

/// A form or a plain text is what a page of another site may send without being asked; JSON is not.
fn must_be_json(headers: &HeaderMap) -> Result<(), Failure> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if ["application/json", "application/merge-patch+json"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the request is not JSON",
        "send JSON with Content-Type: application/json",
    ))
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

    /// A switch: `1` or `true`, or the name alone; absent, `0` or `false`: not.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.0.get(name).map(String::as_str) {
            None => Ok(default),
            Some("" | "1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(_) => Err(Failure::bad(format!("{name}: neither 0 nor 1"), "write 0 or 1")),
        }
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

    /// The range between `from` and `to`; all of time where they are absent.
    pub fn range(&self) -> Result<TimeRange, Failure> {
        let (start, end) = (self.time("from", WallTime::MIN)?, self.time("to", WallTime::MAX)?);
        TimeRange::new(start, end).ok_or_else(|| Failure::bad("to is before from", "exchange them"))
    }

    /// How many entries an answer is to have: `limit`, from 1 to `max`, which is also the default.
    pub fn limit(&self, max: usize) -> Result<usize, Failure> {
        let Some(text) = self.0.get("limit") else {
            return Ok(max);
        };
        let number = text.parse().ok().filter(|n| (1..=max).contains(n));
        number.ok_or_else(|| Failure::bad("limit: out of range", format!("give a number from 1 to {max}")))
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
            "from=2026-11-20T10%3A00:00Z&to=2026-11-20T18:00:00+08:00&purge&force=0&%&odd=maybe",
        ));
        let ten = WallTime::parse("2026-11-20T10:00:00Z").unwrap();
        assert_eq!(q.time("from", WallTime::MIN).unwrap(), ten);
        assert_eq!(q.time("to", WallTime::MIN).unwrap(), ten);
        assert_eq!(q.time("at", WallTime::MAX).unwrap(), WallTime::MAX);
        assert!(q.flag("purge", false).unwrap() && !q.flag("force", true).unwrap() && q.flag("other", true).unwrap());
        assert_eq!(q.flag("odd", false).unwrap_err().status(), StatusCode::BAD_REQUEST);
        let wrong = Query::parse(Some("from=soon")).time("from", WallTime::MIN).unwrap_err();
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
        assert!(wrong.detail.starts_with("from: "));
    }

    #[test]
    fn a_limit_is_within_its_bounds_or_refused() {
        let limit = |text| Query::parse(Some(text)).limit(10);
        assert_eq!(limit("").unwrap(), 10);
        assert_eq!(limit("limit=3").unwrap(), 3);
        for wrong in [
            "limit=0",
            "limit=11",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=99999999999999999999",
        ] {
            assert_eq!(limit(wrong).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn a_failure_is_a_problem_document_with_the_headers_that_belong_to_it() {
        let answer = Failure::login("who are you?").into_answer();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"corenvr\"");
        let answer = Failure::method(&[Method::GET, Method::HEAD]).into_answer();
        assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
        let answer = Failure::too_many("slower", Duration::from_millis(300)).into_answer();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn only_json_is_read() {
        let of = |kind: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(kind.map(|k| (header::CONTENT_TYPE, HeaderValue::from_static(k))));
            must_be_json(&headers).is_ok()
        };
        assert!(of(Some("application/json")) && of(Some("Application/JSON; charset=utf-8")));
        assert!(of(Some("application/merge-patch+json")));
        assert!(!of(None) && !of(Some("text/plain")) && !of(Some("application/x-www-form-urlencoded")));
    }
}
