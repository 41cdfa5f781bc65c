//! What the platform asks by MESSAGE and SUBSCRIBE, and what the device tells its subscribers.

use std::time::{Duration, Instant};

use super::{
    agent::{Agent, Purpose, Subscription, token},
    message::{Message, uri_of},
    xml,
};
use crate::{ChannelConfig, Deviation, Event, log::now, media::Order};

/// Items of a list in one message, so that a datagram stays small.
const ITEMS_PER_MESSAGE: usize = 4;
/// How long a subscription without Expires lasts.
const SUBSCRIPTION_DEFAULT_S: u32 = 3600;

impl Agent {
    /// A MESSAGE: answered 200 at once; what it asks for follows in a MESSAGE of our own.
    pub fn query(&mut self, message: &Message) {
        self.reply(message, 200, "OK", |m| m);
        let text = xml::decode(&message.body);
        let command = xml::element(&text, "CmdType").unwrap_or_default().to_owned();
        let sn = xml::element(&text, "SN").unwrap_or_default().to_owned();
        let id = xml::element(&text, "DeviceID").unwrap_or_default().to_owned();
        if text.contains("<Response") {
            if command == "Alarm" {
                self.log.event(Event::AlarmConfirmed);
            }
            return;
        }
        if text.contains("<Control") {
            self.control(&command, &sn, &id, &text);
            return;
        }
        self.log.event(Event::Query(command.clone()));
        match command.as_str() {
            "Catalog" => self.catalog(&sn),
            "RecordInfo" => self.record_info(&sn, &id, &text),
            "DeviceInfo" => {
                let name = self.config.device_name.clone();
                let count = self.channels.len();
                self.respond(
                    "DeviceInfo",
                    &sn,
                    &format!(
                        "<DeviceID>{id}</DeviceID>\r\n<DeviceName>{name}</DeviceName>\r\n<Result>OK</Result>\r\n\
                         <Manufacturer>Simulated</Manufacturer>\r\n<Model>Camera</Model>\r\n<Firmware>V1.0</Firmware>\r\n<Channel>{count}</Channel>\r\n"
                    ),
                );
            }
            "DeviceStatus" => {
                let time = xml::local_time(now(), self.config.utc_offset_s);
                self.respond(
                    "DeviceStatus",
                    &sn,
                    &format!(
                        "<DeviceID>{id}</DeviceID>\r\n<Result>OK</Result>\r\n<Online>ONLINE</Online>\r\n<Status>OK</Status>\r\n\
                         <Encode>ON</Encode>\r\n<Record>ON</Record>\r\n<DeviceTime>{time}</DeviceTime>\r\n"
                    ),
                );
            }
            other => self.respond(
                other,
                &sn,
                &format!("<DeviceID>{id}</DeviceID>\r\n<Result>ERROR</Result>\r\n"),
            ),
        }
    }

    fn respond(&mut self, command: &str, sn: &str, rest: &str) {
        let body = xml::body(self.config.deviations, "Response", command, sn, rest);
        self.message_request(body, Purpose::Reply);
    }

    fn catalog(&mut self, sn: &str) {
        if self.has(Deviation::CatalogSilent) {
            return;
        }
        let device = self.config.device_id.clone();
        let item = |(c, online): &(ChannelConfig, bool)| xml::catalog_item(c, *online, &device, None);
        let items: Vec<String> = self.channels.iter().map(item).collect();
        self.list(
            "Catalog",
            sn,
            &format!("<DeviceID>{device}</DeviceID>\r\n"),
            "DeviceList",
            &items,
        );
    }

    fn record_info(&mut self, sn: &str, id: &str, text: &str) {
        let time = |name| xml::parse_local(xml::element(text, name)?, self.config.utc_offset_s);
        let (from, to) = (time("StartTime"), time("EndTime"));
        let mut items = Vec::new();
        let mut name = String::new();
        if let Some((channel, _)) = self.channels.iter().find(|(c, _)| c.id == id) {
            name.clone_from(&channel.name);
            let inside = self
                .config
                .archive
                .iter()
                .filter(|s| from.is_none_or(|f| s.end > f) && to.is_none_or(|t| s.start < t));
            items.extend(inside.map(|s| xml::record_item(channel, *s, self.config.utc_offset_s)));
        }
        let head = format!("<DeviceID>{id}</DeviceID>\r\n<Name>{name}</Name>\r\n");
        self.list("RecordInfo", sn, &head, "RecordList", &items);
    }

    /// A list in as many messages as it takes; an empty one is a `SumNum` of 0 and no list.
    fn list(&mut self, command: &str, sn: &str, head: &str, list: &str, items: &[String]) {
        let wrong = if self.has(Deviation::CatalogSumWrong) { 3 } else { 0 };
        let sum = items.len() + wrong;
        if items.is_empty() {
            self.respond(command, sn, &format!("{head}<SumNum>{sum}</SumNum>\r\n"));
        }
        let size = if self.has(Deviation::CatalogPieces) {
            1
        } else {
            ITEMS_PER_MESSAGE
        };
        for chunk in items.chunks(size) {
            let rest = format!(
                "{head}<SumNum>{sum}</SumNum>\r\n<{list} Num=\"{}\">\r\n{}</{list}>\r\n",
                chunk.len(),
                chunk.concat()
            );
            self.respond(command, sn, &rest);
        }
    }

