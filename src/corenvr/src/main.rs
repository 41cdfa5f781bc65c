//! The corenvr appliance: one binary that records, serves, and is its own command line.

mod accounts;
mod admin;
mod cli;
mod config;
mod demo;
mod doctor;
mod logging;
mod sim;
mod supervisor;
mod support;
mod tls;

fn main() -> std::process::ExitCode {
    cli::main()
}
