//! Fatal signals. The order is what matters: everything that can fail comes after what cannot.
//!
//! 1. The signals get their default action back, so that a fault in here ends the process as it would have without us.
//! 2. One line, written with nothing but `write(2)`.
//! 3. With a time limit: the call stack, first as addresses and then with names. Looking names up allocates and takes locks; if the fault
//!    happened under one of those, the limit ends it.
//! 4. The signal again, which now ends the process and leaves the core dump.

use std::{
    os::fd::{IntoRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
};

use libc::{c_int, c_void, siginfo_t};

use super::{context, line::Line, stack};

const FATAL: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];
/// How long the call stack may take.
const STACK_SECONDS_MAX: libc::c_uint = 5;
/// Frames that are reported.
const FRAMES_MAX: usize = 64;

static FILE: AtomicI32 = AtomicI32::new(-1);
static CRASHING: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Where the program lies in memory: addresses in reports count from here, as `addr2line -e corenvr` takes them.
static BASE: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
static PROGRAM: (AtomicPtr<u8>, AtomicUsize) = (AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0));

pub(super) fn install(program: &'static str) {
    PROGRAM.0.store(program.as_ptr().cast_mut(), Relaxed);
    PROGRAM.1.store(program.len(), Relaxed);
    // SAFETY: the callback has the type that the library wants and gets what the library documents.
    unsafe { libc::dl_iterate_phdr(Some(first_object), ptr::null_mut()) };
    for (signal, _) in FATAL {
        set_action(
            signal,
            on_fatal as *const () as usize,
            libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER,
        );
    }
}

pub(super) fn keep_in(file: OwnedFd) {
    // The descriptor stays open for the life of the process; one that it replaces stays open as well, since a handler may be writing.
    FILE.store(file.into_raw_fd(), SeqCst);
}

fn set_action(signal: c_int, handler: usize, flags: c_int) {
    // SAFETY: all of the structure is set; the handler is one of ours with the type that the flags ask for, or SIG_DFL. sigaction(2) and
    // sigemptyset(3) may be called in a signal handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// The first object is the program itself.
unsafe extern "C" fn first_object(info: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut c_void) -> c_int {
    // SAFETY: the library gives a valid structure with as many headers as it says, for the time of the call.
    let (base, headers) = unsafe {
        let info = &*info;
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
        )
    };
    let loaded = headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
    let end = loaded.map(|h| h.p_vaddr + h.p_memsz).max().unwrap_or(0);
    BASE.store(base, Relaxed);
    END.store(base + end, Relaxed);
    1
}

/// To standard error and to the file, whatever becomes of it.
fn write_both(bytes: &[u8]) {
    for fd in [libc::STDERR_FILENO, FILE.load(SeqCst)] {
        let mut rest = bytes;
        while fd >= 0 && !rest.is_empty() {
            // SAFETY: the buffer is valid for its length; write(2) may be called in a signal handler.
            let n = unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) };
            if n <= 0 {
                break;
            }
            rest = &rest[n as usize..];
        }
    }
}

extern "C" fn on_fatal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    for (fatal, _) in FATAL {
        set_action(fatal, libc::SIG_DFL, 0);
    }
    if CRASHING.swap(true, SeqCst) {
        // Another thread reports already and ends the process when it is done.
        loop {
            // SAFETY: pause(2) only waits.
            unsafe { libc::pause() };
        }
    }
    SIGNAL.store(signal, SeqCst);
    // SAFETY: the kernel gives a handler with SA_SIGINFO both structures, valid while it runs.
    let (code, address, ip) = unsafe { ((*info).si_code, (*info).si_addr() as u64, instruction(context)) };
    // From kill(2) and its kin, and not from an instruction of this thread.
    let sent = code <= 0;
    first_line(signal, code, (!sent).then_some(address), ip);
    // SAFETY: alarm(2) may be called in a signal handler; the action for its signal is set right before.
    unsafe {
        set_action(libc::SIGALRM, out_of_time as *const () as usize, 0);
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut alarm);
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, ptr::null_mut());
        libc::alarm(STACK_SECONDS_MAX);
    }
    if signal_stack_bytes() < stack::ENOUGH {
        write_both(b"corenvr crash: no call stack: this thread's signal stack is too small to look for it\n");
    } else {
        call_stack(ip);
    }
    if sent || signal == libc::SIGABRT {
        again(signal);
    }
    // Otherwise the instruction is run again and faults again: the core dump shows it as if we had never been here.
}

extern "C" fn out_of_time(_: c_int) {
    write_both(b"corenvr crash: the call stack took too long\n");
    again(SIGNAL.load(SeqCst));
}