    fn control(&mut self, command: &str, sn: &str, id: &str, text: &str) {
        for (element, value) in xml::leaves(text) {
            let channel = id.to_owned();
            match element.as_str() {
                "CmdType" | "SN" | "DeviceID" | "ControlPriority" => {}
                "PTZCmd" => self.log.event(Event::Ptz {
                    channel,
                    command: value,
                }),
                "IFameCmd" | "IFrameCmd" => {
                    let understood = element == "IFameCmd" || !self.has(Deviation::IfameCmdOnly);
                    self.log.event(Event::KeyFrameAsked { channel, element });
                    if understood {
                        self.key_frame(id);
                    }
                }
                _ => {
                    if element == "AlarmCmd" {
                        self.alarmed
                            .retain(|a| a != id && *a != self.config.device_id && id != self.config.device_id);
                    }
                    let answered = element != "TeleBoot";
                    self.log.event(Event::Control {
                        channel,
                        element,
                        value,
                    });
                    if answered {
                        self.respond(
                            command,
                            sn,
                            &format!("<DeviceID>{id}</DeviceID>\r\n<Result>OK</Result>\r\n"),
                        );
                    }
                }
            }
        }
    }

    fn key_frame(&self, id: &str) {
        let all = id == self.config.device_id;
        for dialog in self.dialogs.values().filter(|d| all || d.channel == id) {
            // A media thread that is gone sends nothing anyway.
            drop(self.orders.send(Order::KeyFrame(dialog.session)));
        }
    }

    pub fn subscribe(&mut self, message: &Message) {
        let text = xml::decode(&message.body);
        let call_id = message.get("Call-ID").unwrap_or_default().to_owned();
        let known = self.subscriptions.iter().position(|s| s.call_id == call_id);
        let event = message.get("Event").unwrap_or_default().to_owned();
        let kind = xml::element(&text, "CmdType").map(Into::into);
        let kind: String = kind
            .or_else(|| known.map(|i| self.subscriptions[i].kind.clone()))
            .unwrap_or_default();
        if !matches!(kind.as_str(), "Catalog" | "Alarm" | "MobilePosition") {
            self.reply(message, 489, "Bad Event", |m| m);
            return;
        }
        let expires_s = message
            .get("Expires")
            .and_then(|e| e.trim().parse().ok())
            .unwrap_or(SUBSCRIPTION_DEFAULT_S);
        let tag = token();
        let to = message.get("To").unwrap_or_default();
        let local = if to.contains(";tag=") {
            to.to_owned()
        } else {
            format!("{to};tag={tag}")
        };
        let contact = self.contact();
        let id = xml::element(&text, "DeviceID").unwrap_or_default().to_owned();
        let sn = xml::element(&text, "SN").unwrap_or("0").to_owned();
        let rest = format!("<DeviceID>{id}</DeviceID>\r\n<Result>OK</Result>\r\n");
        let body = xml::body(self.config.deviations, "Response", &kind, &sn, &rest);
        let shown = event.clone();
        self.reply_tagged(message, 200, "OK", &tag, |m| {
            m.with("Contact", contact)
                .with("Expires", expires_s.to_string())
                .with("Event", shown)
                .with_body("Application/MANSCDP+xml", body)
        });
        self.log.event(Event::Subscribed {
            kind: kind.clone(),
            expires_s,
        });
        let cseq = known.map_or(0, |i| self.subscriptions.remove(i).cseq);
        if expires_s > 0 {
            let remote = message.get("From").unwrap_or_default().to_owned();
            let target = uri_of(message.get("Contact").unwrap_or(&remote)).to_owned();
            self.subscriptions.push(Subscription {
                kind,
                event,
                call_id,
                local,
                remote,
                target,
                cseq,
                until: Instant::now() + Duration::from_secs(u64::from(expires_s)),
            });
        }
    }

    /// Tells the subscribers of a kind; whether there are any.
    pub fn notify(&mut self, kind: &str, body: &[u8]) -> bool {
        let mut messages = Vec::new();
        for subscription in self.subscriptions.iter_mut().filter(|s| s.kind == kind) {
            subscription.cseq += 1;
            let left = subscription.until.saturating_duration_since(Instant::now()).as_secs();
            messages.push(
                Message::new(format!("NOTIFY {} SIP/2.0", subscription.target))
                    .with("From", &subscription.local)
                    .with("To", &subscription.remote)
                    .with("Call-ID", &subscription.call_id)
                    .with("CSeq", format!("{} NOTIFY", subscription.cseq))
                    .with("Event", &subscription.event)
                    .with("Subscription-State", format!("active;expires={left};retry-after=0"))
                    .with_body("Application/MANSCDP+xml", body.to_vec()),
            );
        }
        let any = !messages.is_empty();
        for message in messages {
            let message = message.with("Contact", self.contact());
            self.request(message, Purpose::Notify);
        }
        any
    }

    pub fn notify_catalog(&mut self, channel: &ChannelConfig, online: bool, event: &str) {
        let sn = self.next_sn();
        let device = self.config.device_id.clone();
        let item = xml::catalog_item(channel, online, &device, Some(event));
        let rest = format!(
            "<DeviceID>{device}</DeviceID>\r\n<SumNum>1</SumNum>\r\n<DeviceList Num=\"1\">\r\n{item}</DeviceList>\r\n"
        );
        let body = xml::body(self.config.deviations, "Notify", "Catalog", &sn, &rest);
        // Without a subscription nobody wants to know.
        self.notify("Catalog", &body);
    }
}
