//! Changing cameras over the API: trying a URL, adding, changing, removing.

use corenvr_media::CameraName;
use corenvr_recorder::{Source, TransportChoice};
use hyper::StatusCode;
use serde_json::Value;

use super::{
    api::{AddedCamera, ProbeRequest, Removed},
    cameras,
    http::{Answer, Failure, json},
    routes::{Call, Need, Route, no_camera, refused, route},
};
use crate::{
    accounts::{Right, audit::Action},
    config::{CameraJson, CameraSettings, SourceUrl, url_remedy, values::Problem},
    supervisor::appliance::{Appliance, ChangeError},
};

/// What can be done to cameras.
pub const ROUTES: &[Route] = &[
    route!(POST "/api/v1/probe", Need::Right(Right::Configure), probe),
    route!(POST "/api/v1/cameras", Need::Right(Right::Configure), add),
    route!(PATCH "/api/v1/cameras/{name}", Need::Camera(Right::Configure), change),
    route!(DELETE "/api/v1/cameras/{name}", Need::Camera(Right::Configure), remove),
];

/// Cameras that are tried at the same time; one more is refused with 429.
const PROBES_MAX: usize = 8;
/// When to ask again then: about as long as a probe takes.
const PROBE_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

async fn probe(mut call: Call) -> Result<Answer, Failure> {
    let request: ProbeRequest = call.json().await?;
    let url: SourceUrl = request
        .url
        .parse()
        .map_err(|e: corenvr_recorder::SourceError| Failure::bad(format!("url: {e}"), url_remedy(&e)))?;
    let report = try_camera(&call.appliance, &url, request.transport, "correct the URL").await?;
    Ok(json(StatusCode::OK, &report))
}

/// Looks at a camera; the failure is the camera's, and names it without its password.
async fn try_camera(
    appliance: &Appliance,
    url: &SourceUrl,
    transport: TransportChoice,
    remedy: &str,
) -> Result<Value, Failure> {
    let held = appliance.probing.clone();
    if std::rc::Rc::strong_count(&held) > PROBES_MAX + 1 {
        let message = format!("{PROBES_MAX} cameras are being tried already");
        return Err(Failure::too_many(message, PROBE_RETRY));
    }
    let report = appliance.recorder.probe(url.source(), transport).await;
    drop(held);
    let report =
        report.map_err(|error| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{url}: {error}"), remedy))?;
    serde_json::to_value(report).map_err(|e| Failure::internal(&e))
}

const fn comes_to_us(source: &Source) -> bool {
    matches!(source, Source::Gb28181(_) | Source::RtmpListen(_))
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

async fn add(mut call: Call) -> Result<Answer, Failure> {
    let wanted = call.query.flag("probe", true)?;
    let settings = settings(call.json().await?)?;
    let name = settings.name.clone();
    // A name that is taken is said before anybody waits for a camera.
    if call.appliance.book.borrow().camera(&name).is_some() {
        return Err(refused(&ChangeError::Exists(name)));
    }
    let probe = if wanted && !comes_to_us(settings.url.source()) {
        let remedy = "correct the URL, or add the camera all the same with ?probe=0";
        Some(try_camera(&call.appliance, &settings.url, settings.transport, remedy).await?)
    } else {
        None
    };
    let added = call.appliance.add(settings).await;
    call.audit(Action::CameraAdd, Some(&name), "", added.is_ok());
    added.map_err(|e| refused(&e))?;
    let camera = cameras::one(&call.appliance, &name).await?;
    Ok(json(StatusCode::CREATED, &AddedCamera { camera, probe }))
}

/// Changes what the body names and leaves the rest as it is (RFC 7396).
async fn change(mut call: Call) -> Result<Answer, Failure> {
    let name = call.camera()?;
    let patch: Value = call.json().await?;
    let now = {
        let book = call.appliance.book.borrow();
        book.camera(&name).map(|(settings, _)| settings.exposed())
    };
    let mut document = serde_json::to_value(now.ok_or_else(no_camera)?).map_err(|e| Failure::internal(&e))?;
    let (Some(fields), Value::Object(patch)) = (document.as_object_mut(), patch) else {
        return Err(Failure::bad(
            "a change is a JSON object",
            "send for example {\"mode\": \"off\"}",
        ));
    };
    let changed: Vec<_> = patch.keys().take(CHANGES_NAMED_MAX).cloned().collect();
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
    if settings.name != name {
        let remedy = "add a camera of the new name and remove this one";
        return Err(Failure::bad(
            "name: a camera keeps its name, since its recordings carry it",
            remedy,
        ));
    }
    let replaced = call.appliance.replace(settings).await;
    call.audit(Action::CameraChange, Some(&name), &changed.join(" "), replaced.is_ok());
    replaced.map_err(|e| refused(&e))?;
    Ok(json(StatusCode::OK, &cameras::one(&call.appliance, &name).await?))
}

/// Keys of a change that the audit log names; a camera has no more.
const CHANGES_NAMED_MAX: usize = 16;

async fn remove(call: Call) -> Result<Answer, Failure> {
    let (name, purge) = (call.camera()?, call.query.flag("purge", false)?);
    let removed = take_out(&call.appliance, &name, purge).await;
    let detail = match &removed {
        Ok(removed) if purge => format!("with {} files", removed.segments),
        _ => String::new(),
    };
    call.audit(Action::CameraRemove, Some(&name), &detail, removed.is_ok());
    Ok(json(StatusCode::OK, &removed?))
}

async fn take_out(appliance: &Appliance, name: &CameraName, purge: bool) -> Result<Removed, Failure> {
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
    Ok(removed)
}
