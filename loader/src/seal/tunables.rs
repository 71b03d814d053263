//! The tunables of sealing, read from `GLIBC_TUNABLES`.

#![deny(unsafe_code)]

use crate::tunables::{items, parse_number};

/// How much is sealed, and what happens when it can't be: `glibc.rtld.seal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealLevel {
    /// 0: nothing is sealed.
    Off,
    /// 1: what can be sealed is; failures are remembered and tolerated.
    #[default]
    BestEffort,
    /// 2: everything is sealed, and a failure ends the process.
    Enforced,
}

impl SealLevel {
    /// The level with this number, if there is one.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Off),
            1 => Some(Self::BestEffort),
            2 => Some(Self::Enforced),
            _ => None,
        }
    }

    /// The number of this level.
    pub const fn number(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::BestEffort => 1,
            Self::Enforced => 2,
        }
    }
}

/// Whether writable data is sealed too: `ldseal.data`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataSealing {
    /// `auto`: at [`SealLevel::Enforced`] only.
    #[default]
    Auto,
    /// `0`: never.
    Never,
    /// `1`: whenever anything is sealed.
    Always,
}

impl DataSealing {
    /// The word for it in `GLIBC_TUNABLES`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "0",
            Self::Always => "1",
        }
    }

    /// Whether data is sealed at this level.
    pub fn at(self, level: SealLevel) -> bool {
        match self {
            Self::Auto => level == SealLevel::Enforced,
            Self::Never => false,
            Self::Always => level != SealLevel::Off,
        }
    }
}

/// Which objects are sealed: `ldseal.policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// `all`: all that will stay.
    #[default]
    All,
    /// `marked`: of these the ones with `GNU_PROPERTY_MEMORY_SEAL`, and none unless the program has it too.
    Marked,
    /// What `marked` becomes once the program is known not to have it: nothing is sealed.
    UnmarkedProgram,
}

impl Policy {
    /// The word for it in `GLIBC_TUNABLES`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Marked | Self::UnmarkedProgram => "marked",
        }
    }
}

/// Which memory is anonymous: `ldseal.anonymous`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// `relro`: what relocations have written, and nothing else.
    #[default]
    Relro,
    /// `all`: text and read-only data too.
    All,
}

impl Anonymous {
    /// The word for it in `GLIBC_TUNABLES`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Relro => "relro",
            Self::All => "all",
        }
    }
}

/// What memory holds the images of objects, but for their RELRO, which is always anonymous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageMemory {
    /// Private mappings of the file.
    #[default]
    File,
    /// Copies in anonymous memory or, where the system does not let such memory become executable, mappings of the file.
    AnonymousIfPossible,
    /// Copies in anonymous memory.
    Anonymous,
}

/// The tunables of sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealTunables<'a> {
    /// `glibc.rtld.seal`.
    pub level: SealLevel,
    /// `ldseal.data`.
    pub data: DataSealing,
    /// `ldseal.vdso`: whether the vDSO is sealed.
    pub vdso: bool,
    /// `ldseal.exclude`: a glob; objects that match are not sealed. `None` when unset or empty.
    pub exclude: Option<&'a [u8]>,
    /// `ldseal.policy`
    pub policy: Policy,
    /// `ldseal.anonymous`
    pub anonymous: Anonymous,
    /// `ldseal.late`: whether what comes to stay after the start is sealed.
    pub late: bool,
}

impl Default for SealTunables<'_> {
    fn default() -> Self {
        SealTunables {
            level: SealLevel::default(),
            data: DataSealing::default(),
            vdso: true,
            exclude: None,
            policy: Policy::default(),
            anonymous: Anonymous::default(),
            late: true,
        }
    }
}

impl<'a> SealTunables<'a> {
    /// Whether anything at all will be sealed.
    pub fn seals(&self) -> bool {
        self.level != SealLevel::Off && self.policy != Policy::UnmarkedProgram
    }

    /// How images are mapped. Without seals anonymous memory protects from nothing, so level 0 maps files.
    pub fn image_memory(&self) -> ImageMemory {
        match (self.anonymous, self.level) {
            (Anonymous::Relro, _) | (_, SealLevel::Off) => ImageMemory::File,
            (Anonymous::All, SealLevel::BestEffort) => ImageMemory::AnonymousIfPossible,
            (Anonymous::All, SealLevel::Enforced) => ImageMemory::Anonymous,
        }
    }

    /// Takes account of the program, on whose mark `ldseal.policy=marked` depends.
    pub fn judge_program(&mut self, asks_for_seal: impl FnOnce() -> bool) {
        if self.policy == Policy::Marked && !asks_for_seal() {
            self.policy = Policy::UnmarkedProgram;
        }
    }

    /// Reads them from the value of `GLIBC_TUNABLES`; in secure execution the user's wishes don't count.
    ///
    /// Numbers are read and judged as glibc does with its own tunables: text that is no number is 0, a number out of range
    /// leaves the tunable as it was, and of several items with the same name the last acceptable one holds.
    /// `ldseal.data` other than the three words leaves it as it was.
    pub fn parse(string: &'a [u8], secure: bool) -> Self {
        let mut tunables = Self::default();
        if !secure {
            for (name, value) in items(string) {
                tunables.set(name, value);
            }
        }
        tunables
    }

