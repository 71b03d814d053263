//! The command line of direct invocation: `ld-seal.so [OPTION]... PROGRAM [ARGUMENT]...` (ld.so(8)).

use crate::initial_stack::InitialStack;
use core::ffi::CStr;
use loader::seal::tunables::SealLevel;

/// How many `--audit` options there may be.
pub const AUDIT_LISTS: usize = 15;

/// What the options ask for.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--library-path`
    pub library_path: Option<&'static [u8]>,
    /// `--inhibit-cache`
    pub inhibit_cache: bool,
    /// `--inhibit-rpath`
    pub inhibit_rpath: Option<&'static [u8]>,
    /// `--preload`
    pub preload: Option<&'static [u8]>,
    /// `--audit`, which may be given several times.
    pub audit: [Option<&'static [u8]>; AUDIT_LISTS],
    /// `--argv0`
    pub argv0: Option<&'static CStr>,
    /// `--glibc-hwcaps-prepend`
    pub hwcaps_prepend: Option<&'static [u8]>,
    /// `--glibc-hwcaps-mask`
    pub hwcaps_mask: Option<&'static [u8]>,
    /// `--seal`: overrides `glibc.rtld.seal`.
    pub seal: Option<SealLevel>,
    /// `--launched`, as the first option: started by `ldseal run`, so that everything is to look like a direct start of the program.
    pub launched: bool,
    /// `--execfn`: the file that the process is named after (AT_EXECFN, comm) when it is not the program: a script.
    pub execfn: Option<&'static CStr>,
    /// What to do.
    pub action: Action,
    /// How many arguments precede the program.
    pub consumed: usize,
}

/// What direct invocation is asked to do.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the program.
    #[default]
    Run,
    /// `--list`: print what it would load, and where it finds the symbols that follow.
    List,
    /// `LD_TRACE_LOADED_OBJECTS`: print what it would load, and what else `LD_VERBOSE`, `LD_WARN` and `LD_DEBUG=unused` ask for.
    Trace,
    /// `--verify`: tell by the exit status whether it could be run.
    Verify,
    /// `--help`: with a program, its search path is shown.
    Help,
    /// `--version`
    Version,
    /// `--list-tunables`
    ListTunables,
    /// `--list-diagnostics`
    ListDiagnostics,
}

