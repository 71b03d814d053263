//! Why memory is not sealed, as far as that can be known or derived from outside.

use super::model::{Kernel, Kind};
use super::process::Process;
use loader::seal::tunables::{DataSealing, Policy, SealLevel, SealTunables};

/// What a process was told about sealing.
#[derive(Debug)]
pub struct Settings {
    /// The level, when it is known.
    pub level: Option<SealLevel>,
    /// Where it is known from, or why it isn't.
    pub source: &'static str,
    /// The value of `GLIBC_TUNABLES` as far as it counts.
    tunables: Vec<u8>,
}

impl Settings {
    /// Finds out. `given` is the level on the launcher's own command line, when it is the launcher that started the process.
    pub fn of(process: &Process, given: Option<Option<SealLevel>>) -> Settings {
        let secure = process.secure();
        let tunables = process.variable(b"GLIBC_TUNABLES").filter(|_| !secure).unwrap_or_default();
        let tuned = SealTunables::parse(&tunables, secure).level;
        let from_environment = if tunables.is_empty() { "the default" } else { "GLIBC_TUNABLES" };
        let arguments = process.command_line();
        let shown = arguments.first().is_some_and(|name| is_interpreter(name));
        let (level, source) = match (given, option_seal(&arguments).filter(|_| shown)) {
            (Some(Some(level)), _) | (None, Some(level)) => (Some(level), "--seal"),
            (Some(None), _) => (Some(tuned), from_environment),
            (None, None) if shown && process.environment_is_readable() => (Some(tuned), from_environment),
            // The launcher's --seal leaves no trace once the command line equals that of a direct start.
            (None, None) => (None, "its options can't be seen"),
        };
        Settings { level, source, tunables }
    }

    /// Deduces a level that was not told from the seals that are there: `data` says whether writable memory of the objects
    /// is sealed, None whether nothing at all is.
    pub fn deduce(&mut self, data: Option<bool>) {
        if self.level.is_some() {
            return;
        }
        let level = match (data, self.tunables().data) {
            (Some(true), DataSealing::Auto) => SealLevel::Enforced,
            (Some(false), DataSealing::Auto) => SealLevel::BestEffort,
            _ => return,
        };
        (self.level, self.source) = (Some(level), "seen by its seals");
    }

    /// The tunables.
    pub fn tunables(&self) -> SealTunables<'_> {
        SealTunables::parse(&self.tunables, false)
    }
}

fn is_interpreter(argument: &[u8]) -> bool {
    argument.rsplit(|&byte| byte == b'/').next() == Some(crate::interpreter::NAME.as_bytes())
}

/// `--seal LEVEL` among the options of the interpreter, which end at the program.
fn option_seal(arguments: &[Vec<u8>]) -> Option<SealLevel> {
    let value = option(arguments, b"--seal")?;
    SealLevel::from_number(std::str::from_utf8(value).ok()?.parse().ok()?)
}

/// What `--preload LIST` and `--audit LIST` name, if the process shows that it is the interpreter with options.
pub fn option_lists(arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if !arguments.first().is_some_and(|name| is_interpreter(name)) {
        return Vec::new();
    }
    let lists = [b"--preload".as_slice(), b"--audit"].into_iter().filter_map(|name| option(arguments, name));
    lists.map(<[u8]>::to_vec).collect()
}

/// The value of an option of the interpreter.
fn option<'a>(arguments: &'a [Vec<u8>], wanted: &[u8]) -> Option<&'a [u8]> {
    const WITH_VALUE: [&[u8]; 9] = [
        b"--seal",
        b"--library-path",
        b"--glibc-hwcaps-prepend",
        b"--glibc-hwcaps-mask",
        b"--inhibit-rpath",
        b"--audit",
        b"--preload",
        b"--argv0",
        b"--execfn",
    ];
    let mut arguments = arguments.iter().skip(1).map(Vec::as_slice);
    while let Some(option) = arguments.next().filter(|argument| argument.starts_with(b"--") && argument.len() > 2) {
        if option == wanted {
            return arguments.next();
        }
        if WITH_VALUE.contains(&option) {
            arguments.next();
        }
    }
    None
}

/// What is known about a process when one of its regions is judged.
pub struct Evidence<'a> {
    /// The running kernel.
    pub kernel: Kernel,
    /// Whether `ld-seal.so` is the process's loader.
    pub under_ld_seal: bool,
    /// What it was told.
    pub settings: &'a Settings,
    /// Whether any memory of an object is sealed.
    pub any_sealed: bool,
}

