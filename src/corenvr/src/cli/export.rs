//! `corenvr export`: a clip without re-encoding.
//!
//! The running recorder names the files, and this process reads them by itself, so that an export takes neither memory nor
//! time from the recorder. It needs to be allowed to read them: root and the service's user are.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use corenvr_media::TimeRange;
use corenvr_store::{
    SegmentKey, SegmentMeta, SegmentState,
    archive::Progress,
    export::{ExportError, Exported, Format, prepare},
    mkv::{
        file::{FileError, ReadAt},
        recover,
    },
};
use jiff::tz::TimeZone;
use serde_json::json;

use super::{Failure, args::ExportArgs, output, views::show_span, when};
use crate::{
    admin::{api::SegmentView, client::Client},
    config::values::show_size,
};

/// Writes the clip.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let format = check_target(&args.file)?;
    let range = when::range(&args.from, &args.to, when::now(), &TimeZone::system())?;
    let client = Client::from_config(&args.output.config.config)?;
    let segments = client.segments(&args.name, range)?;
    let mut bar = output::Bar::new();
    let sources = open_all(&segments, &mut bar)?;
    let metas: Vec<_> = sources.iter().map(|s| s.meta.clone()).collect();
    let written = write(&args.file, format, &metas, range, &mut bar);
    bar.clear();
    match written {
        Ok(exported) => {
            report(args, &exported);
            Ok(())
        }
        Err(error @ ExportError::Empty(_)) => Err(Failure::Failed(format!(
            "camera {}: {error}. `corenvr recordings {}` shows what there is",
            args.name, args.name
        ))),
        Err(error) => Err(Failure::Failed(format!("camera {}: {error}", args.name))),
    }
}

fn check_target(file: &Path) -> Result<Format, Failure> {
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default();
    let Some(format) = Format::of_extension(extension) else {
        return Err(Failure::Usage(format!(
            "{} ends neither in .mkv nor in .mp4",
            file.display()
        )));
    };
    if file.exists() {
        return Err(Failure::Failed(format!(
            "{} exists already and is not overwritten",
            file.display()
        )));
    }
    Ok(format)
}

/// A segment that stays readable whatever the recorder does to its name.
struct Source {
    meta: Arc<SegmentMeta>,
    /// A growing file is read through this descriptor: it gets another name when it is finished.
    _held: Option<File>,
}

fn open_all(segments: &[SegmentView], bar: &mut output::Bar) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        bar.set(index as u64, segments.len() as u64, "looking at the files");
        match open(segment) {
            Ok(source) => sources.push(source),
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::Failed(format!(
                    "{}: this user may not read recordings: run as root or as the service's user (sudo -u corenvr ...)",
                    segment.path.display()
                )));
            }
            Err(error) => return Err(Failure::Failed(format!("{}: {error}", segment.path.display()))),
        }
    }
    Ok(sources)
}

/// The part of a growing file that is durable.
struct Durable<'f> {
    file: &'f File,
    bytes: u64,
}

impl ReadAt for Durable<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_full_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let room = self.bytes.saturating_sub(at).min(buf.len() as u64) as usize;
        self.file.read_full_at(&mut buf[..room], at)
    }
}

fn open(segment: &SegmentView) -> Result<Source, FileError> {
    let (file, path, open) = open_file(segment)?;
    let scan = if open {
        recover::scan(&Durable {
            file: &file,
            bytes: segment.bytes,
        })?
    } else {
        recover::scan(&file)?
    };
    let last = scan.table.clusters.iter().map(|c| c.last.offset(1)).max();
    let end = scan.header.finished.map(|f| f.end).or(last).unwrap_or(segment.end);
    let header = scan.header.segment;
    let meta = SegmentMeta {
        key: SegmentKey {
            camera: header.camera,
            start: header.start,
        },
        end,
        path: if open {
            PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
        } else {
            path
        },
        state: if open { SegmentState::Open } else { SegmentState::Sealed },
        bytes: segment.bytes,
        tracks: header.tracks,
        table: scan.table,
        gap_before: header.gap_before,
        backfilled: header.backfilled_until.is_some(),
    };
    Ok(Source {
        meta: Arc::new(meta),
        _held: open.then_some(file),
    })
}

