//! Questions to devices, and what is made of the answers: catalogs in many parts, records, what a device is and how it is.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    CHANNELS_MAX, CatalogState, Channel, CommandError, Event, Moment, Platform, Purpose, QUERIES_PER_DEVICE_MAX, Query,
    QueryId, QueryResult, Timer, device::Entry,
};
use crate::{
    gb28181::{
        id::DeviceId,
        manscdp::{
            self, Body, CatalogChange, CatalogEvent, CatalogItem, Control, DeviceInfo, LocalTime, RecordItem, Response,
        },
    },
    sip::Method,
};

/// How long the first part of a catalog may take: a recorder asks its cameras first.
const CATALOG_FIRST: Duration = Duration::from_secs(120);
/// How long the first part of a list of recordings may take: the device searches its disks.
const RECORDS_FIRST: Duration = Duration::from_secs(60);
/// How long a short answer may take.
const SHORT_ANSWER: Duration = Duration::from_secs(20);
/// How long the next part of an answer may take.
const NEXT_PART: Duration = Duration::from_secs(5);
/// How often the catalog of a device is asked for that answers: not all report changes.
const CATALOG_REFRESH: Duration = Duration::from_secs(3600);
/// After how long the catalog of a device is asked for again that did not answer fully; twice as long after each failure.
const CATALOG_RETRY: Duration = Duration::from_secs(120);
/// How long after the change of an unknown channel the catalog is asked for: more changes may follow.
const CATALOG_AFTER_CHANGE: Duration = Duration::from_secs(10);
/// How many recordings one answer may have. At the limit the rest is left out, and the answer does not count as complete.
pub(super) const RECORDS_MAX: usize = 50_000;

/// A question that waits for its answer.
pub(super) struct PendingQuery {
    device: DeviceId,
    target: DeviceId,
    sn: u32,
    question: Query,
    /// Asked by the platform itself; no event tells of its end.
    automatic: bool,
    /// How many items there are, by the device's account.
    announced: Option<usize>,
    /// Whether a part has come.
    started: bool,
    /// Items that could not be read, or were too many.
    left_out: usize,
    channels: BTreeMap<DeviceId, Channel>,
    records: Vec<RecordItem>,
    seen: HashSet<(Option<DeviceId>, LocalTime, LocalTime, String)>,
}

impl PendingQuery {
    /// Whether all that was announced has come.
    fn is_full(&self) -> bool {
        let received = self.channels.len().max(self.records.len()) + self.left_out;
        self.announced.is_some_and(|announced| received >= announced)
    }

    /// Whether what has come is everything, as far as the device has said how much that is.
    fn is_complete(&self) -> bool {
        self.started && self.left_out == 0 && (self.is_full() || self.announced.is_none())
    }
}

impl Platform {
    pub(super) fn start_query(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        question: Query,
        automatic: bool,
    ) -> Result<QueryId, CommandError> {
        self.way(device)?;
        let waiting = self.queries.values().filter(|q| q.device == device).count();
        if waiting >= QUERIES_PER_DEVICE_MAX {
            return Err(CommandError::Busy("questions to this device"));
        }
        let id = QueryId(self.next_id());
        let (body, first) = match &question {
            Query::Catalog => (manscdp::Query::Catalog { start: None, end: None }, CATALOG_FIRST),
            Query::DeviceInfo => (manscdp::Query::DeviceInfo, SHORT_ANSWER),
            Query::DeviceStatus => (manscdp::Query::DeviceStatus, SHORT_ANSWER),
            Query::RecordInfo(query) => (manscdp::Query::RecordInfo(query.clone()), RECORDS_FIRST),
        };
        let sn = self.send_body(now, device, target, Body::Query(body), Purpose::Query(id))?;
        if question == Query::Catalog
            && device == target
            && let Some(entry) = self.devices.get_mut(&device)
        {
            entry.catalog.last_sn = sn;
            if entry.view.catalog == CatalogState::Unasked {
                entry.view.catalog = CatalogState::Asked;
            }
        }
        let pending = PendingQuery {
            device,
            target,
            sn,
            question,
            automatic,
            announced: None,
            started: false,
            left_out: 0,
            channels: BTreeMap::new(),
            records: Vec::new(),
            seen: HashSet::new(),
        };
        self.queries.insert(id, pending);
        self.timers.set(Timer::Query(id), Some(now + first));
        Ok(id)
    }

