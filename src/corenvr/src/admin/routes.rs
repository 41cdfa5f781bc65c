//! The one table of what the API has: method, path, the right that is needed, and who answers. What a route needs is decided here,
//! before its handler runs; a handler only ever narrows it further.

use std::rc::Rc;

use corenvr_media::CameraName;
use corenvr_playback::Access;
use futures::future::LocalBoxFuture;
use hyper::{Method, body::Incoming, header::HeaderMap};
use serde::de::DeserializeOwned;

use super::{
    backfill,
    caller::Caller,
    camera_changes, cameras, clip, devices, document,
    http::{Answer, Failure, Query, read_json},
    site, users,
};
use crate::{
    accounts::{
        Accounts, Right, Who,
        audit::{Action, Entry, Outcome},
    },
    supervisor::appliance::{Appliance, ChangeError},
};

/// What answers a request.
pub type Handler = fn(Call) -> LocalBoxFuture<'static, Result<Answer, Failure>>;

/// One thing that can be asked.
pub struct Route {
    /// The method; `HEAD` is answered wherever `GET` is.
    pub method: Method,
    /// The path; `{word}` stands for one part of it.
    pub path: &'static str,
    /// What who asks must have.
    pub need: Need,
    /// Who answers.
    pub handler: Handler,
}

/// What who asks must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// An account, whatever its role; or to be on this machine.
    Login,
    /// Any right to the camera that the path names; where it names none, to any camera: then the answer is about those only.
    See,
    /// This right, and not for single cameras only.
    Right(Right),
    /// This right to the camera that the path names as `{name}`.
    Camera(Right),
}

/// Rights to a camera that let its name be known.
const SEEN_BY: [Right; 6] = [
    Right::Live,
    Right::Playback,
    Right::Export,
    Right::Control,
    Right::Status,
    Right::Configure,
];

macro_rules! route {
    ($method:ident $path:literal, $need:expr, $handler:path) => {
        Route {
            method: hyper::Method::$method,
            path: $path,
            need: $need,
            handler: |call| Box::pin($handler(call)),
        }
    };
}
pub(super) use route;

/// What there is, by part of the program.
pub const TABLE: &[&[Route]] = &[
    site::ROUTES,
    document::ROUTES,
    cameras::ROUTES,
    camera_changes::ROUTES,
    devices::ROUTES,
    backfill::ROUTES,
    users::ROUTES,
    clip::ROUTES,
];

/// All routes.
pub fn all() -> impl Iterator<Item = &'static Route> {
    TABLE.iter().flat_map(|part| part.iter())
}

/// A path that was found.
pub struct Found {
    /// What can be done there; never empty.
    pub routes: Vec<&'static Route>,
    /// What the `{words}` stand for.
    pub args: Vec<String>,
}

impl Found {
    /// The route for a method.
    pub fn route(&self, method: &Method) -> Result<&'static Route, Failure> {
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        let route = self.routes.iter().find(|r| r.method == *wanted);
        route.copied().ok_or_else(|| Failure::method(&self.allowed()))
    }

    fn allowed(&self) -> Vec<Method> {
        let mut allowed: Vec<_> = self.routes.iter().map(|r| r.method.clone()).collect();
        if allowed.contains(&Method::GET) {
            allowed.push(Method::HEAD);
        }
        allowed
    }

    /// The camera that the path names, as it was written.
    pub fn camera(&self) -> Option<&str> {
        let words = self.routes.first()?.path.split('/').filter(|p| p.starts_with('{'));
        let at = words.into_iter().position(|p| p == "{name}")?;
        self.args.get(at).map(String::as_str)
    }
}

/// Finds a path. It is compared as it was sent, byte by byte: nothing is decoded, joined or taken away before that.
pub fn find(path: &str) -> Option<Found> {
    let mut args = Vec::new();
    let routes: Vec<_> = all()
        .filter(|route| match matches(route.path, path) {
            Some(found) => {
                args = found;
                true
            }
            None => false,
        })
        .collect();
    (!routes.is_empty()).then_some(Found { routes, args })
}

fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut args = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(args),
            (Some(word), Some(part)) if word.starts_with('{') => {
                if part.is_empty() {
                    return None;
                }
                args.push(part.to_owned());
            }
            (Some(word), Some(part)) if word == part => {}
            _ => return None,
        }
    }
}

