//! `--list-diagnostics`: what the interpreter knows of itself, the process, the kernel and the processor, in the format of glibc 2.36,
//! whose lines scripts read: `name=value` with numbers in hexadecimal and texts in quotation marks.

use super::cpu::preferred::PREFERRED_NAMES;
use super::cpu::{CpuFeatures, CpuKind};
use super::layout::Layout;
use crate::initial_stack::{AuxKey, InitialStack};
use alloc::string::String;
use core::ffi::{c_char, CStr};
use core::fmt::{self, Write};
use loader::program::{INTERPRETER_PATH, INTERPRETER_SONAME};
use loader::search::hwcaps;
use loader::search::path;
use loader::sys;

/// The bits of `_dl_hwcap` that name subdirectories.
const IMPORTANT_HWCAPS: u64 = 0b110;

/// Variables whose values tell something of the C library; of others only the names are shown.
const SHOWN_VARIABLES: [&[u8]; 26] = [
    b"DATEMSK",
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"GLIBC_TUNABLES",
    b"GMON_OUTPUT_PREFIX",
    b"HESIOD_CONFIG",
    b"HES_DOMAIN",
    b"HOSTALIASES",
    b"I18NPATH",
    b"IFS",
    b"LANG",
    b"LOCALDOMAIN",
    b"LOCPATH",
    b"MSGVERB",
    b"NIS_DEFAULTS",
    b"NIS_GROUP",
    b"NIS_PATH",
    b"NLSPATH",
    b"PATH",
    b"POSIXLY_CORRECT",
    b"RESOLV_HOST_CONF",
    b"RES_OPTIONS",
    b"SEV_LEVEL",
    b"TMPDIR",
    b"TZ",
    b"TZDIR",
];

/// What the names of further such variables begin with.
const SHOWN_PREFIXES: [&[u8]; 3] = [b"LC_", b"LD_", b"MALLOC_"];

/// What is reported on.
pub struct Diagnostics<'a> {
    /// The vector and the environment.
    pub stack: &'a InitialStack,
    /// The processor, as the tunables want it.
    pub cpu: &'a CpuFeatures,
    /// The glibc that is reported on.
    pub layout: &'a Layout,
    /// Where profiles would be written.
    pub profile_output: &'a [u8],
}

impl fmt::Display for Diagnostics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.interpreter(f)?;
        self.environment(f)?;
        self.paths(f)?;
        self.auxiliary_vector(f)?;
        kernel(f)?;
        self.processor(f)
    }
}

impl Diagnostics<'_> {
    fn interpreter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = hwcaps::ISA_LEVELS.map(|(name, _)| name);
        let active = self.cpu.glibc_hwcaps().len();
        // The mask counts from the best level down, in as many bits as there are levels.
        let active_bits = ((1u64 << active) - 1) << (names.len() - active);
        let platform = self.cpu.platform().map(str::as_bytes);
        text(f, "dl_dst_lib", path::LAYOUTS[0].lib)?;
        number(f, "dl_hwcap", self.cpu.hwcap())?;
        number(f, "dl_hwcap_important", IMPORTANT_HWCAPS)?;
        number(f, "dl_hwcap2", self.stack.aux(AuxKey::Hwcap2).unwrap_or(0) as u64)?;
        text(f, "dl_hwcaps_subdirs", &names.join(&b':'))?;
        number(f, "dl_hwcaps_subdirs_active", active_bits)?;
        number(f, "dl_pagesize", self.stack.aux(AuxKey::PageSize).unwrap_or(0) as u64)?;
        match platform.or(self.platform_of_kernel()) {
            Some(name) => text(f, "dl_platform", name)?,
            None => writeln!(f, "dl_platform=NULL")?,
        }
        text(f, "dl_profile_output", self.profile_output)?;
        number(f, "dl_string_platform", platform.and_then(hwcaps::platform_bit).map_or(u64::MAX, u64::from))?;
        text(f, "dso.ld", INTERPRETER_SONAME)?;
        text(f, "dso.libc", super::libc::SONAME)
    }

    fn platform_of_kernel(&self) -> Option<&'static [u8]> {
        let at = self.stack.aux(AuxKey::Platform).filter(|at| *at != 0)?;
        // SAFETY: the kernel's entry points to terminated text on the stack.
        Some(unsafe { CStr::from_ptr(at as *const c_char) }.to_bytes())
    }

    fn environment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.stack.environment().enumerate() {
            let name = entry.iter().position(|&b| b == b'=').map(|at| &entry[..at]);
            match name.filter(|name| !is_shown(name)) {
                Some(name) => writeln!(f, "env_filtered[{index:#x}]={}", Quoted(name))?,
                None => writeln!(f, "env[{index:#x}]={}", Quoted(entry))?,
            }
        }
        Ok(())
    }

    fn paths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text(f, "path.prefix", b"/usr")?;
        text(f, "path.rtld", INTERPRETER_PATH)?;
        text(f, "path.sysconfdir", b"/etc")?;
        for (index, directory) in path::LAYOUTS[0].directories.iter().enumerate() {
            writeln!(f, "path.system_dirs[{index:#x}]={}", Quoted(directory))?;
        }
        let (major, minor) = self.layout.version;
        text(f, "version.release", b"stable")?;
        writeln!(f, "version.version=\"{major}.{minor}\"")
    }

    fn auxiliary_vector(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Entries that point to text.
        const TEXTS: [usize; 3] = [AuxKey::Platform as usize, 24, AuxKey::ExecFn as usize];
        for (index, (key, value)) in self.stack.auxiliary_entries().enumerate() {
            writeln!(f, "auxv[{index:#x}].a_type={key:#x}")?;
            if TEXTS.contains(&key) && value != 0 {
                // SAFETY: entries of this kind point to terminated text that the kernel has put on the stack.
                let text = unsafe { CStr::from_ptr(value as *const c_char) };
                writeln!(f, "auxv[{index:#x}].a_val={}", Quoted(text.to_bytes()))?;
            } else {
                writeln!(f, "auxv[{index:#x}].a_val={value:#x}")?;
            }
        }
        Ok(())
    }

    fn processor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, kinds) = (self.cpu, &self.layout.cpu_kinds);
        let kind = match cpu.kind {
            CpuKind::Unknown => kinds.unknown,
            CpuKind::Intel => kinds.intel,
            CpuKind::Amd => kinds.amd,
            CpuKind::Zhaoxin => kinds.zhaoxin,
            CpuKind::Other => kinds.other,
        };
        let basic = [
            ("kind", kind),
            ("max_cpuid", cpu.max_cpuid),
            ("family", cpu.family),
            ("model", cpu.model),
            ("stepping", cpu.stepping),
        ];
        for (name, value) in basic {
            writeln!(f, "x86.cpu_features.basic.{name}={value:#x}")?;
        }
        for (index, leaf) in cpu.features.leaves.iter().enumerate() {
            for (what, registers) in [("cpuid", leaf.cpuid), ("active", leaf.active)] {
                for (register, value) in registers.iter().enumerate() {
                    writeln!(f, "x86.cpu_features.features[{index:#x}].{what}[{register:#x}]={value:#x}")?;
                }
            }
        }
        for (name, bit) in PREFERRED_NAMES {
            writeln!(f, "x86.cpu_features.preferred.{name}={:#x}", u8::from(cpu.preferred.has(*bit)))?;
        }
        for (name, value) in sizes(cpu) {
            writeln!(f, "x86.cpu_features.{name}={value:#x}")?;
        }
        Ok(())
    }
}

