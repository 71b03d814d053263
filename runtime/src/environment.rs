//! The environment variables that a loader reads (ld.so(8)).

use crate::initial_stack::InitialStack;
use crate::logger;
use loader::rule::{holds, Rule};
use loader::tunables::parse_number;

/// What the environment asks for. In secure execution only what glibc reads then is here.
#[derive(Clone, Copy, Default, Debug)]
pub struct Environment {
    /// `LD_LIBRARY_PATH`
    pub library_path: Option<&'static [u8]>,
    /// `LD_PRELOAD`
    pub preload: Option<&'static [u8]>,
    /// `LD_AUDIT`
    pub audit: Option<&'static [u8]>,
    /// `LD_BIND_NOW`, non-empty
    pub bind_now: bool,
    /// `LD_BIND_NOT`, non-empty
    pub bind_not: bool,
    /// `LD_DYNAMIC_WEAK`
    pub dynamic_weak: bool,
    /// `LD_DEBUG`
    pub debug: Option<&'static [u8]>,
    /// `LD_DEBUG_OUTPUT`
    pub debug_output: Option<&'static [u8]>,
    /// `LD_TRACE_LOADED_OBJECTS`
    pub trace: Option<Trace>,
    /// `LD_VERBOSE`, non-empty
    pub verbose: bool,
    /// `LD_WARN`, non-empty
    pub warn: bool,
    /// `LD_SHOW_AUXV`
    pub show_auxv: bool,
    /// `LD_PROFILE`, non-empty
    pub profile: Option<&'static [u8]>,
    /// `LD_PROFILE_OUTPUT`, non-empty
    pub profile_output: Option<&'static [u8]>,
    /// `LD_ORIGIN_PATH`
    pub origin_path: Option<&'static [u8]>,
    /// `GLIBC_TUNABLES`
    pub tunables: Option<&'static [u8]>,
}

/// What `LD_TRACE_LOADED_OBJECTS` asks for, even when it is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The program is listed too: the value is a number above 1.
    pub program: bool,
}

/// Variables that secure execution takes out of the environment, so that children do not see them (ld.so(8), "Secure-execution mode").
const UNSAFE: [&[u8]; 19] = [
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"HOSTALIASES",
    b"LD_AUDIT",
    b"LD_DEBUG",
    b"LD_DEBUG_OUTPUT",
    b"LD_DYNAMIC_WEAK",
    b"LD_HWCAP_MASK",
    b"LD_LIBRARY_PATH",
    b"LD_ORIGIN_PATH",
    b"LD_PRELOAD",
    b"LD_PROFILE",
    b"LD_SHOW_AUXV",
    b"LOCALDOMAIN",
    b"LOCPATH",
    b"MALLOC_TRACE",
    b"NIS_PATH",
    b"NLSPATH",
    b"RESOLV_HOST_CONF",
];

/// More of the same.
const UNSAFE_TOO: [&[u8]; 3] = [b"RES_OPTIONS", b"TMPDIR", b"TZDIR"];

impl Environment {
    /// Reads the variables. Of several with one name the last counts, but for `LD_DEBUG` and `LD_BIND_NOW`: `LD_DEBUG=unused` binds
    /// everything, to see what is used, unless an empty `LD_BIND_NOW` follows.
    pub fn read(stack: &InitialStack, secure: bool) -> Environment {
        let mut environment = Environment::default();
        for entry in stack.environment() {
            let Some(equals) = entry.iter().position(|&b| b == b'=') else {
                continue;
            };
            let (name, value) = (&entry[..equals], &entry[equals + 1..]);
            match name {
                b"LD_AUDIT" => environment.audit = Some(value),
                b"LD_PRELOAD" => environment.preload = Some(value),
                b"LD_BIND_NOW" => environment.bind_now = !value.is_empty(),
                b"LD_BIND_NOT" => environment.bind_not = !value.is_empty(),
                b"GLIBC_TUNABLES" => environment.tunables = Some(value),
                b"LD_TRACE_LOADED_OBJECTS" => environment.trace = Some(Trace { program: parse_number(value) > 1 }),
                b"LD_VERBOSE" => environment.verbose = !value.is_empty(),
                b"LD_WARN" => environment.warn = !value.is_empty(),
                b"LD_SHOW_AUXV" if !secure => environment.show_auxv = true,
                b"LD_ORIGIN_PATH" if !secure => environment.origin_path = Some(value),
                b"LD_DYNAMIC_WEAK" if !secure => environment.dynamic_weak = true,
                b"LD_LIBRARY_PATH" if !secure || !holds(Rule::LibraryPathInSecureMode) => {
                    environment.library_path = Some(value)
                }
                b"LD_PROFILE" => environment.profile = Some(value).filter(|value| !value.is_empty()),
                b"LD_PROFILE_OUTPUT" if !secure && !value.is_empty() => environment.profile_output = Some(value),
                b"LD_DEBUG" => {
                    environment.debug = Some(value);
                    environment.bind_now |= logger::asks_for(value, "unused");
                }
                b"LD_DEBUG_OUTPUT" if !secure => environment.debug_output = Some(value),
                _ => {}
            }
        }
        environment
    }
}

/// Whether secure execution keeps a `NAME=value` string for the program and its children.
pub fn is_safe(entry: &[u8]) -> bool {
    let name = entry.split(|&b| b == b'=').next().unwrap_or(entry);
    !holds(Rule::VariablesInSecureMode) || (!UNSAFE.contains(&name) && !UNSAFE_TOO.contains(&name))
}