/// What is known about the object that a region belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// Whether anything of it is sealed.
    pub any_sealed: bool,
    /// Whether it is known to be there since the start: DT_NEEDED reaches it from the program, a preload, an audit module, or an object
    /// that is sealed.
    pub from_start: bool,
    /// Whether it is known to stay for ever: it is from the start, or DT_NEEDED reaches it from an object with DF_1_NODELETE.
    pub stays: bool,
    /// Whether `ldseal.exclude` matches its path.
    pub excluded: bool,
    /// Whether it is a static program.
    pub is_static: bool,
    /// Whether its own note asks that it not be sealed.
    pub opts_out: bool,
    /// Whether it asks to be sealed.
    pub asks_for_seal: bool,
}

impl Evidence<'_> {
    /// Why a region of this kind is not sealed.
    pub fn why_not(&self, kind: Kind, owner: Option<Owner>) -> String {
        match kind {
            Kind::Uprobes => return "made by the kernel when a uprobe is hit".into(),
            Kind::Vsyscall => return "can't be sealed: the kernel's own page".into(),
            Kind::Heap => return "never sealed".into(),
            Kind::Stack => return "never sealed".into(),
            Kind::MappedFile => return "not loaded by the loader".into(),
            Kind::Mutable => return "PT_GNU_MUTABLE: the object asks for it to stay open".into(),
            Kind::Anonymous => return "no part of an object: stacks, TLS, malloc's or the loader's memory".into(),
            _ => {}
        }
        if !self.kernel.shows_seals {
            return "this kernel does not say what is sealed".into();
        }
        if !self.kernel.mseal {
            return "this kernel has no mseal".into();
        }
        if !self.under_ld_seal {
            return "not started under ld-seal.so".into();
        }
        if !self.any_sealed {
            return self.nothing();
        }
        let is_data = matches!(kind, Kind::Got | Kind::GotShared | Kind::Data | Kind::Bss);
        match (kind, owner) {
            (Kind::Vdso | Kind::Vvar, _) if !self.settings.tunables().vdso => "ldseal.vdso=0".into(),
            (Kind::Vdso | Kind::Vvar, _) => "best effort: the kernel refused, or was not asked".into(),
            (_, Some(owner)) if owner.is_static && (is_data || kind == Kind::Relro) => {
                "a static program protects what it writes itself".into()
            }
            (_, Some(owner)) if owner.any_sealed && is_data => self.data(),
            (_, Some(owner)) if owner.any_sealed => "the rest of the object is sealed: mseal was refused here".into(),
            (_, Some(owner)) if owner.excluded => self.excluded(),
            (_, Some(owner)) if owner.opts_out && self.settings.level != Some(SealLevel::Enforced) => {
                "opts out by its own note (ldseal mark)".into()
            }
            (_, Some(owner)) if self.settings.tunables().policy == Policy::Marked && !owner.asks_for_seal => {
                "not marked with GNU_PROPERTY_MEMORY_SEAL (ldseal.policy=marked)".into()
            }
            (_, Some(owner)) if owner.from_start || owner.stays && self.settings.tunables().late => {
                "it stays for ever: mseal was refused, or the process is restored from a checkpoint".into()
            }
            (_, Some(_)) if !self.settings.tunables().late => "loaded by dlopen (ldseal.late=0)".into(),
            // A refusal would have ended the process.
            _ if self.settings.level == Some(SealLevel::Enforced) => {
                "loaded by dlopen: it is not NODELETE, so that dlclose can unmap it".into()
            }
            _ => "loaded by dlopen: it is not NODELETE, so that dlclose can unmap it, or mseal was refused".into(),
        }
    }

    fn nothing(&self) -> String {
        match self.settings.level {
            Some(SealLevel::Off) => format!("level 0 ({})", self.settings.source),
            _ if self.settings.tunables().policy == Policy::Marked => {
                "the program is not marked with GNU_PROPERTY_MEMORY_SEAL (ldseal.policy=marked), or mseal was refused"
                    .into()
            }
            level => {
                let off = if level.is_none() { "level 0, " } else { "" };
                format!("nothing is sealed: {off}mseal refused, still being loaded, or restored from a checkpoint")
            }
        }
    }

    fn data(&self) -> String {
        match self.settings.tunables().data {
            DataSealing::Never => "writable data, ldseal.data=0".into(),
            DataSealing::Auto => "writable data, open below level 2 (ldseal.data=auto)".into(),
            DataSealing::Always => "writable data: mseal was refused here".into(),
        }
    }

    fn excluded(&self) -> String {
        let glob = self.settings.tunables().exclude.unwrap_or_default();
        format!("ldseal.exclude={}", String::from_utf8_lossy(glob))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(level: Option<SealLevel>, tunables: &str) -> Settings {
        Settings { level, source: "--seal", tunables: tunables.into() }
    }

    fn why(settings: &Settings, any_sealed: bool, kind: Kind, owner: Option<Owner>) -> String {
        let kernel = Kernel { mseal: true, seals_system_mappings: false, shows_seals: true };
        Evidence { kernel, under_ld_seal: true, settings, any_sealed }.why_not(kind, owner)
    }

    #[test]
    fn levels_and_tunables_are_named() {
        let plain = Owner {
            any_sealed: true,
            from_start: true,
            stays: true,
            excluded: false,
            is_static: false,
            opts_out: false,
            asks_for_seal: false,
        };
        let owner = Some(plain);
        let one = settings(Some(SealLevel::BestEffort), "");
        assert!(why(&one, true, Kind::Data, owner).contains("ldseal.data=auto"));
        let zero = settings(Some(SealLevel::BestEffort), "ldseal.data=0:ldseal.vdso=0:ldseal.exclude=*/libx.so");
        assert_eq!(why(&zero, true, Kind::Bss, owner), "writable data, ldseal.data=0");
        assert_eq!(why(&zero, true, Kind::Vvar, None), "ldseal.vdso=0");
        let unsealed = Some(Owner { any_sealed: false, ..plain });
        let opened = Some(Owner { any_sealed: false, from_start: false, stays: false, ..plain });
        assert!(why(&one, true, Kind::Text, opened).ends_with("or mseal was refused"));
        assert!(why(&settings(Some(SealLevel::Enforced), ""), true, Kind::Text, opened).ends_with("can unmap it"));
        let nodelete = Some(Owner { any_sealed: false, from_start: false, ..plain });
        assert!(why(&one, true, Kind::Text, nodelete).starts_with("it stays for ever: mseal was refused"));
        let early = settings(Some(SealLevel::BestEffort), "ldseal.late=0");
        assert_eq!(why(&early, true, Kind::Text, nodelete), "loaded by dlopen (ldseal.late=0)");
        assert!(why(&early, true, Kind::Text, unsealed).starts_with("it stays for ever: mseal was refused"));
        let excluded = Some(Owner { any_sealed: false, excluded: true, ..plain });
        assert!(why(&zero, true, Kind::Text, excluded).contains("ldseal.exclude=*/libx.so"));
        let opts_out = Some(Owner { any_sealed: false, opts_out: true, ..plain });
        assert!(why(&one, true, Kind::Text, opts_out).contains("its own note"));
        let marked = settings(Some(SealLevel::BestEffort), "ldseal.policy=marked");
        assert!(why(&marked, true, Kind::Text, unsealed).contains("ldseal.policy=marked"));
        let opened = Some(Owner { any_sealed: false, from_start: false, stays: false, ..plain });
        assert!(why(&one, true, Kind::Text, opened).contains("dlopen"));
        assert_eq!(why(&settings(Some(SealLevel::Off), ""), false, Kind::Text, unsealed), "level 0 (--seal)");
        assert!(why(&settings(None, ""), false, Kind::Text, unsealed).contains("level 0, mseal refused"));
        assert!(why(&one, false, Kind::Text, unsealed).ends_with("restored from a checkpoint"));
    }

    #[test]
    fn a_hidden_level_is_seen_by_the_seals() {
        let deduced = |tunables, data| {
            let mut settings = settings(None, tunables);
            settings.deduce(data);
            settings.level
        };
        assert_eq!(deduced("", Some(true)), Some(SealLevel::Enforced));
        assert_eq!(deduced("glibc.rtld.seal=0", Some(false)), Some(SealLevel::BestEffort));
        assert_eq!(deduced("", None), None);
        assert_eq!(deduced("ldseal.data=1", Some(true)), None);
        let mut told = settings(Some(SealLevel::Off), "");
        told.deduce(Some(true));
        assert_eq!(told.level, Some(SealLevel::Off));
    }

    #[test]
    fn the_kernel_and_the_loader_come_first() {
        let settings = settings(Some(SealLevel::BestEffort), "");
        let mut kernel = Kernel { mseal: false, seals_system_mappings: false, shows_seals: true };
        let why = |kernel, under_ld_seal| {
            Evidence { kernel, under_ld_seal, settings: &settings, any_sealed: false }.why_not(Kind::Text, None)
        };
        assert_eq!(why(kernel, true), "this kernel has no mseal");
        kernel.mseal = true;
        assert_eq!(why(kernel, false), "not started under ld-seal.so");
        kernel.shows_seals = false;
        assert_eq!(why(kernel, true), "this kernel does not say what is sealed");
    }

    #[test]
    fn the_option_is_found_before_the_program_only() {
        let parse = |line: &str| option_seal(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(parse("ld-seal.so --launched --argv0 --seal --seal 2 ./x"), Some(SealLevel::Enforced));
        assert_eq!(parse("ld-seal.so --library-path /a ./x --seal 2"), None);
        assert_eq!(parse("ld-seal.so --seal 7 ./x"), None);
    }
}
