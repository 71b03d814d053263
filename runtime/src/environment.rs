//! The environment variables that a loader reads (ld.so(8)).

use crate::initial_stack::InitialStack;

/// What the environment asks for. In secure execution only what glibc reads then is here.
#[derive(Clone, Copy, Default, Debug)]
pub struct Environment {
    /// `LD_LIBRARY_PATH`
    pub library_path: Option<&'static [u8]>,
    /// `LD_PRELOAD`
    pub preload: Option<&'static [u8]>,
    /// `LD_BIND_NOW`, non-empty
    pub bind_now: bool,
    /// `LD_DYNAMIC_WEAK`
    pub dynamic_weak: bool,
    /// `LD_DEBUG`
    pub debug: Option<&'static [u8]>,
    /// `LD_DEBUG_OUTPUT`
    pub debug_output: Option<&'static [u8]>,
    /// `LD_TRACE_LOADED_OBJECTS`
    pub trace: bool,
    /// `GLIBC_TUNABLES`
    pub tunables: Option<&'static [u8]>,
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
    /// Reads the variables.
    pub fn read(stack: &InitialStack, secure: bool) -> Environment {
        let mut environment = Environment::default();
        for entry in stack.environment() {
            let Some(equals) = entry.iter().position(|&b| b == b'=') else {
                continue;
            };
            let (name, value) = (&entry[..equals], &entry[equals + 1..]);
            match name {
                b"LD_PRELOAD" => environment.preload = Some(value),
                b"LD_BIND_NOW" => environment.bind_now = !value.is_empty(),
                b"GLIBC_TUNABLES" => environment.tunables = Some(value),
                b"LD_TRACE_LOADED_OBJECTS" => environment.trace = !value.is_empty(),
                b"LD_DYNAMIC_WEAK" if !secure => environment.dynamic_weak = true,
                b"LD_LIBRARY_PATH" if !secure => environment.library_path = Some(value),
                b"LD_DEBUG" if !secure => environment.debug = Some(value),
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
    !UNSAFE.contains(&name) && !UNSAFE_TOO.contains(&name)
}