/// The sizes and thresholds in the order of glibc's report. What is not known of a cache is -1.
#[rustfmt::skip]
fn sizes(cpu: &CpuFeatures) -> [(&'static str, u64); 21] {
    let caches = &cpu.caches;
    [
        ("isa_1", cpu.isa_1.into()),
        ("xsave_state_size", cpu.xsave_state_size),
        ("xsave_state_full_size", cpu.xsave_state_full_size.into()),
        ("data_cache_size", cpu.data_cache_size),
        ("shared_cache_size", cpu.shared_cache_size),
        ("non_temporal_threshold", cpu.non_temporal_threshold),
        ("rep_movsb_threshold", cpu.rep_movsb_threshold),
        ("rep_movsb_stop_threshold", cpu.rep_movsb_stop_threshold),
        ("rep_stosb_threshold", cpu.rep_stosb_threshold),
        ("level1_icache_size", caches.level1_icache_size as u64),
        ("level1_icache_linesize", caches.level1_icache_linesize as u64),
        ("level1_dcache_size", caches.level1_dcache_size as u64),
        ("level1_dcache_assoc", caches.level1_dcache_assoc as u64),
        ("level1_dcache_linesize", caches.level1_dcache_linesize as u64),
        ("level2_cache_size", caches.level2_cache_size as u64),
        ("level2_cache_assoc", caches.level2_cache_assoc as u64),
        ("level2_cache_linesize", caches.level2_cache_linesize as u64),
        ("level3_cache_size", caches.level3_cache_size as u64),
        ("level3_cache_assoc", caches.level3_cache_assoc as u64),
        ("level3_cache_linesize", caches.level3_cache_linesize as u64),
        ("level4_cache_size", caches.level4_cache_size as u64),
    ]
}

fn kernel(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = sys::uname();
    let fields = [
        ("sysname", name.sysname()),
        ("nodename", name.nodename()),
        ("release", name.release()),
        ("version", name.version()),
        ("machine", name.machine()),
        ("domainname", name.domainname()),
    ];
    for (field, value) in fields {
        writeln!(f, "uname.{field}={}", Quoted(value.to_bytes()))?;
    }
    Ok(())
}

fn is_shown(name: &[u8]) -> bool {
    SHOWN_VARIABLES.contains(&name) || SHOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn text(f: &mut fmt::Formatter<'_>, name: &str, value: &[u8]) -> fmt::Result {
    writeln!(f, "{name}={}", Quoted(value))
}

fn number(f: &mut fmt::Formatter<'_>, name: &str, value: u64) -> fmt::Result {
    writeln!(f, "{name}={value:#x}")
}

/// Text in quotation marks, anything but printable ASCII as three digits.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for &byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => {
                    // As glibc 2.36 has it: a signed byte, and its highest digit twice.
                    let (high, low) = (((byte as i8) >> 6) & 7, byte & 7);
                    write!(f, "\\{high}{high}{low}")?;
                }
            }
        }
        f.write_char('"')
    }
}

/// The whole report.
pub fn report(diagnostics: &Diagnostics<'_>) -> String {
    alloc::format!("{diagnostics}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn texts_are_quoted_as_by_glibc() {
        assert_eq!(format!("{}", Quoted(b"x\"y\\z")), r#""x\"y\\z""#);
        assert_eq!(format!("{}", Quoted(b"\n\x01\xff\xc3\xa4")), r#""\002\001\777\773\664""#);
    }

    #[test]
    fn variables_of_the_library_are_shown() {
        assert!([&b"LC_"[..], b"LD_X", b"MALLOC_ARENA_MAX", b"TZ", b"GLIBC_TUNABLES"].iter().all(|n| is_shown(n)));
        assert!([&b"LC"[..], b"LANGUAGE", b"HOME", b"", b"TZX"].iter().all(|n| !is_shown(n)));
    }
}
