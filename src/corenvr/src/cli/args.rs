//! What can be written on the command line. Parsing never acts.

pub mod users;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use corenvr_gb28181_device::{Deviation, SipTransport};
use corenvr_media::CameraName;

use corenvr_proto::gb28181::id::DeviceId;
use corenvr_recorder::TransportChoice;

use self::users::{AuditArgs, UserCommand};
use crate::{admin::api::PtzAction, config};

/// A network video recorder: cameras in by RTSP, RTMP and GB28181, Matroska on disk, any moment back out over RTSP.
#[derive(Debug, Parser)]
#[command(name = "corenvr", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Try it without a camera: corenvr demo")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the recorder; this is what systemd starts
    #[command(after_help = "Example: corenvr run --config /etc/corenvr/corenvr.toml\n\n\
        SIGHUP reloads the configuration, SIGTERM and Ctrl-C stop in order. CORENVR_LOG sets what is logged,\n\
        for example CORENVR_LOG=debug or CORENVR_LOG=info,corenvr_recorder=debug.")]
    Run(ConfigArg),
    /// Run the whole recorder on built-in simulated cameras, and say what to open where
    #[command(after_help = "Example: corenvr demo --cameras 4")]
    Demo(DemoArgs),
    /// Serve simulated cameras, for sizing a machine and for tests
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Example: corenvr sim --cameras 100 --file clip.mkv --listen 127.0.0.1:8654\n\n\
        The cameras are rtsp://ADDR/cam1 to rtsp://ADDR/camN, over TCP and UDP."
    )]
    Sim(SimArgs),
    /// The cameras of the running recorder
    #[command(subcommand)]
    Camera(CameraCommand),
    /// GB28181 devices: who is registered, what to type into their pages, what their own archives hold
    #[command(subcommand)]
    Gb28181(Gb28181Command),
    /// What is recorded of a camera: spans, gaps with their cause, sizes
    #[command(after_help = "Example: corenvr recordings front-door --from -24h\n\n\
        Times: 2026-11-20T10:00:00Z, '2026-11-20 10:00:00' (local), -15m, now.")]
    Recordings(RecordingsArgs),
    /// Write a clip to a file, without re-encoding
    #[command(
        after_help = "Example: corenvr export front-door --from -15m --to -5m -o clip.mkv\n\n\
        The clip begins with the key frame at or before --from, since nothing can be decoded without it."
    )]
    Export(ExportArgs),
    /// Accounts: who may watch, export and change what
    #[command(subcommand)]
    User(UserCommand),
    /// Who logged in, watched, exported and changed what, newest first
    #[command(after_help = "Example: corenvr audit --from -24h --camera front-door")]
    Audit(AuditArgs),
    /// How the running recorder is: shards, cameras, disks, sessions
    #[command(after_help = "Example: corenvr status --json")]
    Status(Output),
    /// Look at a configuration file without using it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Certificates for rtsps:// and https://
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Check whether this machine can run the recorder, with a remedy for everything that stands in the way
    #[command(after_help = "Example: corenvr doctor --config /etc/corenvr/corenvr.toml")]
    Doctor(Output),
    /// Collect what the developers need to find a fault: status, doctor, log, settings without secrets
    #[command(
        name = "support-bundle",
        after_help = "Example: corenvr support-bundle -o /tmp/support.tar.gz --hours 48\n\n\
        Works with the recorder stopped. Passwords, keys and tokens are taken out; names, addresses and times stay."
    )]
    SupportBundle(SupportArgs),
    /// Check or rebuild the archive while the recorder is stopped
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Let the recorder use io_uring where the kernel's settings forbid it
    #[command(
        name = "allow-io-uring",
        after_help = "Example: sudo corenvr allow-io-uring\n\n\
        Allows it to the group of the service alone (kernel.io_uring_disabled = 1 and kernel.io_uring_group), now and after a\n\
        restart of the machine. It changes nothing where io_uring is allowed to everybody, or where the kernel has no such setting."
    )]
    AllowIoUring(AllowIoUringArgs),
    /// Print the completions for a shell
    #[command(after_help = "Example: corenvr completions bash > /etc/bash_completion.d/corenvr")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example: corenvr man /usr/local/share/man/man1")]
    Man {
        /// The directory; made if it is not there
        dir: PathBuf,
    },
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Which configuration, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Output {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AllowIoUringArgs {
    /// The group that may use it
    #[arg(long, value_name = "GROUP", default_value = "corenvr")]
    pub group: String,
    /// Take back what this command did
    #[arg(long)]
    pub undo: bool,
}

/// Most simulated cameras.
pub const SIM_CAMERAS_MAX: u32 = 10_000;
/// Most channels of a simulated GB28181 device.
const SIM_CHANNELS_MAX: u32 = 10_000;
/// Most cameras of the demonstration.
const DEMO_CAMERAS_MAX: i64 = 64;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many simulated cameras
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=DEMO_CAMERAS_MAX))]
    pub cameras: u16,
    /// Keep everything in this directory; without it a temporary one is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where players connect, on this machine only
    #[arg(long, value_name = "P", default_value_t = 8554)]
    pub rtsp_port: u16,
    /// Where browsers and programs connect, on this machine only
    #[arg(long, value_name = "P", default_value_t = 8080)]
    pub http_port: u16,
}