    pub(super) fn send_control(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        control: Control,
    ) -> Result<(), CommandError> {
        let body = Body::Control(control);
        self.send_body(now, device, target, body, Purpose::Nothing).map(|_| ())
    }

    /// Sends a MESSAGE with a number of its own, and gives the number.
    fn send_body(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        body: Body,
        purpose: Purpose,
    ) -> Result<u32, CommandError> {
        let sn = self.next_sn();
        self.send_message(now, device, target, sn, body, purpose)?;
        Ok(sn)
    }

    pub(super) fn send_message(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        sn: u32,
        body: Body,
        purpose: Purpose,
    ) -> Result<(), CommandError> {
        let way = self.way(device)?;
        let message = manscdp::Message {
            sn,
            device: Some(target),
            body,
        };
        let request = self.new_request(way, Method::Message, device);
        let mut request = request.with_body(manscdp::CONTENT_TYPE, message.to_bytes());
        self.send(now, way, &mut request, purpose).map(|_| ())
    }

    /// A `<Response>` of a device.
    pub(super) fn on_answer(&mut self, at: Moment, device: DeviceId, sn: u32, response: Response) {
        let Some(id) = self.query_of(device, sn, &response) else {
            // Parts that come when the question was given up are of use all the same.
            if let Response::Catalog { items, .. } = response
                && self
                    .devices
                    .get(&device)
                    .is_some_and(|e| e.catalog.last_sn == sn && sn != 0)
            {
                self.merge_channels(device, items.into_iter().map(Channel::from));
            }
            return;
        };
        let Some(query) = self.queries.get_mut(&id) else {
            return;
        };
        match response {
            Response::Catalog { sum, items, unreadable } => {
                query.take_part(sum, unreadable);
                query.take_channels(items);
                self.on_part(at, id);
            }
            Response::RecordInfo {
                sum, items, unreadable, ..
            } => {
                query.take_part(sum, unreadable);
                query.take_records(items);
                self.on_part(at, id);
            }
            Response::DeviceInfo(info) => {
                self.learn(device, &info);
                self.finish(id, QueryResult::DeviceInfo(info));
            }
            Response::DeviceStatus(status) => self.finish(id, QueryResult::DeviceStatus(status)),
            Response::Result { ok: false, .. } => self.fail_query(at.now, id, "the device refuses the question"),
            // An answer that follows says more.
            Response::Result { ok: true, .. } => {}
        }
    }

