//! What needs no account: the web console's files, the description of the API, and whether the recorder is well. And the metrics.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json as value;

use super::{
    health,
    http::{Answer, Failure, json, text, whole},
    metrics,
    routes::{Call, Need, Route, route},
};
use crate::accounts::{Right, Who};

/// The pages and what watches the recorder.
pub const ROUTES: &[Route] = &[
    route!(GET "/", Need::Open, index),
    route!(GET "/console.css", Need::Open, style),
    route!(GET "/console.js", Need::Open, script),
    route!(GET "/healthz", Need::Open, healthz),
    route!(GET "/metrics", Need::Right(Right::Control), show_metrics),
    route!(GET "/api/v1/openapi.json", Need::Open, openapi),
];

/// The description of the API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// A file of the console.
struct File {
    kind: &'static str,
    text: &'static str,
    etag: LazyLock<HeaderValue>,
}

static INDEX: File = File {
    kind: "text/html; charset=utf-8",
    text: include_str!("console/index.html"),
    etag: LazyLock::new(|| etag(INDEX.text)),
};
static STYLE: File = File {
    kind: "text/css; charset=utf-8",
    text: include_str!("console/console.css"),
    etag: LazyLock::new(|| etag(STYLE.text)),
};
static SCRIPT: File = File {
    kind: "text/javascript; charset=utf-8",
    text: include_str!("console/console.js"),
    etag: LazyLock::new(|| etag(SCRIPT.text)),
};

/// The page may load from this recorder alone, and be shown in no other page.
const PAGE_POLICY: &str = "default-src 'self'; media-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

fn etag(text: &str) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

async fn index(call: Call) -> Result<Answer, Failure> {
    Ok(page(&call, &INDEX))
}

async fn style(call: Call) -> Result<Answer, Failure> {
    Ok(page(&call, &STYLE))
}

async fn script(call: Call) -> Result<Answer, Failure> {
    Ok(page(&call, &SCRIPT))
}

fn page(call: &Call, file: &File) -> Answer {
    let known = call.headers.get(header::IF_NONE_MATCH) == Some(&*file.etag);
    let mut answer = text(StatusCode::OK, file.kind, file.text);
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        *answer.body_mut() = whole("");
    }
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, file.etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    answer
}

async fn openapi(_: Call) -> Result<Answer, Failure> {
    Ok(text(StatusCode::OK, "application/json", OPENAPI))
}

/// Strangers learn whether, and nothing of why.
async fn healthz(call: Call) -> Result<Answer, Failure> {
    let health = health::check(&call.appliance);
    if health.ok() {
        return Ok(json(StatusCode::OK, &value!({ "status": "ok" })));
    }
    let told = call.caller.who == Who::Local || call.may(Right::Configure);
    let detail = if told {
        health.problems.join("; ")
    } else {
        "the recorder is not well".to_owned()
    };
    Err(Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        detail,
        "`corenvr status` and `corenvr doctor` on the machine itself say more",
    ))
}

async fn show_metrics(call: Call) -> Result<Answer, Failure> {
    let rendered = metrics::render(&call.appliance).await?;
    Ok(text(StatusCode::OK, metrics::CONTENT_TYPE, rendered))
}