#[derive(Debug, Args)]
pub struct SimArgs {
    #[command(subcommand)]
    pub kind: Option<SimKind>,
    /// How many cameras
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(SIM_CAMERAS_MAX)))]
    pub cameras: u32,
    /// What they show: any Matroska file with H.264, H.265, MJPEG or AV1 video; without it the built-in clip
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
    /// Where they listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8654")]
    pub listen: SocketAddr,
    /// CPUs that serve them, such as 0,2; all of them if left out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cpus: Vec<usize>,
}

/// Simulated cameras that are not RTSP servers.
#[derive(Debug, Subcommand)]
pub enum SimKind {
    /// A GB28181 device that registers at a platform; it can do what real devices do wrong
    #[command(
        after_help = "Example: corenvr sim gb28181 --server 127.0.0.1:5060 --server-id 34020000002000000001 \\\n    \
        --device 34020000001320000001 --password secret --channels 4 --deviation map-missing --deviation loss\n\n\
        CORENVR_LOG=debug shows every SIP message."
    )]
    Gb28181(SimGb28181Args),
}

#[derive(Debug, Args)]
pub struct SimGb28181Args {
    /// The platform's SIP address
    #[arg(long, value_name = "ADDR", required_unless_present = "list_deviations")]
    pub server: Option<SocketAddr>,
    /// The platform's 20 digits
    #[arg(long, value_name = "ID", value_parser = gb28181_id, required_unless_present = "list_deviations")]
    pub server_id: Option<String>,
    /// The device's 20 digits
    #[arg(long, value_name = "ID", value_parser = gb28181_id, required_unless_present = "list_deviations")]
    pub device: Option<String>,
    /// The password of the registration
    #[arg(long, value_name = "P", default_value = "")]
    pub password: String,
    /// The user of the registration; the device's digits if left out
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// How many channels it has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(SIM_CHANNELS_MAX)))]
    pub channels: u32,
    /// How it speaks SIP; how media travels is the platform's choice
    #[arg(long, value_name = "KIND", value_enum, default_value_t = SimTransport::Udp)]
    pub transport: SimTransport,
    /// What it does wrong; may be given several times
    #[arg(long, value_name = "NAME")]
    pub deviation: Vec<Deviation>,
    /// Print what it can do wrong, and end
    #[arg(long)]
    pub list_deviations: bool,
    /// How many hours until now its own archive goes back
    #[arg(long, value_name = "H", default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub archive_hours: u16,
    /// What it shows: a Matroska file with H.264 or H.265 video, and AAC or G.711 sound; without it the built-in clip
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
}

/// SIP over what.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SimTransport {
    Udp,
    Tcp,
}

impl From<SimTransport> for SipTransport {
    fn from(transport: SimTransport) -> Self {
        match transport {
            SimTransport::Udp => Self::Udp,
            SimTransport::Tcp => Self::Tcp,
        }
    }
}

fn gb28181_id(text: &str) -> Result<String, String> {
    if text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.into())
    } else {
        Err("a GB28181 id has 20 digits, such as 34020000001320000001".into())
    }
}