/// Why a command line was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// No option of this name, or its argument is missing.
    Unrecognized(&'static CStr),
    /// No program is named.
    MissingProgram,
    /// More lists of audit modules than there is room for.
    TooManyAudits,
    /// `--seal` with something else than 0, 1 or 2.
    SealLevel(&'static CStr),
}

impl Options {
    /// Parses the arguments up to the program's name: the first that does not begin with two hyphens. As in glibc 2.36 `--` is an unknown
    /// option, of several actions the last counts, but `--version` is answered at once. `action` is what the environment asks for.
    pub fn parse(stack: &InitialStack, action: Action) -> Result<Options, OptionError> {
        let mut options = Options { action, ..Options::default() };
        let mut at = 1;
        while let Some(arg) = stack.arg(at).filter(|a| a.to_bytes().starts_with(b"--")) {
            at += 1;
            at += options.option(arg, stack.arg(at))?;
            if options.action == Action::Version {
                return Ok(options);
            }
        }
        options.consumed = at;
        let needs_program = matches!(options.action, Action::Run | Action::List | Action::Trace | Action::Verify);
        if needs_program && stack.arg(at).is_none() {
            return Err(OptionError::MissingProgram);
        }
        Ok(options)
    }

    /// Takes in one option; the number of further arguments it used.
    fn option(&mut self, name: &'static CStr, argument: Option<&'static CStr>) -> Result<usize, OptionError> {
        let flag = |action| (action, Ok(0));
        let (action, outcome) = match name.to_bytes() {
            // As in glibc, once help is wanted these two are nothing more.
            b"--list" | b"--verify" if self.action == Action::Help => flag(Action::Help),
            b"--list" => flag(Action::List),
            b"--verify" => flag(Action::Verify),
            b"--list-tunables" => flag(Action::ListTunables),
            b"--list-diagnostics" => flag(Action::ListDiagnostics),
            b"--help" => flag(Action::Help),
            b"--version" => flag(Action::Version),
            _ => (self.action, self.setting(name, argument)),
        };
        self.action = action;
        outcome
    }

    fn setting(&mut self, name: &'static CStr, argument: Option<&'static CStr>) -> Result<usize, OptionError> {
        match name.to_bytes() {
            b"--inhibit-cache" => {
                self.inhibit_cache = true;
                return Ok(0);
            }
            b"--launched" => {
                self.launched = true;
                return Ok(0);
            }
            _ => {}
        }
        let argument = argument.ok_or(OptionError::Unrecognized(name))?;
        let bytes = Some(argument.to_bytes());
        match name.to_bytes() {
            b"--library-path" => self.library_path = bytes,
            b"--inhibit-rpath" => self.inhibit_rpath = bytes,
            b"--preload" => self.preload = bytes,
            b"--audit" => match self.audit.iter_mut().find(|list| list.is_none()) {
                Some(free) => *free = bytes,
                None => return Err(OptionError::TooManyAudits),
            },
            b"--argv0" => self.argv0 = Some(argument),
            b"--execfn" => self.execfn = Some(argument),
            b"--glibc-hwcaps-prepend" => self.hwcaps_prepend = bytes,
            b"--glibc-hwcaps-mask" => self.hwcaps_mask = bytes,
            b"--seal" => self.seal = Some(level(argument)?),
            _ => return Err(OptionError::Unrecognized(name)),
        }
        Ok(1)
    }
}

fn level(argument: &'static CStr) -> Result<SealLevel, OptionError> {
    match argument.to_bytes() {
        b"0" => Ok(SealLevel::Off),
        b"1" => Ok(SealLevel::BestEffort),
        b"2" => Ok(SealLevel::Enforced),
        _ => Err(OptionError::SealLevel(argument)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&'static CStr]) -> Result<Options, OptionError> {
        let mut words = std::vec![args.len()];
        words.extend(args.iter().map(|a| a.as_ptr() as usize));
        words.extend([0, 0, 0, 0]);
        // SAFETY: laid out as the kernel does.
        Options::parse(&unsafe { InitialStack::new(words.as_mut_ptr()) }, Action::Run)
    }

    #[test]
    fn options_end_at_the_program() {
        let options = parse(&[c"ld", c"--argv0", c"x", c"--seal", c"2", c"prog", c"--help"]).expect("valid");
        assert_eq!((options.consumed, options.argv0, options.action), (5, Some(c"x"), Action::Run));
        assert_eq!(options.seal, Some(SealLevel::Enforced));
        assert_eq!(parse(&[c"ld", c"-p", c"--list"]).map(|o| (o.consumed, o.action)), Ok((1, Action::Run)));
    }

    #[test]
    fn the_last_action_counts_but_the_version_is_told_at_once() {
        let action = |args: &[&'static CStr]| parse(args).map(|o| o.action);
        assert_eq!(action(&[c"ld", c"--list", c"--verify", c"p"]), Ok(Action::Verify));
        assert_eq!(action(&[c"ld", c"--help", c"--list-tunables"]), Ok(Action::ListTunables));
        assert_eq!(action(&[c"ld", c"--version", c"--nonsense"]), Ok(Action::Version));
        assert_eq!(action(&[c"ld", c"--list-diagnostics"]), Ok(Action::ListDiagnostics));
    }

    #[test]
    fn audit_lists_add_up() {
        let options = parse(&[c"ld", c"--audit", c"a:b", c"--audit", c"c", c"p"]).expect("valid");
        assert_eq!(options.audit[..3], [Some(&b"a:b"[..]), Some(b"c"), None]);
        let mut many = std::vec![c"ld"];
        many.extend([c"--audit", c"x"].repeat(AUDIT_LISTS + 1));
        assert_eq!(parse(&many), Err(OptionError::TooManyAudits));
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(parse(&[c"ld", c"--", c"p"]), Err(OptionError::Unrecognized(c"--")));
        assert_eq!(parse(&[c"ld", c"--nonsense"]), Err(OptionError::Unrecognized(c"--nonsense")));
        assert_eq!(parse(&[c"ld", c"--argv0"]), Err(OptionError::Unrecognized(c"--argv0")));
        assert_eq!(parse(&[c"ld"]), Err(OptionError::MissingProgram));
        assert_eq!(parse(&[c"ld", c"--seal", c"3", c"p"]), Err(OptionError::SealLevel(c"3")));
    }
}
