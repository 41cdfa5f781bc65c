//! `corenvr recordings`: the timeline of a camera.

use corenvr_media::{CameraName, WallTime};
use corenvr_store::events::Event;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    Failure,
    args::RecordingsArgs,
    output,
    views::{Timeline, show_span},
    when,
};
use crate::{
    admin::{
        api::{EventList, camera_path},
        client::Client,
    },
    config::values::show_size,
};

/// Most parts that a very long timeline is fetched in.
const PARTS_MAX: usize = 1000;

/// Prints spans and gaps.
pub fn run(args: &RecordingsArgs) -> Result<(), Failure> {
    let (now, zone) = (when::now(), TimeZone::system());
    let time = |text: &Option<String>, default| text.as_ref().map_or(Ok(default), |t| when::parse(t, now, &zone));
    let (from, to) = (time(&args.from, WallTime::MIN)?, time(&args.to, now)?);
    if from >= to {
        return Err(when::WhenError::Backward { from, to }.into());
    }
    let client = Client::from_config(&args.output.config.config)?;
    let path = |from: WallTime| camera_path(&args.name, &format!("/timeline?from={from}&to={to}"));
    if args.output.json {
        let mut document: Value = client.get(&path(from))?;
        let events: EventList = client.get(&camera_path(&args.name, &format!("/events?from={from}&to={to}")))?;
        if let Some(object) = document.as_object_mut() {
            object.insert("events".to_owned(), json!(events.events));
            object.insert("events_more_from".to_owned(), json!(events.more_from));
        }
        output::json(&document);
        return Ok(());
    }
    let mut next = Some(from);
    let mut total = (0, 0, 0);
    for _ in 0..PARTS_MAX {
        let Some(from) = next else { break };
        let part: Timeline = client.get(&path(from))?;
        let until = part.more_from.unwrap_or(to);
        show(&part, &events(&client, &args.name, from, until)?, &zone);
        total.0 += part.bytes;
        total.1 += part
            .spans
            .iter()
            .map(|s| s.end.saturating_since(s.start).as_secs())
            .sum::<u64>();
        total.2 += part.spans.len();
        next = part.more_from.filter(|n| *n > from);
    }
    if total.2 == 0 {
        output::line(&format!("Nothing is recorded of {} in this time.", args.name));
    } else {
        output::line(&format!("{} of footage, {}", show_span(total.1), show_size(total.0)));
    }
    Ok(())
}

/// All events of a time, in order.
fn events(client: &Client, name: &CameraName, from: WallTime, to: WallTime) -> Result<Vec<Event>, Failure> {
    let mut all = Vec::new();
    let mut next = Some(from);
    for _ in 0..PARTS_MAX {
        let Some(from) = next else { break };
        let part: EventList = client.get(&camera_path(name, &format!("/events?from={from}&to={to}")))?;
        all.extend(part.events);
        next = part.more_from.filter(|n| *n > from);
    }
    Ok(all)
}

fn show(timeline: &Timeline, events: &[Event], zone: &TimeZone) {
    let mut rows = Vec::new();
    for span in &timeline.spans {
        let length = show_span(span.end.saturating_since(span.start).as_secs());
        let mut what = String::from("footage");
        if span.backfilled {
            what.push_str(", back-filled");
        }
        if span.open {
            what.push_str(", growing");
        }
        rows.push((
            span.start,
            span.end,
            length,
            format!("{what}, {}", show_size(span.bytes)),
        ));
    }
    for gap in &timeline.gaps {
        let length = show_span(gap.end.saturating_since(gap.start).as_secs());
        rows.push((gap.start, gap.end, length, format!("gap: {}", gap.cause)));
    }
    for event in events {
        let claimed = event.claimed_time.map_or_else(String::new, |t| {
            format!(" (by the source's clock {})", when::show(t, zone))
        });
        rows.push((
            event.time,
            event.time,
            String::new(),
            format!("{}: {}{claimed}", event.kind, event.text),
        ));
    }
    rows.sort_by_key(|r| (r.0, r.1));
    let shown: Vec<_> = rows
        .into_iter()
        .map(|(start, end, length, what)| vec![when::show(start, zone), when::show(end, zone), length, what])
        .collect();
    output::table(&shown);
}
