//! Seccomp filters, as containers have them: a system call is refused with an error number.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use std::thread;

/// Calls `start` on a thread for which the kernel answers the system call `number` with `errno`. Processes that it starts inherit the filter.
///
/// # Errors
/// The filter can't be installed.
pub fn refusing<T: Send>(number: i64, errno: i32, start: impl FnOnce() -> T + Send) -> Result<T, String> {
    let program = program(number, errno).map_err(|e| format!("seccomp filter: {e}"))?;
    let refused = thread::scope(|scope| {
        let filtered = scope.spawn(|| seccompiler::apply_filter(&program).map(|()| start()));
        filtered.join().map_err(|_| "the filtered thread panicked".to_string())
    })?;
    refused.map_err(|e| format!("seccomp filter: {e}"))
}

fn program(number: i64, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(number, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        seccompiler::TargetArch::x86_64,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{mseal, trace::MSEAL};

    #[test]
    fn only_the_thread_is_refused() {
        let refused = refusing(MSEAL as i64, libc::EXDEV, mseal::probe).expect("filters work here");
        assert_eq!(refused, Err(libc::EXDEV));
        assert_ne!(mseal::probe(), Err(libc::EXDEV));
    }
}