#[derive(Debug, Subcommand)]
pub enum CameraCommand {
    /// Try a camera and add it; prints what it sends, or why it failed
    #[command(
        after_help = "Example: corenvr camera add front-door 'rtsp://admin:secret@192.168.1.20/stream1' --retain 14d"
    )]
    Add(AddArgs),
    /// List the cameras
    #[command(after_help = "Example: corenvr camera list")]
    List(Output),
    /// Show one camera: settings and state
    #[command(after_help = "Example: corenvr camera show front-door --json")]
    Show(CameraArg),
    /// Remove a camera; its recordings stay, unless --purge
    #[command(after_help = "Example: corenvr camera remove front-door")]
    Remove(RemoveArgs),
    /// Record a camera again
    #[command(after_help = "Example: corenvr camera enable front-door")]
    Enable(CameraArg),
    /// Stop recording a camera; what there is stays and can be played
    #[command(after_help = "Example: corenvr camera disable front-door")]
    Disable(CameraArg),
    /// Move a GB28181 camera
    #[command(
        after_help = "Example: corenvr camera ptz yard left --speed 30 --for 800ms\n         \
        corenvr camera ptz yard call-preset --preset 2\n\n\
        A movement goes on until `stop`, or for as long as --for says."
    )]
    Ptz(PtzArgs),
    /// Fill the gaps of a GB28181 camera's timeline from the device's own archive
    #[command(after_help = "Example: corenvr camera backfill yard --from -24h\n         \
        corenvr camera backfill yard\n\n\
        Without --from it shows how far the last job is. What was filled in is marked as such in `corenvr recordings` and in the files; \n\
        its times are the device's, and may be late by one group of pictures. Live recording goes on meanwhile.")]
    Backfill(BackfillArgs),
}

#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The camera
    pub name: CameraName,
    /// Fill gaps from here on
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with = "stop")]
    pub from: Option<String>,
    /// Up to here; now if left out
    #[arg(long, value_name = "T", allow_hyphen_values = true, requires = "from")]
    pub to: Option<String>,
    /// Do not wait for the end
    #[arg(long, requires = "from")]
    pub no_wait: bool,
    /// Stop the job that runs; what has come is kept
    #[arg(long)]
    pub stop: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct PtzArgs {
    /// The camera
    pub name: CameraName,
    /// What it is to do
    pub action: PtzAction,
    /// How fast, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub speed: u8,
    /// Which preset
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub preset: Option<u8>,
    /// Stop after this time, such as 800ms or 2s, at most 10s
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub for_time: Option<std::time::Duration>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum Gb28181Command {
    /// List the devices with their channels, and who was refused and why
    #[command(after_help = "Example: corenvr gb28181 devices")]
    Devices(Output),
    /// Print what to type into a device's own page; the password is among it
    #[command(after_help = "Example: corenvr gb28181 setup")]
    Setup(Output),
    /// Show one device, and ask it how it is
    #[command(after_help = "Example: corenvr gb28181 show 34020000001320000001")]
    Show(DeviceArg),
    /// Ask a device for its channels again
    #[command(after_help = "Example: corenvr gb28181 catalog 34020000001180000001")]
    Catalog(DeviceArg),
    /// List what a device's own archive holds
    #[command(
        after_help = "Example: corenvr gb28181 records 34020000001180000001 --channel 34020000001320000001 --from -24h"
    )]
    Records(DeviceRecordsArgs),
}

