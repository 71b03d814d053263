//! What a signal to this process means for the program. Pure.

/// What is done about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing: the program has got it as well, or it is none of its business.
    None,
    /// It goes to the program.
    ToProgram,
    /// It goes to what the program has left behind.
    ToAll,
    /// The report is made at once, and what still runs is killed.
    End,
}

/// `si_code` of a signal that the kernel itself sends: a terminal's, above all, to all of a process group.
const SI_KERNEL: i32 = 0x80;

/// Decides. `lives` is whether the program has not ended yet, `urged` whether what it left behind has got a signal before.
pub fn react(signal: i32, code: i32, lives: bool, urged: bool) -> Reaction {
    let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&signal);
    match (signal, lives) {
        (libc::SIGCHLD, _) => Reaction::None,
        (_, true) if code == SI_KERNEL => Reaction::None,
        (_, true) => Reaction::ToProgram,
        (_, false) if ends && urged => Reaction::End,
        (_, false) if ends => Reaction::ToAll,
        (_, false) => Reaction::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_comes_once() {
        for terminal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH] {
            assert_eq!(react(terminal, SI_KERNEL, true, false), Reaction::None);
            assert_eq!(react(terminal, 0, true, false), Reaction::ToProgram);
        }
        assert_eq!(react(libc::SIGCHLD, 0, true, false), Reaction::None);
        // SI_TKILL and SI_QUEUE.
        assert_eq!(react(libc::SIGTERM, -6, true, false), Reaction::ToProgram);
        assert_eq!(react(34, -1, true, false), Reaction::ToProgram);
    }

    #[test]
    fn what_the_program_left_behind_ends_at_the_second() {
        assert_eq!(react(libc::SIGINT, SI_KERNEL, false, false), Reaction::ToAll);
        assert_eq!(react(libc::SIGTERM, 0, false, true), Reaction::End);
        assert_eq!(react(libc::SIGWINCH, SI_KERNEL, false, true), Reaction::None);
    }
}
