//! `corenvr man` and `corenvr completions`: what is made from the definition of the command line itself.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use super::{Failure, args::Cli, output};

/// The main page's part that no definition of arguments holds: each path, and what it is.
const FILES: [(&str, &str); 6] = [
    (
        "/etc/corenvr/corenvr.toml",
        "the configuration; every key stands there with its default and its reason",
    ),
    (
        "/var/lib/corenvr",
        "cameras and accounts that were added at run time, and what the recorder remembers",
    ),
    (
        "/var/lib/corenvr/recordings",
        "the recordings, unless [[storage]] names other directories: Matroska, one directory a camera and day (UTC)",
    ),
    ("/run/corenvr/corenvr.sock", "where the commands reach the daemon"),
    ("/usr/share/doc/corenvr", "the manual (README) and what has changed"),
    (
        "/etc/sysctl.d/60-corenvr-io_uring.conf",
        "made by corenvr allow-io-uring, and by nothing else",
    ),
];

/// What signals do to the daemon.
const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGHUP",
        "reads the configuration again; one with mistakes changes nothing",
    ),
    ("SIGTERM, SIGINT", "finish every open recording, then end"),
];

/// Prints the completions for a shell.
pub fn completions(shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "corenvr", &mut text);
    output::print(&String::from_utf8_lossy(&text));
}

/// Writes a page for every command.
pub fn man(dir: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| {
        Failure::Failed(format!(
            "cannot write the manual pages to {}: {e}. Remedy: name a directory that you may write to",
            dir.display()
        ))
    };
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    fs::write(dir.join("corenvr.1"), main_page().map_err(failed)?).map_err(failed)?;
    for page in fs::read_dir(dir).map_err(failed)?.flatten() {
        let name = page.file_name();
        if name
            .to_str()
            .is_some_and(|n| n.starts_with("corenvr") && n.ends_with(".1"))
        {
            name_notes(&page.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Examples and times stand under a heading that other manual pages have too.
fn name_notes(page: &Path) -> io::Result<()> {
    let text = fs::read_to_string(page)?;
    fs::write(page, text.replace(".SH EXTRA\n", ".SH NOTES\n"))
}

/// The page of the program itself, with files and signals.
fn main_page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page)?;
    let mut more = Roff::new();
    for (title, rows) in [("FILES", &FILES[..]), ("SIGNALS", &SIGNALS[..])] {
        more.control("SH", [title]);
        for (term, text) in rows {
            more.control("TP", []);
            more.text([bold(*term)]);
            more.text([roman(*text)]);
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    more.text([roman("0 done, 1 failed, 2 wrong usage.")]);
    more.control("SH", ["SEE ALSO"]);
    more.text([italic("systemctl"), roman("(1), "), italic("journalctl"), roman("(1)")]);
    more.to_writer(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_and_the_main_one_names_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let pages = dir.path().join("man1");
        man(&pages).unwrap();
        let text = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
        let main = text("corenvr.1");
        for word in [
            ".TH corenvr 1",
            "/etc/corenvr/corenvr.toml",
            "SIGHUP",
            "corenvr\\-camera(1)",
        ] {
            assert!(main.contains(word), "{word}: {main}");
        }
        let add = text("corenvr-camera-add.1");
        assert!(
            add.contains("stream1") && add.contains(".SH NOTES") && !add.contains("EXTRA"),
            "{add}"
        );
        assert!(text("corenvr-archive-rebuild.1").contains(".TH"));
        assert!(
            fs::read_dir(&pages)
                .unwrap()
                .all(|f| !f.unwrap().file_name().to_string_lossy().contains("help"))
        );
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(man(&dir.path().join("file")), Err(Failure::Failed(text)) if text.contains("Remedy")));
    }

    #[test]
    fn each_shell_gets_completions_that_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "corenvr", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["recordings", "allow-io-uring", "camera", "--retain-bytes"] {
                let word = if shell == Shell::Fish {
                    word.trim_start_matches("--")
                } else {
                    word
                };
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