/// Opens a file of the list; one that was growing may have been finished and renamed since.
fn open_file(segment: &SegmentView) -> io::Result<(File, PathBuf, bool)> {
    match File::open(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && segment.open => {
            let name = segment.path.to_string_lossy();
            let sealed = PathBuf::from(
                name.strip_suffix(".part.mkv")
                    .map(|stem| format!("{stem}.mkv"))
                    .ok_or(error)?,
            );
            Ok((File::open(&sealed)?, sealed, false))
        }
        other => Ok((other?, segment.path.clone(), segment.open)),
    }
}

/// Writes under another name first, so that a file of the name asked for is always whole.
fn write(
    target: &Path,
    format: Format,
    segments: &[Arc<SegmentMeta>],
    range: TimeRange,
    bar: &mut output::Bar,
) -> Result<Exported, ExportError> {
    let total: u64 = segments.iter().map(|s| s.bytes).sum();
    let clip = prepare(segments, range, format, &mut |p| {
        bar.set(p.bytes, 2 * total, "looking at the footage");
        true
    })?;
    let mut partial = target.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
        .map_err(ExportError::Output)?;
    let mut progress = |p: Progress| {
        bar.set(total + p.bytes, 2 * total, &show_size(p.bytes));
        true
    };
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = clip.write(0..clip.bytes(), &mut out, &mut progress).and_then(|()| {
        let file = out.into_inner().map_err(|e| ExportError::Output(e.into_error()))?;
        file.sync_all().map_err(ExportError::Output)?;
        fs::rename(&partial, target).map_err(ExportError::Output)
    });
    if written.is_err() {
        // The first failure is the one to tell.
        drop(fs::remove_file(&partial));
    }
    written.map(|()| clip.contents().clone())
}

fn report(args: &ExportArgs, exported: &Exported) {
    let damaged = exported.damaged.len() as u64 + exported.damaged_more;
    for (path, error) in &exported.damaged {
        eprintln!("corenvr: {}: {error}", path.display());
    }
    if args.output.json {
        let left_out = exported
            .left_out
            .iter()
            .map(|l| json!({ "track": l.track.0, "codec": l.codec }));
        output::json(&json!({
            "file": args.file,
            "camera": args.name,
            "range": exported.range,
            "frames": exported.frames,
            "bytes": exported.bytes,
            "damaged_clusters": damaged,
            "backfilled": exported.backfilled,
            "gaps": exported.gaps,
            "overlaps": exported.overlaps,
            "left_out": left_out.collect::<Vec<_>>(),
        }));
        return;
    }
    output::line(&format!(
        "{}: {}{} frames, {}",
        args.file.display(),
        exported
            .range
            .map_or_else(String::new, |r| format!("{}, ", show_range(r))),
        exported.frames,
        show_size(exported.bytes)
    ));
    for left_out in &exported.left_out {
        let codec = left_out.codec;
        output::line(&format!(
            "The {codec} sound is not in it: an MP4 cannot hold it, a .mkv does."
        ));
    }
    for gap in &exported.gaps {
        output::line(&format!(
            "{}: nothing is recorded ({}). The clip's time goes on over it.",
            show_range(gap.range),
            gap.cause
        ));
    }
    for range in &exported.overlaps {
        output::line(&format!(
            "{}: recorded twice, since a clock was set back.",
            show_range(*range)
        ));
    }
    for range in &exported.backfilled {
        output::line(&format!(
            "{}: back-filled from the camera's own archive, by its times.",
            show_range(*range)
        ));
    }
    if damaged > 0 {
        output::line(&format!("{damaged} damaged parts of the recording are named above."));
    }
}

/// A range with its length.
fn show_range(range: TimeRange) -> String {
    let zone = TimeZone::system();
    let (from, to) = (when::show(range.start, &zone), when::show(range.end, &zone));
    format!("{from} to {to} ({})", show_span(range.duration().as_secs()))
}
