//! `corenvr recordings`: the timeline of a camera.

use corenvr_media::WallTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    Failure,
    args::RecordingsArgs,
    output,
    views::{Timeline, show_span},
    when,
};
use crate::{
    admin::{api::camera_path, client::Client},
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
        output::json(&client.get::<Value>(&path(from))?);
        return Ok(());
    }
    let mut next = Some(from);
    let mut total = (0, 0, 0);
    for _ in 0..PARTS_MAX {
        let Some(from) = next else { break };
        let part: Timeline = client.get(&path(from))?;
        show(&part, &zone);
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

fn show(timeline: &Timeline, zone: &TimeZone) {
    let mut rows = Vec::new();
    for span in &timeline.spans {
        let length = show_span(span.end.saturating_since(span.start).as_secs());
        let what = if span.open { "footage, growing" } else { "footage" };
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
    rows.sort_by_key(|r| (r.0, r.1));
    let shown: Vec<_> = rows
        .into_iter()
        .map(|(start, end, length, what)| vec![when::show(start, zone), when::show(end, zone), length, what])
        .collect();
    output::table(&shown);
}
