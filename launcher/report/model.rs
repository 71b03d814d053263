//! The report as data: what the tables show and the JSON holds.

use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// The seals of one process.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this shape ([`VERSION`]).
    pub version: u32,
    /// The process.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// Whether its loader is `ld-seal.so`.
    pub under_ld_seal: bool,
    /// `glibc.rtld.seal`, when it can be known.
    pub level: Option<u8>,
    /// Where the level is known from, or why it isn't.
    pub level_source: &'static str,
    /// What this kernel offers.
    pub kernel: Kernel,
    /// What is mapped, object by object.
    pub objects: Vec<Group>,
    /// The mappings that the kernel makes by itself.
    pub system: Vec<System>,
    /// All of it, counted.
    pub summary: Summary,
    /// Whether it is sealed as one may require.
    pub verdict: Verdict,
    /// What seals don't protect from on this kernel.
    pub limits: Vec<Limit>,
    /// What seals don't protect from.
    pub not_stopped: &'static str,
}

/// The version of the JSON: it changes when something in it changes its meaning or goes, not when something is added.
pub const VERSION: u32 = 1;

/// A mapping that the kernel makes.
#[derive(Debug, Serialize)]
pub struct System {
    /// The kernel's name for it.
    pub name: &'static str,
    /// How it is sealed.
    pub state: SystemState,
    /// Why it is not, if it is there and not sealed.
    pub why_not: Option<String>,
}

/// How a mapping of the kernel's is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemState {
    /// The process has none.
    Absent,
    /// The kernel seals it in every process (CONFIG_MSEAL_SYSTEM_MAPPINGS).
    SealedByKernel,
    /// Sealed, and not by the kernel: by the loader.
    SealedByLoader,
    /// It could be sealed and is not.
    Open,
    /// The kernel refuses to seal it.
    NotSealable,
    /// The kernel does not say whether it is sealed.
    Unknown,
}

impl fmt::Display for SystemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SystemState::Absent => "absent",
            SystemState::SealedByKernel => "sealed by the kernel",
            SystemState::SealedByLoader => "sealed by ld-seal.so",
            SystemState::Open => "open",
            SystemState::NotSealable => "can't be sealed",
            SystemState::Unknown => "unknown",
        })
    }
}

/// Whether a process is sealed as one may require: `--require`. The bytes are of objects that stay for ever.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// How many objects stay for ever.
    pub objects: usize,
    /// Code that is not sealed, the vDSO's included.
    pub open_code: u64,
    /// Read-only data and RELRO that are not sealed.
    pub open_read_only: u64,
    /// Anything else of an image that is not sealed or not mapped.
    pub open_other: u64,
    /// Executable memory that belongs to no object.
    pub unknown_code: u64,
    /// Memory of which the kernel does not say whether it is sealed.
    pub unknown_seals: u64,
    /// All code is sealed.
    pub code: bool,
    /// All code, read-only data and RELRO are sealed.
    pub relro: bool,
    /// Every byte of every image is sealed.
    pub all: bool,
}

/// Something that seals don't protect from.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// What it is.
    pub what: &'static str,
    /// How it is here.
    pub here: String,
}

/// Bytes of one kind.
#[derive(Debug, Serialize)]
pub struct KindTotal {
    /// The kind.
    pub kind: Kind,
    /// Bytes of address space.
    pub mapped_bytes: u64,
    /// Bytes of those that are known to be sealed.
    pub sealed_bytes: u64,
}

/// What the running kernel offers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Kernel {
    /// `mseal(2)` exists: Linux 6.10 or newer, 64 bits.
    pub mseal: bool,
    /// The kernel seals `[vdso]` and its kin by itself: CONFIG_MSEAL_SYSTEM_MAPPINGS.
    pub seals_system_mappings: bool,
    /// It says in smaps what is sealed. Where it does not, or that can't be tried, nothing is known to be open.
    pub shows_seals: bool,
}

/// An object, or memory of one sort that belongs to none.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The path, or a name in brackets.
    pub name: String,
    /// What it is in the process.
    pub role: Role,
    /// What was added to the file's addresses; objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<Address>,
    /// Whether it stays for ever, and so is to be sealed.
    pub covered: bool,
    /// Bytes of address space.
    pub mapped_bytes: u64,
    /// Bytes of those that are known to be sealed.
    pub sealed_bytes: u64,
    /// Bytes between its first and its last page that are not mapped.
    pub unmapped_bytes: u64,
    /// The same by kind.
    pub kinds: Vec<KindTotal>,
    /// Whether it opts out of sealing by a note of its own.
    pub opts_out: bool,
    /// Its memory, by address.
    pub regions: Vec<Region>,
}

impl Group {
    /// Without memory yet.
    pub fn new(name: String, role: Role, bias: Option<Address>) -> Group {
        Group {
            name,
            role,
            bias,
            covered: false,
            mapped_bytes: 0,
            sealed_bytes: 0,
            unmapped_bytes: 0,
            kinds: Vec::new(),
            opts_out: false,
            regions: Vec::new(),
        }
    }

