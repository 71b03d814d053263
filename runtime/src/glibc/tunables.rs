//! glibc's own tunables: their values in this process, as ld.so computes them from the environment.
//!
//! libc.so.6 asks for a tunable by its number in a table that differs between releases (see [`super::tables`]). The rules
//! are those of glibc 2.36: `GLIBC_TUNABLES` goes before aliases in the environment, of several acceptable values from
//! `GLIBC_TUNABLES` the last holds and of an alias the first, values out of range are ignored, and in secure execution
//! only what a tunable's [`Security`] allows is read.

#![deny(unsafe_code)]

use loader::rule::{holds, Rule};
use loader::tunables::{items, parse_number};

/// What kind of value a tunable has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `INT_32`: compared signed, handed out in 4 bytes.
    Int32,
    /// `UINT_64`: compared unsigned, handed out in 8 bytes.
    Uint64,
    /// `SIZE_T`: compared unsigned, handed out in 8 bytes.
    Size,
    /// `STRING`: a pointer to text, or null.
    Text,
}

/// What secure execution does with a tunable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// `SXID_ERASE`: not read, and removed from the environment.
    Erased,
    /// `SXID_IGNORE`: not read, but left for children.
    Ignored,
    /// `NONE`: read.
    Honoured,
}

/// One of glibc's tunables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Its name in `GLIBC_TUNABLES`.
    pub name: &'static [u8],
    /// Its kind.
    pub kind: Kind,
    /// Its value when nobody sets it; a [`Kind::Int32`] is sign-extended, as are the bounds.
    pub default: u64,
    /// The lowest value a user may give.
    pub min: u64,
    /// The highest value a user may give.
    pub max: u64,
    /// The variable of the environment that sets it too.
    pub alias: Option<&'static [u8]>,
    /// What secure execution does with it.
    pub security: Security,
}

/// Whether the process runs in secure execution (AT_SECURE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does not.
    Ordinary,
    /// It does.
    Secure {
        /// Whether the administrator has made `/etc/suid-debug`, which lets `glibc.malloc.check` be read.
        suid_debug: bool,
    },
}

/// More than any release has.
const CAPACITY: usize = 48;

/// The value of a tunable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a [`Kind::Int32`].
    Int32(i32),
    /// Of a [`Kind::Uint64`] or [`Kind::Size`].
    Uint64(u64),
    /// Of a [`Kind::Text`]; `None` when unset. The text ends where the item ends in `GLIBC_TUNABLES` (at `:` or NUL).
    Text(Option<&'a [u8]>),
}

#[derive(Clone, Copy, Debug)]
struct Current<'a> {
    number: u64,
    text: Option<&'a [u8]>,
    min: u64,
    max: u64,
    is_set: bool,
}

/// The values of all tunables of one release.
#[derive(Clone, Debug)]
pub struct TunableSet<'a> {
    table: &'static [Tunable],
    mode: Mode,
    current: [Current<'a>; CAPACITY],
}

impl<'a> TunableSet<'a> {
    /// All tunables of the table, none of them set.
    pub fn new(table: &'static [Tunable], mode: Mode) -> Self {
        let unset = Current { number: 0, text: None, min: 0, max: 0, is_set: false };
        let mut current = [unset; CAPACITY];
        for (current, tunable) in current.iter_mut().zip(table) {
            *current = Current { number: tunable.default, min: tunable.min, max: tunable.max, ..unset };
        }
        TunableSet { table, mode, current }
    }

    /// The values that an environment asks for. Each element of `environment` is a `NAME=value` string; others are skipped.
    pub fn from_environment(
        table: &'static [Tunable],
        mode: Mode,
        environment: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut set = Self::new(table, mode);
        for entry in environment {
            let Some(equals) = entry.iter().position(|&byte| byte == b'=') else { continue };
            if let (Some(name), Some(value)) = (entry.get(..equals), entry.get(equals + 1..)) {
                set.set_from_variable(name, value);
            }
        }
        set
    }

    /// Takes note of a variable of the environment, if it is `GLIBC_TUNABLES` or an alias. The order of the calls is the
    /// order of the environment.
    pub fn set_from_variable(&mut self, name: &[u8], value: &'a [u8]) {
        if name == b"GLIBC_TUNABLES" {
            for (name, value) in items(value) {
                let again = |id: usize| holds(Rule::LastTunableCounts) || !self.is_set(id);
                if let Some(id) = self.find(name).filter(|&id| self.is_read(id) && again(id)) {
                    self.set_from_text(id, value);
                }
            }
            return;
        }
        let alias_of = |(id, tunable): &(usize, &Tunable)| tunable.alias == Some(name) && !self.is_set(*id);
        if let Some((id, _)) = self.table.iter().enumerate().find(alias_of) {
            if self.is_read(id) {
                self.set_from_text(id, value);
            }
        }
    }

    /// Shortens a copy of the value of `GLIBC_TUNABLES` to what secure execution leaves for children, and says how long
    /// the rest is: known tunables that are not [`Security::Erased`].
    pub fn filter_for_children(&self, string: &mut [u8]) -> usize {
        let mut kept = 0;
        let mut next = 0;
        while let Some(rest) = string.get(next..).filter(|rest| !rest.is_empty()) {
            let length = rest.iter().position(|&byte| byte == b':').unwrap_or(rest.len());
            let item = next..next + length;
            next += length + 1;
            let known = items(rest.get(..length).unwrap_or_default()).next().and_then(|(name, _)| self.find(name));
            if known.is_none_or(|id| self.security(id) == Security::Erased) {
                continue;
            }
            if kept > 0 {
                if let Some(byte) = string.get_mut(kept) {
                    *byte = b':';
                }
                kept += 1;
            }
            string.copy_within(item, kept);
            kept += length;
        }
        kept
    }

