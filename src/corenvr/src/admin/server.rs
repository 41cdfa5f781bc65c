//! The recorder's side: who may connect, and which request goes where.

use std::{convert::Infallible, io, path::Path, rc::Rc, time::Duration};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_shard::{Class, Task, net, spawn, time};
use hyper::{Method, Request, StatusCode, body::Incoming, service::service_fn};

use super::{
    api::{CameraList, ProbeRequest, Removed},
    backfill, cameras, devices, document,
    http::{Answer, Failure, Query, json, read_json},
};
use crate::{
    config::{CameraJson, CameraSettings, SourceUrl, url_remedy, values::Problem},
    supervisor::appliance::{Appliance, ChangeError},
};

/// Most connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// A shard that was not heard of for this long makes the recorder unhealthy.
const HEALTHY_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Listens on the socket and answers until the task is dropped.
pub fn start(socket: &Path, appliance: Rc<Appliance>) -> io::Result<Task<()>> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        let message = "another recorder answers there";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    let listener = net::Listener::unix(socket)?;
    Ok(spawn(Class::Live, "api", async move {
        let connections = Rc::new(());
        loop {
            match listener.accept().await {
                Ok(stream) if Rc::strong_count(&connections) <= CONNECTIONS_MAX => {
                    let (held, appliance) = (connections.clone(), appliance.clone());
                    let task = spawn(Class::Live, "api-connection", async move {
                        serve(stream, appliance).await;
                        drop(held);
                    });
                    task.detach();
                }
                Ok(_) => tracing::warn!(
                    max = CONNECTIONS_MAX,
                    "too many connections to the control socket; one is closed"
                ),
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts no connection");
                    time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }))
}

async fn serve(stream: net::Stream, appliance: Rc<Appliance>) {
    // The socket's mode keeps others out already; a copied descriptor or a wrong umask does not get past this.
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_uid() {
        Ok(uid) if uid == 0 || uid == own => {}
        other => return tracing::warn!(peer = ?other, "a stranger on the control socket is refused"),
    }
    let service = service_fn(|request: Request<Incoming>| {
        let appliance = appliance.clone();
        async move { Ok::<_, Infallible>(answer(&appliance, request).await) }
    });
    if let Err(error) = corenvr_shard::http::serve(stream, service).await {
        tracing::debug!(%error, "a connection to the control socket ended");
    }
}

async fn answer(appliance: &Rc<Appliance>, request: Request<Incoming>) -> Answer {
    let what = format!("{} {}", request.method(), request.uri().path());
    let answer = route(appliance, request).await.unwrap_or_else(Failure::into_answer);
    tracing::debug!(request = %what, status = answer.status().as_u16(), "api");
    answer
}

async fn route(appliance: &Rc<Appliance>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let query = Query::parse(request.uri().query());
    match (request.method().clone(), parts.as_slice()) {
        (Method::GET, ["healthz"]) => health(appliance),
        (Method::GET, ["api", "v1", "status"]) => Ok(json(StatusCode::OK, &document::status(appliance).await?)),
        (Method::POST, ["api", "v1", "probe"]) => probe(appliance, read_json(request).await?).await,
        (Method::GET, ["api", "v1", "cameras"]) => {
            let list = CameraList {
                cameras: cameras::all(appliance).await?,
                left_out: appliance.book.borrow().all_left_out(),
            };
            Ok(json(StatusCode::OK, &list))
        }
        (Method::POST, ["api", "v1", "cameras"]) => add(appliance, request).await,
        (method, ["api", "v1", "gb28181", rest @ ..]) => devices::route(appliance, method, rest, &query).await,
        (method, ["api", "v1", "cameras", name, rest @ ..]) => {
            let name = CameraName::new(name).map_err(|e| Failure::bad(e.to_string(), ""))?;
            camera(appliance, request, method, &name, rest, &query).await
        }
        _ => Err(not_found(&path)),
    }
}

fn not_found(path: &str) -> Failure {
    let remedy = "/healthz, /api/v1/status, /api/v1/probe, /api/v1/cameras and /api/v1/gb28181 are there";
    Failure::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {path} for this method"),
        remedy,
    )
}

async fn camera(
    appliance: &Rc<Appliance>,
    request: Request<Incoming>,
    method: Method,
    name: &CameraName,
    rest: &[&str],
    query: &Query,
) -> Result<Answer, Failure> {
    match (method, rest) {
        (Method::GET, []) => Ok(json(StatusCode::OK, &cameras::one(appliance, name).await?)),
        (Method::PATCH, []) => change(appliance, name, read_json(request).await?).await,
        (Method::DELETE, []) => remove(appliance, name, query.flag("purge")).await,
        (Method::POST, ["ptz"]) => devices::ptz(appliance, name, request).await,
        (Method::GET, ["timeline"]) => {
            let range = range(query)?;
            Ok(json(StatusCode::OK, &cameras::timeline(appliance, name, range).await?))
        }
        (Method::GET, ["events"]) => {
            let range = range(query)?;
            Ok(json(StatusCode::OK, &cameras::events(appliance, name, range).await?))
        }
        (Method::POST, ["backfill"]) => backfill::begin(appliance, name, request).await,
        (Method::GET, ["backfill"]) => backfill::status(appliance, name).await,
        (Method::DELETE, ["backfill"]) => backfill::stop(appliance, name).await,
        (Method::GET, ["segments"]) => {
            let range = range(query)?;
            Ok(json(StatusCode::OK, &cameras::segments(appliance, name, range).await?))
        }
        _ => Err(not_found(request_path(name, rest).as_str())),
    }
}

fn request_path(name: &CameraName, rest: &[&str]) -> String {
    format!("/api/v1/cameras/{name}/{}", rest.join("/"))
}

