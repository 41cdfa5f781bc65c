//! SUBSCRIBE: devices are asked to report changes of their catalog and alarms. Those that refuse, or do not answer, are left alone.

use std::time::{Duration, Instant};

use super::{CommandError, Platform, Purpose, device::Entry};
use crate::{
    gb28181::{
        id::DeviceId,
        manscdp::{self, AlarmQuery, Body, Query},
    },
    sip::{Dialog, Method, Request, Response, header::seconds},
};

/// For how long a subscription is asked.
const EXPIRES: Duration = Duration::from_secs(3600);
/// The shortest time between two refreshes, whatever a device grants.
const REFRESH_MIN: Duration = Duration::from_secs(60);
/// After how long a subscription is tried again that could not be sent.
const RETRY: Duration = Duration::from_secs(60);

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    Catalog,
    Alarm,
}

impl Package {
    const ALL: [Self; 2] = [Self::Catalog, Self::Alarm];

    /// As devices in the field expect it in the Event header.
    const fn event(self) -> &'static str {
        match self {
            Self::Catalog => "Catalog",
            Self::Alarm => "presence",
        }
    }
}

#[derive(Default)]
pub(super) struct Subscriptions {
    catalog: Subscription,
    alarm: Subscription,
}

#[derive(Default)]
struct Subscription {
    /// Once it is granted.
    dialog: Option<Dialog>,
    /// The first request, until it is answered.
    asked: Option<Request>,
    /// The device wants none.
    refused: bool,
    /// When to ask, or to refresh.
    next: Option<Instant>,
}

impl Subscriptions {
    /// Forgets all of it: the device has been away.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Asks for what was not refused. One that is there already is refreshed: a device that has restarted says that it does not know it.
    pub(super) fn begin(&mut self, at: Instant) {
        for package in Package::ALL {
            let one = self.get(package);
            one.next = (!one.refused).then_some(at);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        [self.catalog.next, self.alarm.next].into_iter().flatten().min()
    }

    const fn get(&mut self, package: Package) -> &mut Subscription {
        match package {
            Package::Catalog => &mut self.catalog,
            Package::Alarm => &mut self.alarm,
        }
    }
}

impl Platform {
    pub(super) fn work_on_subscriptions(&mut self, now: Instant, id: DeviceId) {
        for package in Package::ALL {
            let due = self
                .devices
                .get_mut(&id)
                .filter(|e| e.view.online)
                .is_some_and(|entry| {
                    let next = &mut entry.subscriptions.get(package).next;
                    next.take_if(|t| *t <= now).is_some()
                });
            if due
                && self.subscribe(now, id, package).is_err()
                && let Some(entry) = self.devices.get_mut(&id)
            {
                entry.subscriptions.get(package).next = Some(now + RETRY);
            }
        }
    }

    fn subscribe(&mut self, now: Instant, id: DeviceId, package: Package) -> Result<(), CommandError> {
        let way = self.way(id)?;
        let sn = self.next_sn();
        let dialog = self
            .devices
            .get_mut(&id)
            .and_then(|e| e.subscriptions.get(package).dialog.as_mut());
        let mut request = match dialog {
            Some(dialog) => dialog.request(Method::Subscribe),
            None => self.new_request(way, Method::Subscribe, id),
        };
        let query = match package {
            Package::Catalog => Query::Catalog { start: None, end: None },
            Package::Alarm => Query::Alarm(AlarmQuery::default()),
        };
        let body = manscdp::Message {
            sn,
            device: Some(id),
            body: Body::Query(query),
        };
        request.headers.push("Contact", self.contact(way));
        request
            .headers
            .push("Event", format!("{};id={}", package.event(), sn % 10_000));
        request.headers.push("Expires", EXPIRES.as_secs().to_string());
        let mut request = request.with_body(manscdp::CONTENT_TYPE, body.to_bytes());
        self.send(now, way, &mut request, Purpose::Subscribe(id, package))?;
        if let Some(entry) = self.devices.get_mut(&id) {
            let one = entry.subscriptions.get(package);
            if one.dialog.is_none() {
                one.asked = Some(request);
            }
        }
        Ok(())
    }

    /// `None`: no answer came.
    pub(super) fn on_subscribe_answer(
        &mut self,
        now: Instant,
        id: DeviceId,
        package: Package,
        response: Option<&Response>,
    ) {
        let Some(entry) = self.devices.get_mut(&id) else {
            return;
        };
        let one = entry.subscriptions.get(package);
        match response {
            Some(response) if response.is_success() => {
                if let Some(asked) = one.asked.take() {
                    one.dialog = Some(Dialog::new(&asked, response));
                }
                let granted = response.headers.get("Expires").and_then(seconds);
                let granted = granted.map_or(EXPIRES, |s| Duration::from_secs(s.into()).min(EXPIRES));
                one.next = Some(now + (granted * 4 / 5).max(REFRESH_MIN));
            }
            // It has lost the subscription and may take a new one.
            Some(response) if response.status == 481 && one.dialog.is_some() => {
                one.dialog = None;
                one.next = Some(now);
            }
            _ => {
                one.refused = true;
                one.dialog = None;
                one.asked = None;
            }
        }
        show(entry);
        self.rearm(id);
    }
}

fn show(entry: &mut Entry) {
    entry.view.subscribed = entry.subscriptions.catalog.dialog.is_some();
}