/// Raises the signal once more, with its default action.
fn again(signal: c_int) {
    // SAFETY: both may be called in a signal handler.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Where the thread was.
unsafe fn instruction(context: *mut c_void) -> u64 {
    // SAFETY: the caller passes on what the kernel gave to the handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    return context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    #[cfg(target_arch = "aarch64")]
    return context.uc_mcontext.pc;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return 0;
}

#[inline(never)]
fn first_line(signal: c_int, code: c_int, address: Option<u64>, ip: u64) {
    let mut line = Line::new();
    let name = FATAL
        .iter()
        .find(|(s, _)| *s == signal)
        .map_or("signal", |(_, name)| name);
    line.text("corenvr crash: ").text(name);
    if let Some(address) = address {
        line.text(" at address ").hex(address);
        if stack::overflowed(address) {
            line.text(" (the thread's stack is full)");
        }
    } else {
        line.text(" sent by a process");
    }
    line.text(" code=").decimal(u64::from(code.unsigned_abs()));
    line.text(" ip=");
    place(&mut line, ip);
    let mut thread = [0u8; 16];
    // SAFETY: the buffer has the 16 bytes that PR_GET_NAME writes; a system call.
    unsafe { libc::prctl(libc::PR_GET_NAME, thread.as_mut_ptr()) };
    let len = thread.iter().position(|b| *b == 0).unwrap_or(thread.len());
    line.field("thread", std::str::from_utf8(&thread[..len]).ok());
    context::with_current(|c| {
        line.field("shard", c.shard)
            .field("task", c.task)
            .field("class", c.class)
            .field("camera", c.camera);
    });
    // SAFETY: both words were set together from a text that lives for ever.
    let program = unsafe { std::slice::from_raw_parts(PROGRAM.0.load(Relaxed), PROGRAM.1.load(Relaxed)) };
    line.field("program", std::str::from_utf8(program).ok());
    // SAFETY: a structure for the result; clock_gettime(2) may be called in a signal handler.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        now.tv_sec
    };
    line.text(" time=").utc(now as u64);
    line.end();
    write_both(line.as_bytes());
}

/// `corenvr+0x1234` inside the program, the bare address elsewhere.
fn place(line: &mut Line, ip: u64) {
    let (base, end) = (BASE.load(Relaxed), END.load(Relaxed));
    if (base..end).contains(&ip) {
        line.text("corenvr+").hex(ip - base);
    } else {
        line.hex(ip);
    }
}

/// Best effort: everything that matters is written already.
#[inline(never)]
fn call_stack(ip: u64) {
    let mut frames = [0u64; FRAMES_MAX];
    let mut count = 0;
    // SAFETY: unsynchronised with other uses of the library, which is right here: its lock may be held by the thread that crashed, and no
    // other thread is inside for longer than it takes to end the process. The closure does not call into it.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            frames[count] = frame.ip() as u64;
            count += 1;
            count < FRAMES_MAX
        });
    }
    // The handler's own frames come first.
    let first = frames[..count].iter().position(|f| *f == ip).unwrap_or(0);
    let frames = &frames[first..count];
    let mut line = Line::new();
    line.text("corenvr crash: frames");
    for frame in frames {
        line.text(" ");
        place(&mut line, *frame);
    }
    line.end();
    write_both(line.as_bytes());
    for (index, frame) in frames.iter().enumerate() {
        // A return address belongs to the call before it, and the library takes one off; where the fault is, it is the instruction itself.
        let address = if index == 0 && *frame == ip { frame + 1 } else { *frame };
        // SAFETY: as above; the closure only writes into its own buffer.
        unsafe { backtrace::resolve_unsynchronized(address as *mut c_void, |symbol| named(index, symbol)) };
    }
}

fn named(index: usize, symbol: &backtrace::Symbol) {
    use std::fmt::Write as _;
    let mut line = Line::new();
    line.text("corenvr crash: #").decimal(index as u64).text(" ");
    match symbol.name() {
        Some(name) => drop(write!(line, "{name:#}")),
        None => drop(line.text("?")),
    }
    if let (Some(file), Some(number)) = (symbol.filename().and_then(std::path::Path::to_str), symbol.lineno()) {
        line.text(" at ").text(file).text(":").decimal(u64::from(number));
    }
    line.end();
    write_both(line.as_bytes());
}

fn signal_stack_bytes() -> usize {
    // SAFETY: a structure for the result; sigaltstack(2) may be called in a signal handler.
    unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(ptr::null(), &raw mut stack);
        stack.ss_size
    }
}