/// The range of times that a request names; all of time where it names none.
pub fn range(query: &Query) -> Result<TimeRange, Failure> {
    let (start, end) = (query.time("from", WallTime::MIN)?, query.time("to", WallTime::MAX)?);
    TimeRange::new(start, end).ok_or_else(|| Failure::bad("to is before from", "exchange them"))
}

fn health(appliance: &Appliance) -> Result<Answer, Failure> {
    for shard in appliance.load.borrow().iter() {
        if shard.silent_for() > HEALTHY_SILENCE_MAX {
            let silent = shard.silent_for().as_secs();
            let message = format!("{} has not been heard of for {silent} s", shard.show().name);
            return Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                message,
                "restart corenvr",
            ));
        }
    }
    Ok(json(StatusCode::OK, &serde_json::json!({ "status": "ok" })))
}

async fn probe(appliance: &Appliance, request: ProbeRequest) -> Result<Answer, Failure> {
    let url: SourceUrl = request
        .url
        .parse()
        .map_err(|e: corenvr_recorder::SourceError| Failure::bad(format!("url: {e}"), url_remedy(&e)))?;
    match appliance.recorder.probe(url.source(), request.transport).await {
        Ok(report) => Ok(json(StatusCode::OK, &report)),
        Err(error) => Err(Failure::new(StatusCode::BAD_GATEWAY, format!("{url}: {error}"), "")),
    }
}

/// Reads a camera, with every mistake in one message.
fn settings(camera: CameraJson) -> Result<CameraSettings, Failure> {
    CameraSettings::try_from(camera).map_err(|problems| {
        let join = |f: fn(&(&'static str, Problem)) -> String| problems.iter().map(f).collect::<Vec<_>>().join("; ");
        Failure::bad(
            join(|(key, p)| format!("{key}: {}", p.message)),
            join(|(key, p)| format!("{key}: {}", p.remedy)),
        )
    })
}

async fn add(appliance: &Rc<Appliance>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let settings = settings(read_json(request).await?)?;
    let name = settings.name.clone();
    appliance.add(settings).await.map_err(|e| refused(&e))?;
    Ok(json(StatusCode::CREATED, &cameras::one(appliance, &name).await?))
}

/// Changes what the body names and leaves the rest as it is (RFC 7396).
async fn change(appliance: &Rc<Appliance>, name: &CameraName, patch: serde_json::Value) -> Result<Answer, Failure> {
    let now = appliance
        .book
        .borrow()
        .camera(name)
        .map(|(settings, _)| settings.exposed());
    let now = now.ok_or_else(|| refused(&ChangeError::NoSuchCamera(name.clone())))?;
    let mut document = serde_json::to_value(now).map_err(|e| Failure::internal(&e))?;
    let (Some(fields), serde_json::Value::Object(patch)) = (document.as_object_mut(), patch) else {
        return Err(Failure::bad(
            "a change is a JSON object",
            "send for example {\"mode\": \"off\"}",
        ));
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            fields.insert(key, value);
        }
    }
    let camera: CameraJson =
        serde_json::from_value(document).map_err(|e| Failure::bad(e.to_string(), "use the keys of [[camera]]"))?;
    let settings = settings(camera)?;
    if settings.name != *name {
        let remedy = "add a camera of the new name and remove this one";
        return Err(Failure::bad(
            "name: a camera keeps its name, since its recordings carry it",
            remedy,
        ));
    }
    appliance.replace(settings).await.map_err(|e| refused(&e))?;
    Ok(json(StatusCode::OK, &cameras::one(appliance, name).await?))
}

async fn remove(appliance: &Rc<Appliance>, name: &CameraName, purge: bool) -> Result<Answer, Failure> {
    // With a camera that stands for a catalog go the cameras of its channels.
    let channels: Vec<CameraName> = {
        let book = appliance.book.borrow();
        let own = book.derived.iter().filter(|d| d.of == *name);
        own.map(|d| d.settings.name.clone()).collect()
    };
    match appliance.remove(name).await {
        Ok(()) => {}
        // What an earlier camera of that name left behind can be deleted as well.
        Err(ChangeError::NoSuchCamera(_)) if purge && cameras::has_footage(appliance, name).await? => {}
        Err(error) => return Err(refused(&error)),
    }
    let mut removed = Removed { segments: 0, bytes: 0 };
    if purge {
        for name in channels.iter().chain([name]) {
            let purged = cameras::purge(appliance, name).await?;
            removed.segments += purged.segments;
            removed.bytes += purged.bytes;
        }
    }
    Ok(json(StatusCode::OK, &removed))
}

/// A change that was not made, as an answer.
pub fn refused(error: &ChangeError) -> Failure {
    let (status, remedy) = match error {
        ChangeError::NoSuchCamera(_) => (
            StatusCode::NOT_FOUND,
            "`corenvr camera list` shows all names".to_owned(),
        ),
        ChangeError::Exists(name) => (
            StatusCode::CONFLICT,
            format!("choose another name, or remove it first: corenvr camera remove {name}"),
        ),
        ChangeError::InConfig { .. } => (
            StatusCode::CONFLICT,
            "change it there and reload: systemctl reload corenvr".to_owned(),
        ),
        ChangeError::Derived { of, .. } => (
            StatusCode::CONFLICT,
            format!("change or remove {of}, or add the channel as a camera of its own"),
        ),
        ChangeError::TooMany => (StatusCode::CONFLICT, "use a second recorder".to_owned()),
        ChangeError::Setting { problem, .. } => (StatusCode::BAD_REQUEST, problem.remedy.clone()),
        ChangeError::File(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        ChangeError::Recorder(_) | ChangeError::Worker(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "try again; `corenvr status` shows what is busy".to_owned(),
        ),
    };
    Failure::new(status, error.to_string(), remedy)
}
