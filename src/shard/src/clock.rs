//! What the kernel thinks of the host's clock: recordings carry its time.

use std::time::Duration;

/// The kernel's view of the clock, from `adjtimex(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// A time daemon keeps it in step.
    pub synchronised: bool,
    /// How far it may be off at most, as the daemon reckons.
    pub error_max: Duration,
}

/// Asks the kernel. `None` where it does not answer.
pub fn clock_state() -> Option<ClockState> {
    // SAFETY: a structure of integers, for which zero is valid: no mode set means that nothing is changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is writable and outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then(|| ClockState {
        synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        error_max: Duration::from_micros(timex.maxerror.max(0) as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_and_nothing_is_changed() {
        let first = clock_state();
        assert_eq!(first.map(|c| c.synchronised), clock_state().map(|c| c.synchronised));
    }
}