    /// The question that an answer belongs to. Where the number cannot be read, the only one of its kind.
    fn query_of(&self, device: DeviceId, sn: u32, response: &Response) -> Option<QueryId> {
        let fits = |q: &PendingQuery| {
            matches!(
                (&q.question, response),
                (Query::Catalog, Response::Catalog { .. })
                    | (Query::RecordInfo(_), Response::RecordInfo { .. })
                    | (Query::DeviceInfo, Response::DeviceInfo(_))
                    | (Query::DeviceStatus, Response::DeviceStatus(_))
                    | (_, Response::Result { .. })
            )
        };
        let mut found = self
            .queries
            .iter()
            .filter(|(_, q)| q.device == device && (sn == 0 || q.sn == sn) && fits(q))
            .map(|(id, _)| *id);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn on_part(&mut self, at: Moment, id: QueryId) {
        let Some(query) = self.queries.get(&id) else {
            return;
        };
        if query.is_full() {
            self.finish_parts(at.now, id);
            return;
        }
        if query.question == Query::Catalog
            && query.target == query.device
            && let Some(entry) = self.devices.get_mut(&query.device)
        {
            entry.view.catalog = CatalogState::Partial {
                received: query.channels.len(),
                announced: query.announced.unwrap_or(query.channels.len()),
            };
        }
        self.timers.set(Timer::Query(id), Some(at.now + NEXT_PART));
    }

    pub(super) fn on_query_idle(&mut self, at: Moment, id: QueryId) {
        match self.queries.get(&id) {
            Some(query) if query.started => self.finish_parts(at.now, id),
            Some(_) => self.fail_query(at.now, id, "the device does not answer"),
            None => {}
        }
    }

    /// No more parts come.
    fn finish_parts(&mut self, now: Instant, id: QueryId) {
        let Some(query) = self.queries.get_mut(&id) else {
            return;
        };
        let complete = query.is_complete();
        let (device, announced, received) = (query.device, query.announced, query.channels.len());
        if !matches!(query.question, Query::Catalog) {
            let items = std::mem::take(&mut query.records);
            self.finish(id, QueryResult::Records { items, complete });
            return;
        }
        let channels = std::mem::take(&mut query.channels);
        if query.target != device {
            self.merge_channels(device, channels.into_values());
        } else if let Some(entry) = self.devices.get_mut(&device) {
            entry.view.catalog = if complete {
                CatalogState::Complete
            } else {
                CatalogState::Partial {
                    received,
                    announced: announced.unwrap_or(received),
                }
            };
            entry.catalog.settle(now, complete);
            if complete {
                let channels: Vec<_> = channels.into_values().collect();
                let changed = entry.view.channels != channels;
                entry.view.channels = channels;
                self.catalog_changed(device, changed);
            } else {
                self.merge_channels(device, channels.into_values());
            }
        }
        let channels = received;
        self.finish(id, QueryResult::Catalog { channels, complete });
    }

    /// Ends a question without an answer.
    pub(super) fn fail_query(&mut self, now: Instant, id: QueryId, reason: &str) {
        let Some(query) = self.queries.get(&id) else {
            return;
        };
        if query.question == Query::Catalog
            && query.target == query.device
            && let Some(entry) = self.devices.get_mut(&query.device)
        {
            entry.catalog.settle(now, false);
            if entry.view.channels.is_empty() || matches!(entry.view.catalog, CatalogState::Asked) {
                entry.view.catalog = CatalogState::Silent;
            }
        }
        let reason = reason.to_owned();
        self.finish(id, QueryResult::Failed { reason });
    }

    pub(super) fn fail_queries(&mut self, device: DeviceId, reason: &str) {
        let ids: Vec<_> = self
            .queries
            .iter()
            .filter(|(_, q)| q.device == device)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let reason = reason.to_owned();
            self.finish(id, QueryResult::Failed { reason });
        }
    }

    fn finish(&mut self, id: QueryId, result: QueryResult) {
        let Some(query) = self.queries.remove(&id) else {
            return;
        };
        self.timers.set(Timer::Query(id), None);
        if !query.automatic {
            self.events.push_back(Event::QueryDone { query: id, result });
        }
        if let Some(entry) = self.devices.get_mut(&query.device) {
            entry.catalog.query.take_if(|q| *q == id);
        }
        self.rearm(query.device);
    }

    /// Asks for the catalog if it is time.
    pub(super) fn work_on_catalog(&mut self, now: Instant, id: DeviceId) {
        let due = self.devices.get_mut(&id).is_some_and(|e| {
            let idle = e.view.online && e.catalog.query.is_none();
            idle && e.catalog.next.take_if(|t| *t <= now).is_some()
        });
        if !due {
            return;
        }
        let query = self.start_query(now, id, id, Query::Catalog, true);
        if let Some(entry) = self.devices.get_mut(&id) {
            entry.catalog.query = query.ok();
            if entry.catalog.query.is_none() {
                entry.catalog.next = Some(now + CATALOG_RETRY);
            }
        }
    }

