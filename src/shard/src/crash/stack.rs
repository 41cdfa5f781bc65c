//! Signal stacks: a thread whose own stack is full or broken can still report that.

use std::{cell::Cell, ptr};

/// Room for the handler, for unwinding, and for looking names up in the debug information.
const BYTES: usize = 512 << 10;
/// The standard library gives its threads a small one, on which nothing can be unwound.
pub(super) const ENOUGH: usize = 256 << 10;
/// Below the stack, so that a handler that needs more than there is faults instead of writing elsewhere.
const GUARD: usize = 4096;

struct SignalStack(*mut libc::c_void);

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    static MEMORY: Cell<Option<SignalStack>> = const { Cell::new(None) };
    /// Lowest address of this thread's ordinary stack; 0 if it is not known.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Gives this thread a signal stack of its own, large enough for a whole crash report. Cheap when it has one.
pub fn prepare_thread() {
    if PREPARED.replace(true) {
        return;
    }
    LOWEST.set(lowest_address());
    // SAFETY: a private anonymous mapping of fresh memory; nothing else is touched. A failure is checked below.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            GUARD + BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the first page of the mapping made above; the signal stack lies wholly behind it, inside the mapping, and is taken out of use
    // before the mapping goes (in `drop`).
    unsafe {
        libc::mprotect(memory, GUARD, libc::PROT_NONE);
        let stack = libc::stack_t {
            ss_sp: memory.byte_add(GUARD),
            ss_flags: 0,
            ss_size: BYTES,
        };
        if libc::sigaltstack(&raw const stack, ptr::null_mut()) != 0 {
            libc::munmap(memory, GUARD + BYTES);
            return;
        }
    }
    MEMORY.set(Some(SignalStack(memory)));
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let off = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: BYTES,
        };
        // SAFETY: the thread ends and runs no handler here; the stack is taken out of use before its memory goes.
        unsafe {
            libc::sigaltstack(&raw const off, ptr::null_mut());
            libc::munmap(self.0, GUARD + BYTES);
        }
    }
}

fn lowest_address() -> usize {
    // SAFETY: the attributes are initialised by the first call if it succeeds, read by the second, and destroyed once.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return 0;
        }
        let (mut lowest, mut size) = (ptr::null_mut(), 0);
        let known = libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut size) == 0;
        libc::pthread_attr_destroy(&raw mut attributes);
        if known { lowest as usize } else { 0 }
    }
}

/// Whether a fault at `address` is this thread's stack that ran into its end. For the signal handler.
pub(super) fn overflowed(address: u64) -> bool {
    /// The guard below a stack, and as much above it as lies in the last page.
    const BELOW: u64 = 1 << 20;
    const ABOVE: u64 = 16 << 10;
    let lowest = LOWEST.get() as u64;
    lowest != 0 && (lowest.saturating_sub(BELOW)..lowest + ABOVE).contains(&address)
}