    fn set(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"glibc.rtld.seal" => self.level = SealLevel::from_number(parse_number(value)).unwrap_or(self.level),
            b"ldseal.data" => match value {
                b"auto" => self.data = DataSealing::Auto,
                b"0" => self.data = DataSealing::Never,
                b"1" => self.data = DataSealing::Always,
                _ => {}
            },
            b"ldseal.vdso" => match parse_number(value) {
                0 => self.vdso = false,
                1 => self.vdso = true,
                _ => {}
            },
            b"ldseal.late" => match parse_number(value) {
                0 => self.late = false,
                1 => self.late = true,
                _ => {}
            },
            b"ldseal.policy" => match value {
                b"all" => self.policy = Policy::All,
                b"marked" => self.policy = Policy::Marked,
                _ => {}
            },
            b"ldseal.anonymous" => match value {
                b"relro" => self.anonymous = Anonymous::Relro,
                b"all" => self.anonymous = Anonymous::All,
                _ => {}
            },
            b"ldseal.exclude" => self.exclude = Some(value).filter(|glob| !glob.is_empty()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(string: &str) -> SealTunables<'_> {
        SealTunables::parse(string.as_bytes(), false)
    }

    #[test]
    fn defaults() {
        let expected = SealTunables {
            level: SealLevel::BestEffort,
            data: DataSealing::Auto,
            vdso: true,
            exclude: None,
            policy: Policy::All,
            anonymous: Anonymous::Relro,
            late: true,
        };
        assert_eq!(parse(""), expected);
        assert_eq!(parse("glibc.malloc.check=3"), expected);
    }

    #[test]
    fn every_tunable_is_read() {
        let expected = SealTunables {
            level: SealLevel::Enforced,
            data: DataSealing::Always,
            vdso: false,
            exclude: Some(b"*/libfoo.so*"),
            policy: Policy::Marked,
            anonymous: Anonymous::All,
            late: false,
        };
        let string = "glibc.rtld.seal=2:ldseal.data=1:ldseal.vdso=0:ldseal.exclude=*/libfoo.so*:ldseal.policy=marked:\
                      ldseal.anonymous=all:ldseal.late=0";
        assert_eq!(parse(string), expected);
    }

    #[test]
    fn numbers_out_of_range_leave_the_level_as_it_was() {
        for value in ["3", "-1", "0x3", "4294967296", "99999999999999999999"] {
            let string = std::format!("glibc.rtld.seal={value}");
            assert_eq!(parse(&string).level, SealLevel::BestEffort, "{value}");
            let string = std::format!("glibc.rtld.seal=2:glibc.rtld.seal={value}");
            assert_eq!(parse(&string).level, SealLevel::Enforced, "{value}");
        }
    }

    #[test]
    fn numbers_take_glibc_s_forms() {
        for (value, level) in [
            ("0x2", SealLevel::Enforced),
            ("02", SealLevel::Enforced),
            (" +2 please", SealLevel::Enforced),
            ("", SealLevel::Off),
            ("yes", SealLevel::Off),
        ] {
            let string = std::format!("glibc.rtld.seal={value}");
            assert_eq!(parse(&string).level, level, "{value:?}");
        }
    }

    #[test]
    fn an_item_without_value_is_ignored() {
        assert_eq!(parse("glibc.rtld.seal").level, SealLevel::BestEffort);
        assert_eq!(parse("glibc.rtld.seal:glibc.rtld.seal=0").level, SealLevel::Off);
    }

    #[test]
    fn unknown_words_for_data_are_ignored() {
        assert_eq!(parse("ldseal.data=1:ldseal.data=2").data, DataSealing::Always);
        assert_eq!(parse("ldseal.data=1:ldseal.data=auto").data, DataSealing::Auto);
    }

    #[test]
    fn unknown_words_for_policy_and_anonymous_are_ignored() {
        assert_eq!(parse("ldseal.policy=marked:ldseal.policy=some").policy, Policy::Marked);
        assert_eq!(parse("ldseal.policy=marked:ldseal.policy=all").policy, Policy::All);
        assert_eq!(parse("ldseal.anonymous=all:ldseal.anonymous=1").anonymous, Anonymous::All);
        assert_eq!(parse("ldseal.anonymous=all:ldseal.anonymous=relro").anonymous, Anonymous::Relro);
    }

    #[test]
    fn an_empty_glob_excludes_nothing() {
        assert_eq!(parse("ldseal.exclude=a:ldseal.exclude=").exclude, None);
    }

    #[test]
    fn secure_execution_ignores_them_all() {
        let string =
            b"glibc.rtld.seal=0:ldseal.data=0:ldseal.vdso=0:ldseal.exclude=*:ldseal.policy=marked:ldseal.anonymous=all";
        assert_eq!(SealTunables::parse(string, true), SealTunables::default());
    }

    #[test]
    fn data_is_sealed_by_level() {
        use {DataSealing::*, SealLevel::*};
        for (data, sealed) in [(Auto, [false, false, true]), (Never, [false; 3]), (Always, [false, true, true])] {
            assert_eq!([Off, BestEffort, Enforced].map(|level| data.at(level)), sealed, "{data:?}");
        }
    }

    #[test]
    fn levels_have_numbers() {
        for number in 0..=2 {
            assert_eq!(SealLevel::from_number(number).map(|level| u64::from(level.number())), Some(number));
        }
        assert_eq!(SealLevel::from_number(3), None);
    }
}
