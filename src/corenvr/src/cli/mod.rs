//! The command line: what each command asks for, and how the answer is printed.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod archive;
mod args;
mod backfill;
mod camera;
mod config;
mod export;
mod gb28181;
mod generate;
mod io_uring;
mod output;
mod recordings;
mod status;
mod tls;
mod user;
mod views;
mod when;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use corenvr_gb28181_device::Deviation;

use self::args::{Cli, Command};
use crate::{admin::client::ClientError, demo, doctor, logging, sim, supervisor, support};

/// As crash reports name it.
const PROGRAM: &str = concat!("corenvr ", env!("CARGO_PKG_VERSION"));

/// A command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// It failed, in words.
    Failed(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// It failed, and has already said so.
    Told,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<when::WhenError> for Failure {
    fn from(error: when::WhenError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Prints a line to standard output, for other parts that are commands of their own.
pub fn print_line(text: &str) {
    output::line(text);
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Help goes to standard output with code 0, wrong usage to standard error with code 2.
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Failed(message)) => {
            eprintln!("corenvr: {message}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("corenvr: {message}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => {
            logging::start("info");
            corenvr_shard::crash::install(PROGRAM);
            supervisor::run(&args.config, None).map_err(|e| told_by_log(&e))
        }
        Command::Demo(args) => {
            logging::start("warn");
            corenvr_shard::crash::install(PROGRAM);
            demo::run(
                args.cameras,
                args.dir,
                demo::Ports {
                    rtsp: args.rtsp_port,
                    http: args.http_port,
                },
            )
            .map_err(|e| Failure::Failed(e.to_string()))
        }
        Command::Sim(args::SimArgs {
            kind: Some(args::SimKind::Gb28181(args)),
            ..
        }) => {
            logging::start("info");
            simulate_gb28181(args)
        }
        Command::Sim(args) => {
            logging::start("info");
            let options = sim::Options {
                cameras: args.cameras,
                file: args.file,
                listen: args.listen,
                cpus: args.cpus,
            };
            sim::run(&options).map_err(|e| told_by_log(&e))
        }
        Command::Camera(command) => camera::run(command),
        Command::Gb28181(command) => gb28181::run(&command),
        Command::Recordings(args) => recordings::run(&args),
        Command::Export(args) => export::run(&args),
        Command::User(command) => user::run(command),
        Command::Audit(args) => user::audit(&args),
        Command::Status(output) => status::run(&output),
        Command::Config(args::ConfigCommand::Check { file, json }) => config::check(&file, json),
        Command::Tls(command) => tls::run(&command),
        Command::SupportBundle(args) => support_bundle(args),
        Command::Doctor(output) => {
            logging::start("error");
            if doctor::run(&output.config.config, output.json) {
                Ok(())
            } else {
                Err(Failure::Told)
            }
        }
        Command::Archive(command) => {
            logging::start("warn");
            archive::run(command)
        }
        Command::AllowIoUring(args) => io_uring::run(&args),
        Command::Completions { shell } => {
            generate::completions(shell);
            Ok(())
        }
        Command::Man { dir } => generate::man(&dir),
    }
}

fn support_bundle(args: args::SupportArgs) -> Result<(), Failure> {
    logging::start("error");
    let bundle = support::collect(&args.output.config.config, args.file, args.hours)
        .map_err(|e| Failure::Failed(e.to_string()))?;
    if args.output.json {
        output::json(&bundle);
    } else {
        output::print(&bundle.to_string());
    }
    Ok(())
}

fn simulate_gb28181(args: args::SimGb28181Args) -> Result<(), Failure> {
    // The parser has asked for all three unless the list is wanted.
    let (false, Some(server), Some(server_id), Some(device_id)) =
        (args.list_deviations, args.server, args.server_id, args.device)
    else {
        for deviation in Deviation::ALL {
            println!("{:<22} {}", deviation.name(), deviation.doc());
        }
        return Ok(());
    };
    let options = sim::gb28181::Options {
        server,
        server_id,
        device_id,
        username: args.username,
        password: args.password,
        channels: args.channels,
        transport: args.transport.into(),
        deviations: args.deviation.into_iter().collect(),
        archive: Duration::from_secs(3600) * u32::from(args.archive_hours),
        file: args.file,
    };
    sim::gb28181::run(options).map_err(|e| told_by_log(&e))
}

/// What a service says goes to its log, where the administrator looks for it.
fn told_by_log(error: &impl std::fmt::Display) -> Failure {
    for line in error.to_string().lines() {
        tracing::error!("{line}");
    }
    Failure::Told
}
