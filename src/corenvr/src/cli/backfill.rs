//! `corenvr camera backfill`: gaps filled from a device's own archive.

use std::{thread, time::Duration};

use corenvr_media::TimeRange;
use corenvr_recorder::{BackfillReport, BackfillState, SpanReport};
use jiff::tz::TimeZone;

use super::{Failure, args::BackfillArgs, output, views::show_span, when};
use crate::admin::{
    api::{BackfillRequest, BackfillView, camera_path},
    client::Client,
};

/// How often a running job is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Begins a job and waits for it, or shows or stops the one there is.
pub fn run(args: &BackfillArgs) -> Result<(), Failure> {
    let client = Client::from_config(&args.output.config.config)?;
    let path = camera_path(&args.name, "/backfill");
    let zone = TimeZone::system();
    let mut view: BackfillView = match (&args.from, &args.to) {
        _ if args.stop => client.delete(&path)?,
        (Some(from), to) => {
            let range = when::range(from, to.as_deref().unwrap_or("now"), when::now(), &zone)?;
            let request = BackfillRequest {
                from: range.start,
                to: range.end,
            };
            client.send("POST", &path, &request)?
        }
        (None, _) => client.get(&path)?,
    };
    let mut shown = 0;
    if !args.output.json {
        introduce(&view, args, &zone);
    }
    while args.from.is_some()
        && !args.no_wait
        && let Some(report) = running(&view)
    {
        if !args.output.json {
            shown = show_spans(report, shown, &zone);
        }
        thread::sleep(LOOK_EVERY);
        let now: BackfillView = client.get(&path)?;
        view.report = now.report;
    }
    if args.output.json {
        output::json(&view);
    } else if let Some(report) = &view.report {
        show_spans(report, shown, &zone);
        conclude(report, &zone);
    }
    Ok(())
}

fn running(view: &BackfillView) -> Option<&BackfillReport> {
    view.report.as_ref().filter(|r| r.state == BackfillState::Running)
}

fn introduce(view: &BackfillView, args: &BackfillArgs, zone: &TimeZone) {
    for note in &view.notes {
        output::line(&format!("Note: {note}."));
    }
    for range in &view.nothing {
        output::line(&format!("{}  the device has nothing", show_range(*range, zone)));
    }
    if view.report.is_none() && args.from.is_none() {
        output::line(&format!(
            "No gap of {} has been filled since the recorder started.",
            args.name
        ));
    }
}

/// Prints the spans behind the first `shown`. Returns how many are printed now.
fn show_spans(report: &BackfillReport, shown: usize, zone: &TimeZone) -> usize {
    for span in report.spans.iter().skip(shown) {
        output::line(&span_line(span, zone));
    }
    report.spans.len()
}

fn span_line(span: &SpanReport, zone: &TimeZone) -> String {
    let got: u64 = span.got.iter().map(|r| r.end.saturating_since(r.start).as_secs()).sum();
    let asked = span.asked.map_or_else(|| "-".to_owned(), |r| show_range(r, zone));
    let missing = span
        .missing
        .as_ref()
        .map_or_else(String::new, |m| format!("; not all: {m}"));
    format!("{asked}  {} filled, {} frames{missing}", show_span(got), span.frames)
}

fn conclude(report: &BackfillReport, zone: &TimeZone) {
    let of = format!("{} of {} spans", report.spans.len(), report.spans_total);
    output::line(&match (report.state, report.position) {
        (BackfillState::Running, Some(at)) => format!("Running: {of} done, at {}", when::show(at, zone)),
        (BackfillState::Running, None) => format!("Running: {of} done"),
        (BackfillState::Done, _) => format!("Done: {} spans", report.spans.len()),
        (BackfillState::Stopped, _) => format!("Stopped: {of} done; what has come is kept"),
        (BackfillState::Failed, _) => format!("Failed inside: {of} done; the log says more"),
    });
}

fn show_range(range: TimeRange, zone: &TimeZone) -> String {
    format!("{} - {}", when::show(range.start, zone), when::show(range.end, zone))
}