    /// Adds memory.
    pub fn add(&mut self, region: Region) {
        let sealed = if region.sealed == Some(true) { region.size } else { 0 };
        self.mapped_bytes += region.size;
        self.sealed_bytes += sealed;
        match self.kinds.iter_mut().find(|total| total.kind == region.kind) {
            Some(total) => {
                total.mapped_bytes += region.size;
                total.sealed_bytes += sealed;
            }
            None => {
                self.kinds.push(KindTotal { kind: region.kind, mapped_bytes: region.size, sealed_bytes: sealed });
            }
        }
        self.regions.push(region);
    }
}

/// Memory of one kind, in one mapping.
#[derive(Debug, Serialize)]
pub struct Region {
    /// The first address.
    pub start: Address,
    /// The address after the last.
    pub end: Address,
    /// Bytes.
    pub size: u64,
    /// As in `/proc/PID/maps`, e.g. `r-xp`.
    pub protections: String,
    /// What it is for.
    pub kind: Kind,
    /// The file whose pages these are; None for anonymous memory.
    pub file: Option<String>,
    /// Whether it is sealed; None where the kernel does not say so of what is.
    pub sealed: Option<bool>,
    /// Why it is not sealed, as far as that can be seen from outside.
    pub why_not: Option<String>,
}

impl Region {
    /// The addresses.
    pub fn range(&self) -> Range<u64> {
        self.start.0..self.end.0
    }
}

/// An address; JSON has no integers of 64 bits, so it is text there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Executable part of an object.
    Text,
    /// Part of an object that is read-only from the beginning.
    Rodata,
    /// Part of an object that is read-only after relocation.
    Relro,
    /// Slots of the PLT and nothing else; read-only at level 2.
    Got,
    /// Slots of the PLT beside writable data.
    GotShared,
    /// Writable part of an object, with bytes of the file.
    Data,
    /// Writable part of an object, zero at first.
    Bss,
    /// Part of an object that asks to stay open: PT_GNU_MUTABLE.
    Mutable,
    /// Between two segments of an object.
    Gap,
    /// The code that the kernel lends.
    Vdso,
    /// The data of that code.
    Vvar,
    /// Its predecessor, at a fixed address.
    Vsyscall,
    /// Instructions that the kernel executes out of line for uprobes.
    Uprobes,
    /// The break area.
    Heap,
    /// The main thread's stack.
    Stack,
    /// A file that is no object of the loader's.
    MappedFile,
    /// Memory without file and name: thread stacks, TLS blocks, malloc's arenas, the loader's own.
    Anonymous,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Text => "text",
            Kind::Rodata => "rodata",
            Kind::Relro => "relro",
            Kind::Got => "got",
            Kind::GotShared => "got-shared",
            Kind::Data => "data",
            Kind::Bss => "bss",
            Kind::Mutable => "mutable",
            Kind::Gap => "gap",
            Kind::Vdso => "vdso",
            Kind::Vvar => "vvar",
            Kind::Vsyscall => "vsyscall",
            Kind::Uprobes => "uprobes",
            Kind::Heap => "heap",
            Kind::Stack => "stack",
            Kind::MappedFile => "mapped file",
            Kind::Anonymous => "anonymous",
        })
    }
}

/// What a group is in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The program.
    Executable,
    /// The dynamic loader.
    Interpreter,
    /// Any other object.
    Library,
    /// Mapped by the kernel: vDSO, vvar, vsyscall.
    Kernel,
    /// None of the loader's business.
    Other,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Executable => "executable",
            Role::Interpreter => "interpreter",
            Role::Library => "library",
            Role::Kernel => "kernel",
            Role::Other => "other",
        })
    }
}

/// Counts over a process.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Bytes of address space, vsyscall excepted.
    pub mapped_bytes: u64,
    /// Bytes of those that are known to be sealed.
    pub sealed_bytes: u64,
    /// Bytes in images of objects.
    pub object_bytes: u64,
    /// Bytes of those that are known to be sealed.
    pub sealed_object_bytes: u64,
    /// Mappings.
    pub mappings: usize,
    /// Sealed mappings.
    pub sealed_mappings: usize,
}

/// What seals don't protect from, in a paragraph.
pub const NOT_STOPPED: &str = "\
A seal forbids munmap, mremap, mprotect, pkey_mprotect, MAP_FIXED over the memory, and madvise calls that discard anonymous \
memory which can't be written to. It does not stop: stores to memory that is writable; writes through /proc/PID/mem \
(/proc/self/mem included) and ptrace; madvise MADV_DONTNEED, MADV_DONTFORK and MADV_GUARD_INSTALL on file-backed or writable \
memory, and MADV_DONTFORK on the whole vDSO or vvar, which a child is then without; writing to or truncating the file behind a \
mapping; uprobes. A seal is inherited by fork and gone after exec.";