/// Whether anything of a camera may be known to somebody.
pub fn sees(accounts: &Accounts, who: &Who, camera: &CameraName) -> bool {
    SEEN_BY
        .iter()
        .any(|right| accounts.allows(who, *right, Some(camera)) == Access::Allow)
}

/// Lets a request through to its handler, or says why not. The camera is the one that the path names, if it does.
///
/// A camera that may not be seen is answered like one that is not there, and so is a name that no camera can have.
pub fn decide(accounts: &Accounts, who: &Who, need: Need, named: Option<&str>) -> Result<Option<CameraName>, Failure> {
    let camera = named.map(CameraName::new);
    let camera = match camera {
        None => None,
        Some(Ok(name)) => Some(name),
        Some(Err(_)) => {
            // Whoever has not logged in learns that first, whatever the name.
            decide(accounts, who, Need::Login, None)?;
            return Err(no_camera());
        }
    };
    let allows = |right| accounts.allows(who, right, camera.as_ref());
    let access = match need {
        Need::Open => Access::Allow,
        Need::Login => match who {
            Who::Nobody => Access::NeedLogin,
            _ => Access::Allow,
        },
        Need::See => best(SEEN_BY.iter().map(|right| allows(*right))),
        Need::Right(right) | Need::Camera(right) => allows(right),
    };
    match (access, &camera) {
        (Access::Allow, _) => Ok(camera),
        (Access::NeedLogin, _) => Err(Failure::login("this needs a login")),
        (Access::Forbid, Some(name)) if !sees(accounts, who, name) => Err(no_camera()),
        (Access::Forbid, _) => Err(Failure::forbidden(
            "this account may not do that",
            "ask an administrator: `corenvr user list` shows who may do what",
        )),
    }
}

fn best(all: impl Iterator<Item = Access>) -> Access {
    let mut best = Access::Forbid;
    for access in all {
        match access {
            Access::Allow => return Access::Allow,
            Access::NeedLogin => best = Access::NeedLogin,
            Access::Forbid => {}
        }
    }
    best
}

/// The answer for a camera that is not there, or not there for who asks: the same to the byte.
pub fn no_camera() -> Failure {
    Failure::new(
        hyper::StatusCode::NOT_FOUND,
        "there is no such camera",
        "GET /api/v1/cameras or `corenvr camera list` shows all names",
    )
}

/// A request that may be answered.
pub struct Call {
    /// The recorder.
    pub appliance: Rc<Appliance>,
    /// Who asks.
    pub caller: Caller,
    /// `GET`, `HEAD` and so on.
    pub method: Method,
    /// The query of the URL.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    pub(super) args: Vec<String>,
    pub(super) camera: Option<CameraName>,
    pub(super) body: Option<Incoming>,
}

impl Call {
    /// The camera that the path names.
    pub fn camera(&self) -> Result<CameraName, Failure> {
        self.camera.clone().ok_or_else(no_camera)
    }

    /// What the `{words}` of the path stand for, from 0, as it was sent.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// The body, read as JSON.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let body = self.body.take();
        let body = body.ok_or_else(|| Failure::internal(&"the request was read twice"))?;
        read_json(&self.headers, body).await
    }

    /// Writes into the audit log what was asked, and whether it was done.
    pub fn audit(&self, action: Action, camera: Option<&CameraName>, detail: &str, done: bool) {
        let Caller { who, peer, via, .. } = &self.caller;
        let mut entry = Entry::new(who, *peer, *via, action).detail(detail);
        entry.camera = camera.cloned();
        let outcome = if done { Outcome::Ok } else { Outcome::Failed };
        self.appliance.accounts.audit().record(entry.outcome(outcome));
    }

    /// Whether who asks may know of a camera.
    pub fn sees(&self, camera: &CameraName) -> bool {
        sees(&self.appliance.accounts, &self.caller.who, camera)
    }

    /// Whether who asks has a right that is not for single cameras only.
    pub fn may(&self, right: Right) -> bool {
        self.appliance.accounts.allows(&self.caller.who, right, None) == Access::Allow
    }
}

/// A change that was not made, as an answer.
pub fn refused(error: &ChangeError) -> Failure {
    use hyper::StatusCode;
    let (status, remedy) = match error {
        ChangeError::NoSuchCamera(_) => return no_camera(),
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

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
