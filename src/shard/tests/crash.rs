//! Crash reports as they are found afterwards: in what the process wrote, in its file, and in how it ended.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Stdio},
};

fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/crash")
}

struct Crashed {
    stderr: String,
    file: String,
    signal: Option<i32>,
}

fn crash(how: &str) -> Crashed {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crash.txt");
    let out = Command::new(example()).arg(how).arg(&file).output().unwrap();
    Crashed {
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        file: std::fs::read_to_string(&file).unwrap(),
        signal: out.status.signal(),
    }
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_panic_of_a_task_leaves_one_record_with_everything() {
    let run = crash("panic");
    assert_eq!((run.signal, run.file.as_str()), (None, ""));
    let records: Vec<_> = run
        .stderr
        .lines()
        .filter(|l| l.contains("panicked") && l.starts_with("LOG"))
        .collect();
    assert_eq!(records.len(), 1, "{}", run.stderr);
    contains_all(
        records[0],
        &[
            "shard=\"shard-0\"",
            "task=\"front-door writer\"",
            "class=\"recording\"",
            "camera=\"front-door\"",
            "panic=\"wanted\"",
            "examples/crash.rs:",
            "crash::main",
        ],
    );
    // The task that waited for it has it too, and the process went on.
    assert!(run.stderr.contains("ENDED Err(TaskPanicked"));
}

#[test]
fn a_panic_on_a_plain_thread_names_the_thread_and_what_it_did() {
    let run = crash("panic-worker");
    contains_all(
        &run.stderr,
        &[
            "thread=\"archive /data\"",
            "task=\"archive /data\"",
            "panic=\"wanted\"",
            "examples/crash.rs:",
        ],
    );
    assert_eq!(run.stderr.matches("panic=\"wanted\"").count(), 1, "{}", run.stderr);
    let run = crash("panic-thread");
    contains_all(&run.stderr, &["thread=\"plain\"", "panic=\"wanted\""]);
}

#[test]
fn a_fault_names_shard_task_camera_and_source_line_and_keeps_its_signal() {
    let run = crash("segv");
    assert_eq!(run.signal, Some(libc::SIGSEGV));
    let first = run
        .stderr
        .lines()
        .find(|l| l.starts_with("corenvr crash: SIGSEGV"))
        .unwrap();
    contains_all(
        first,
        &[
            "at address 0x40",
            "ip=corenvr+0x",
            "thread=\"shard-0\"",
            "shard=\"shard-0\"",
            "task=\"front-door writer\"",
            "class=\"recording\"",
            "camera=\"front-door\"",
            "program=\"corenvr-test 1.2.3\"",
            "time=20",
        ],
    );
    contains_all(
        &run.stderr,
        &[
            "corenvr crash: frames corenvr+0x",
            "#0 ",
            "read_from_nowhere at ",
            "examples/crash.rs:",
        ],
    );
    assert!(
        run.stderr.contains(&run.file) && run.file.starts_with(first),
        "{}",
        run.file
    );
}

#[test]
fn a_fault_on_a_thread_of_others_is_reported_on_its_small_stack() {
    let run = crash("segv-thread");
    assert_eq!(run.signal, Some(libc::SIGSEGV));
    contains_all(
        &run.file,
        &[
            "corenvr crash: SIGSEGV at address 0x40",
            "ip=corenvr+0x",
            "no call stack",
        ],
    );
}

#[test]
fn a_full_stack_is_called_that() {
    let run = crash("overflow");
    assert_eq!(run.signal, Some(libc::SIGSEGV));
    contains_all(
        &run.file,
        &["the thread's stack is full", "camera=\"front-door\"", "without_end"],
    );
}

#[test]
fn an_abort_and_a_signal_from_outside_are_reported_and_end_the_process() {
    let run = crash("abort");
    assert_eq!(run.signal, Some(libc::SIGABRT));
    contains_all(
        &run.file,
        &[
            "corenvr crash: SIGABRT",
            "task=\"front-door writer\"",
            "std::process::abort",
        ],
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crash.txt");
    let mut child = Command::new(example())
        .arg("wait")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    // SAFETY: a system call on a child of ours that has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGBUS) };
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGBUS));
    contains_all(
        &std::fs::read_to_string(&file).unwrap(),
        &["corenvr crash: SIGBUS sent by a process"],
    );
}