#[derive(Debug, Args)]
pub struct DeviceArg {
    /// The device, usually 20 digits
    pub device: DeviceId,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct DeviceRecordsArgs {
    /// The device, usually 20 digits
    pub device: DeviceId,
    /// One of its channels; the device itself if left out
    #[arg(long, value_name = "ID")]
    pub channel: Option<DeviceId>,
    /// From when
    #[arg(long, value_name = "T", allow_hyphen_values = true, default_value = "-24h")]
    pub from: String,
    /// To when; now if left out
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CameraArg {
    /// The camera
    pub name: CameraName,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name, in paths and player URLs: a-z 0-9 _ -
    pub name: CameraName,
    /// Where its stream is: `rtsp://user:password@192.168.1.20/stream1`, `gb28181://DEVICE_ID/CHANNEL_ID`
    pub url: String,
    /// How the media comes: auto, tcp or udp (GB28181 cameras can say more in their URL)
    #[arg(long, default_value = "auto", value_parser = transport)]
    pub transport: TransportChoice,
    /// Record its sound (the default)
    #[arg(long, overrides_with = "no_audio")]
    pub audio: bool,
    /// Leave its sound out
    #[arg(long, overrides_with = "audio")]
    pub no_audio: bool,
    /// One of the configured storage directories; the first one if left out
    #[arg(long, value_name = "DIR")]
    pub storage: Option<PathBuf>,
    /// The shard that records it; chosen by its name if left out
    #[arg(long, value_name = "N")]
    pub shard: Option<u16>,
    /// Its number in playback URLs as Hikvision's and Dahua's, from 1 to 9999
    #[arg(long)]
    pub channel: Option<u32>,
    /// Delete its recordings when they are older than this: 14d, or unlimited
    #[arg(long, value_name = "AGE")]
    pub retain: Option<String>,
    /// Delete its oldest recordings beyond this size: 500GiB, or unlimited
    #[arg(long, value_name = "SIZE")]
    pub retain_bytes: Option<String>,
    /// Add it even if it cannot be reached now
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The camera
    pub name: CameraName,
    /// Delete its recordings as well
    #[arg(long)]
    pub purge: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct RecordingsArgs {
    /// The camera
    pub name: CameraName,
    /// From when; the beginning if left out
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// To when; now if left out
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The camera
    pub name: CameraName,
    /// From when
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: String,
    /// To when
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: String,
    /// The file to write, ending in .mkv or .mp4; an existing one is not overwritten
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct SupportArgs {
    /// The file to write; an existing one is not overwritten
    #[arg(short = 'o', long = "output", value_name = "FILE.tar.gz")]
    pub file: Option<PathBuf>,
    /// How much of the log
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=24 * 90))]
    pub hours: u32,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every error of a file at once, each with line, key and remedy
    #[command(after_help = "Example: corenvr config check /etc/corenvr/corenvr.toml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum TlsCommand {
    /// Make a key and a certificate that this machine signs for itself, and print what to configure
    #[command(after_help = "Example: corenvr tls self-signed --name nvr.example.org\n\n\
        It is good for this machine's host name and addresses, localhost, and the names given. Existing files are not overwritten.")]
    SelfSigned(SelfSignedArgs),
    /// Show the configured certificates: names, validity, fingerprint
    #[command(after_help = "Example: corenvr tls show")]
    Show(Output),
}

#[derive(Debug, Args)]
pub struct SelfSignedArgs {
    /// Where cert.pem and key.pem are put
    #[arg(long, value_name = "DIR", default_value = "/etc/corenvr/tls")]
    pub dir: PathBuf,
    /// A further name or address that clients use for this machine; may be given several times
    #[arg(long, value_name = "HOST")]
    pub name: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}

#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Compare files and index
    #[command(after_help = "Example: systemctl stop corenvr && corenvr archive check")]
    Check {
        /// Make the index equal to the files; no recording is ever deleted
        #[arg(long)]
        repair: bool,
        /// Read every byte and compare checksums; without it headers, structure and tables only
        #[arg(long)]
        payload: bool,
        /// Only this storage directory; every configured one if left out
        #[arg(long, value_name = "DIR")]
        storage: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Build the index anew from the files alone
    #[command(after_help = "Example: systemctl stop corenvr && corenvr archive rebuild")]
    Rebuild {
        /// Only this storage directory; every configured one if left out
        #[arg(long, value_name = "DIR")]
        storage: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    config::values::duration(text).map_err(|p| p.remedy)
}

fn transport(text: &str) -> Result<TransportChoice, String> {
    config::one_of(text, &config::TRANSPORTS).map_err(|p| p.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent_and_every_command_shows_an_example() {
        let mut root = Cli::command();
        root.build();
        root.clone().debug_assert();
        let mut queue: Vec<_> = root.get_subcommands().filter(|c| c.get_name() != "help").collect();
        let mut leaves = 0;
        while let Some(command) = queue.pop() {
            let children: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
            if children.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example: "), "{}", command.get_name());
                leaves += 1;
            }
            queue.extend(children);
        }
        assert!(leaves >= 16, "{leaves}");
    }
}
