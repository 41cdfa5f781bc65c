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
    export::{ExportError, Exported, export},
    mkv::{
        file::{FileError, ReadAt},
        recover,
    },
};
use jiff::tz::TimeZone;
use serde_json::json;

use super::{Failure, args::ExportArgs, output, views::show_span, when};
use crate::{
    admin::{
        api::{SegmentList, SegmentView, camera_path},
        client::Client,
    },
    config::values::show_size,
};

/// Writes the clip.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    check_target(&args.file)?;
    let range = when::range(&args.from, &args.to, when::now(), &TimeZone::system())?;
    let client = Client::from_config(&args.output.config.config)?;
    let path = camera_path(&args.name, &format!("/segments?from={}&to={}", range.start, range.end));
    let list: SegmentList = client.get(&path)?;
    let mut bar = output::Bar::new();
    let sources = open_all(&list.segments, &mut bar)?;
    let metas: Vec<_> = sources.iter().map(|s| s.meta.clone()).collect();
    let written = write(&args.file, &metas, range, &mut bar);
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

fn check_target(file: &Path) -> Result<(), Failure> {
    match file.extension().and_then(OsStr::to_str) {
        Some("mkv") => {}
        Some("mp4") => {
            return Err(Failure::Usage(
                "exporting .mp4 is not supported by this version: name a .mkv file, and `ffmpeg -i clip.mkv -c copy clip.mp4` if it has to be one".into(),
            ));
        }
        _ => return Err(Failure::Usage(format!("{} does not end in .mkv", file.display()))),
    }
    if file.exists() {
        return Err(Failure::Failed(format!(
            "{} exists already and is not overwritten",
            file.display()
        )));
    }
    Ok(())
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
    segments: &[Arc<SegmentMeta>],
    range: TimeRange,
    bar: &mut output::Bar,
) -> Result<Exported, ExportError> {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
        .map_err(ExportError::Output)?;
    let total: u64 = 2 * segments.iter().map(|s| s.bytes).sum::<u64>();
    let mut progress = |p: Progress| {
        bar.set(p.bytes, total, &show_size(p.bytes / 2));
        true
    };
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = export(segments, range, &mut out, &mut progress).and_then(|exported| {
        let file = out.into_inner().map_err(|e| ExportError::Output(e.into_error()))?;
        file.sync_all().map_err(ExportError::Output)?;
        fs::rename(&partial, target).map_err(ExportError::Output)?;
        Ok(exported)
    });
    if written.is_err() {
        // The first failure is the one to tell.
        drop(fs::remove_file(&partial));
    }
    written
}

fn report(args: &ExportArgs, exported: &Exported) {
    let damaged = exported.damaged.len() as u64 + exported.damaged_more;
    for (path, error) in &exported.damaged {
        eprintln!("corenvr: {}: {error}", path.display());
    }
    if args.output.json {
        output::json(&json!({
            "file": args.file,
            "camera": args.name,
            "range": exported.range,
            "frames": exported.frames,
            "bytes": exported.bytes,
            "damaged_clusters": damaged,
            "backfilled": exported.backfilled,
        }));
        return;
    }
    let zone = TimeZone::system();
    let what = exported.range.map_or_else(String::new, |r| {
        let (from, to) = (when::show(r.start, &zone), when::show(r.end, &zone));
        format!("{from} to {to} ({}), ", show_span(r.duration().as_secs()))
    });
    output::line(&format!(
        "{}: {what}{} frames, {}",
        args.file.display(),
        exported.frames,
        show_size(exported.bytes)
    ));
    for range in &exported.backfilled {
        let (from, to) = (when::show(range.start, &zone), when::show(range.end, &zone));
        output::line(&format!(
            "{from} to {to} is back-filled from the camera's own archive, by its times."
        ));
    }
    if damaged > 0 {
        output::line(&format!("{damaged} damaged parts of the recording are named above."));
    }
}