    /// Changes that a device reports after SUBSCRIBE.
    pub(super) fn on_catalog_changes(&mut self, at: Moment, device: DeviceId, changes: Vec<CatalogChange>) {
        let Some(entry) = self.devices.get_mut(&device) else {
            return;
        };
        let mut channels: BTreeMap<_, _> = entry.view.channels.drain(..).map(|c| (c.id, c)).collect();
        let before = channels.clone();
        let mut unknown = false;
        for change in changes {
            let id = change.item.id;
            let online = match change.event {
                Some(CatalogEvent::On) => Some(true),
                Some(CatalogEvent::Off | CatalogEvent::VideoLost | CatalogEvent::Defect) => Some(false),
                Some(CatalogEvent::Delete) => {
                    channels.remove(&id);
                    continue;
                }
                Some(CatalogEvent::Add | CatalogEvent::Update) | None => {
                    insert(&mut channels, change.item.into());
                    continue;
                }
            };
            match channels.get_mut(&id) {
                Some(channel) => channel.online = online,
                // A change of what was never listed: the list is asked for again.
                None => unknown = true,
            }
        }
        let changed = channels != before;
        entry.view.channels = channels.into_values().collect();
        if unknown {
            let soon = at.now + CATALOG_AFTER_CHANGE;
            entry.catalog.next = Some(entry.catalog.next.map_or(soon, |n| n.min(soon)));
        }
        self.catalog_changed(device, changed);
        self.rearm(device);
    }

    fn merge_channels(&mut self, device: DeviceId, fresh: impl Iterator<Item = Channel>) {
        let Some(entry) = self.devices.get_mut(&device) else {
            return;
        };
        let mut channels: BTreeMap<_, _> = entry.view.channels.drain(..).map(|c| (c.id, c)).collect();
        let before = channels.clone();
        for channel in fresh {
            insert(&mut channels, channel);
        }
        let changed = channels != before;
        entry.view.channels = channels.into_values().collect();
        self.catalog_changed(device, changed);
    }

    fn catalog_changed(&mut self, device: DeviceId, changed: bool) {
        if changed {
            self.events.push_back(Event::CatalogChanged(device));
            self.events.push_back(Event::Persist);
        }
    }

    fn learn(&mut self, device: DeviceId, info: &DeviceInfo) {
        let Some(entry) = self.devices.get_mut(&device) else {
            return;
        };
        let take = |place: &mut Option<String>, text: &str| {
            let changed = !text.is_empty() && place.as_deref() != Some(text);
            if changed {
                *place = Some(text.to_owned());
            }
            changed
        };
        let Entry { view, .. } = entry;
        let changed = [
            take(&mut view.manufacturer, &info.manufacturer),
            take(&mut view.model, &info.model),
            take(&mut view.firmware, &info.firmware),
            take(&mut view.name, &info.name),
        ];
        if changed.contains(&true) {
            self.events.push_back(Event::Persist);
        }
    }
}

impl super::device::CatalogWork {
    /// When to ask again.
    fn settle(&mut self, now: Instant, complete: bool) {
        if complete {
            self.failures = 0;
            self.next = Some(now + CATALOG_REFRESH);
        } else {
            let wait = CATALOG_RETRY * 2u32.saturating_pow(self.failures.min(5));
            self.failures = self.failures.saturating_add(1);
            self.next = Some(now + wait.min(CATALOG_REFRESH));
        }
    }
}

impl PendingQuery {
    fn take_part(&mut self, sum: Option<u32>, unreadable: u32) {
        self.started = true;
        self.left_out = self.left_out.saturating_add(unreadable as usize);
        if let Some(sum) = sum {
            self.announced = Some(sum as usize);
        }
    }

    fn take_channels(&mut self, items: Vec<CatalogItem>) {
        for item in items {
            if !insert(&mut self.channels, item.into()) {
                self.left_out = self.left_out.saturating_add(1);
            }
        }
    }

    fn take_records(&mut self, items: Vec<RecordItem>) {
        for item in items {
            let key = (item.device, item.start, item.end, item.file_path.clone());
            if self.records.len() >= RECORDS_MAX {
                self.left_out = self.left_out.saturating_add(1);
            } else if self.seen.insert(key) {
                self.records.push(item);
            }
        }
    }
}

/// Whether there was room.
fn insert(channels: &mut BTreeMap<DeviceId, Channel>, channel: Channel) -> bool {
    let room = channels.len() < CHANNELS_MAX || channels.contains_key(&channel.id);
    if room {
        channels.insert(channel.id, channel);
    }
    room
}