    /// Whether secure execution removes the variable of this name from the environment for the sake of a tunable.
    pub fn erases_variable(&self, name: &[u8]) -> bool {
        self.mode != Mode::Ordinary
            && (0..self.table.len()).any(|id| {
                self.table.get(id).is_some_and(|tunable| tunable.alias == Some(name))
                    && self.security(id) == Security::Erased
            })
    }

    /// The tunables, by number.
    pub fn table(&self) -> &'static [Tunable] {
        self.table
    }

    /// The number of the tunable with this name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.table.iter().position(|tunable| tunable.name == name)
    }

    /// The value of a tunable, or `None` for a number that the table does not have.
    pub fn value(&self, id: usize) -> Option<Value<'a>> {
        let (tunable, current) = (self.table.get(id)?, self.current.get(id)?);
        Some(match tunable.kind {
            Kind::Int32 => Value::Int32(current.number as i32),
            Kind::Uint64 | Kind::Size => Value::Uint64(current.number),
            Kind::Text => Value::Text(current.text),
        })
    }

    /// The eight bytes of the `tunable_val_t` that a callback is given: the number, an `INT_32` sign-extended, or the
    /// address of the text (see [`Value::Text`] for where that ends).
    pub fn callback_word(&self, id: usize) -> Option<u64> {
        match self.value(id)? {
            Value::Int32(number) => Some(i64::from(number) as u64),
            Value::Uint64(number) => Some(number),
            Value::Text(text) => Some(text.map_or(0, |text| text.as_ptr() as u64)),
        }
    }

    /// Whether somebody has set the tunable: then a callback is called, and `__tunable_is_initialized` is true.
    pub fn is_set(&self, id: usize) -> bool {
        self.current.get(id).is_some_and(|current| current.is_set)
    }

    /// The bounds of the tunable now.
    pub fn bounds(&self, id: usize) -> Option<(u64, u64)> {
        self.table.get(id)?;
        self.current.get(id).map(|current| (current.min, current.max))
    }

    /// The value of a numeric tunable by its name; 0 when the table has no such tunable or it is text.
    pub fn number_of(&self, name: &[u8]) -> u64 {
        self.find(name).and_then(|id| self.current.get(id)).map_or(0, |current| current.number)
    }

    /// The value of a text tunable by its name, if somebody set it.
    pub fn text_of(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(name).and_then(|id| self.current.get(id)).and_then(|current| current.text)
    }

    /// Sets a numeric tunable and narrows its bounds, as ld.so does once it knows what the machine allows. Bounds only
    /// ever become narrower, and inconsistent ones are left as they are; a value outside them changes nothing.
    pub fn set_with_bounds(&mut self, name: &[u8], value: u64, min: u64, max: u64) {
        let Some(id) = self.find(name) else { return };
        let Some(current) = self.current.get(id) else { return };
        let (mut min, mut max) = (self.greater(id, min, current.min), self.lesser(id, max, current.max));
        if self.is_less(id, max, min) {
            (min, max) = (current.min, current.max);
        }
        self.set_number(id, value, min, max);
    }

    fn set_from_text(&mut self, id: usize, value: &'a [u8]) {
        let Some(&Current { min, max, .. }) = self.current.get(id) else { return };
        if self.table.get(id).is_some_and(|tunable| tunable.kind == Kind::Text) {
            if let Some(current) = self.current.get_mut(id) {
                current.text = Some(value);
                current.is_set = true;
            }
        } else {
            self.set_number(id, parse_number(value), min, max);
        }
    }

    fn set_number(&mut self, id: usize, number: u64, min: u64, max: u64) {
        if holds(Rule::TunableBounds) && (self.is_less(id, number, min) || self.is_less(id, max, number)) {
            return;
        }
        if let Some(current) = self.current.get_mut(id) {
            *current = Current { number, min, max, is_set: true, text: None };
        }
    }

    fn is_less(&self, id: usize, left: u64, right: u64) -> bool {
        match self.table.get(id).map(|tunable| tunable.kind) {
            Some(Kind::Int32) => (left as i64) < (right as i64),
            _ => left < right,
        }
    }

    fn greater(&self, id: usize, left: u64, right: u64) -> u64 {
        if self.is_less(id, left, right) {
            right
        } else {
            left
        }
    }

    fn lesser(&self, id: usize, left: u64, right: u64) -> u64 {
        if self.is_less(id, right, left) {
            right
        } else {
            left
        }
    }

    fn is_read(&self, id: usize) -> bool {
        self.mode == Mode::Ordinary || self.security(id) == Security::Honoured
    }

    fn security(&self, id: usize) -> Security {
        match self.table.get(id) {
            Some(tunable)
                if tunable.name == b"glibc.malloc.check" && self.mode == (Mode::Secure { suid_debug: true }) =>
            {
                Security::Honoured
            }
            Some(tunable) => tunable.security,
            None => Security::Erased,
        }
    }
}

pub mod list;

#[cfg(test)]
mod tests;
