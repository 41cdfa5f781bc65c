//! From a request to its answer: sizes, who asks, whether they may, and the headers that every answer carries.

use std::rc::Rc;

use corenvr_shard::{Class, spawn};
use futures::{channel::oneshot, future::LocalBoxFuture};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::{
    caller::{Caller, Origin, refuse_cross_site},
    http::{Answer, Failure, Query},
    routes::{self, Call, Need},
};
use crate::supervisor::appliance::Appliance;

/// Longest path with its query; a longer one is answered 414.
const TARGET_BYTES_MAX: usize = 4096;
/// Most header bytes, names and values; more is answered 431.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Most headers; more is answered 431.
const HEADERS_MAX: usize = 64;

/// Answers a request.
pub async fn answer(appliance: &Rc<Appliance>, origin: Origin, request: Request<Incoming>) -> Answer {
    // The query may hold what nobody should read in a log.
    let what = format!("{} {:.200}", request.method(), request.uri().path());
    let mut answer = route(appliance, origin, request)
        .await
        .unwrap_or_else(Failure::into_answer);
    secure(answer.headers_mut());
    tracing::debug!(request = ?what, status = answer.status().as_u16(), peer = ?origin.peer, "api");
    answer
}

async fn route(appliance: &Rc<Appliance>, origin: Origin, request: Request<Incoming>) -> Result<Answer, Failure> {
    within_limits(&request)?;
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let found = routes::find(path).ok_or_else(|| Failure::nothing_at(path))?;
    let route = found.route(&head.method)?;
    let accounts = &appliance.accounts;
    let caller = match Caller::find(&head.headers, origin, accounts) {
        Err(_) if route.need == Need::Open => Caller::nobody(origin),
        found => found?,
    };
    refuse_cross_site(&head.method, &head.headers, &caller)?;
    let camera = routes::decide(accounts, &caller.who, route.need, found.camera())?;
    let changes = ![Method::GET, Method::HEAD].contains(&head.method);
    let call = Call {
        appliance: appliance.clone(),
        caller,
        method: head.method,
        query: Query::parse(head.uri.query()),
        headers: head.headers,
        args: found.args,
        camera,
        body: Some(body),
    };
    let handled = (route.handler)(call);
    if changes { finish(handled).await } else { handled.await }
}

/// A change is made to its end even if whoever asked for it goes away in the middle: a camera that is kept and not started would
/// be recorded by nobody.
async fn finish(change: LocalBoxFuture<'static, Result<Answer, Failure>>) -> Result<Answer, Failure> {
    let (done, answer) = oneshot::channel();
    let task = spawn(Class::Live, "api-change", async move {
        // Nobody waits any more: the change is made all the same.
        drop(done.send(change.await));
    });
    task.detach();
    answer
        .await
        .unwrap_or_else(|_| Err(Failure::internal(&"the request failed inside; the log says where")))
}

fn within_limits(request: &Request<Incoming>) -> Result<(), Failure> {
    let target = request.uri().path_and_query().map_or(0, |t| t.as_str().len());
    if target > TARGET_BYTES_MAX {
        let detail = format!("the path and its query have more than {TARGET_BYTES_MAX} bytes");
        return Err(Failure::new(StatusCode::URI_TOO_LONG, detail, "ask for less at a time"));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let detail = format!("there are more than {HEADERS_MAX} headers, or {HEADER_BYTES_MAX} bytes of them");
        let remedy = "send fewer; a browser that has collected cookies of this host can delete them";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Failure::new(status, detail, remedy));
    }
    Ok(())
}

/// What browsers are told about every answer; an answer that says it itself is left as it is.
fn secure(headers: &mut HeaderMap) {
    const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_own_policy_and_gets_the_rest() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        secure(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers.len(), 6);
    }
}
