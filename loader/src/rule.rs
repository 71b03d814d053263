//! Rules of the dynamic linker that a build for testing the conformance harness can break.
//!
//! The harness is trusted because it notices a loader that does something wrong. With the feature `mutants` a loader is built that can do so:
//! its file holds a mark, and whoever changes the byte behind the mark breaks one rule. Without the feature every rule holds, and the
//! questions below cost nothing.

macro_rules! rules {
    ($($variant:ident: $area:literal, $what:literal;)*) => {
        /// A rule, by what it says.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Rule {
            $(#[doc = $what] $variant,)*
        }

        /// All rules: each with the area of the harness whose cases must notice that it is broken, and what it says.
        pub const RULES: &[(Rule, &str, &str)] = &[$((Rule::$variant, $area, $what),)*];
    };
}

rules! {
    ProgramInterposes: "symbols", "the program's definitions are found before the libraries'";
    WeakUndefinedIsNull: "symbols", "an undefined weak reference is null";
    ProtectedBindsLocally: "symbols", "an object's references to its protected symbols bind to them";
    SymbolicFirst: "symbols", "DT_SYMBOLIC: an object looks into itself first";
    DynamicWeak: "symbols", "with LD_DYNAMIC_WEAK a weak definition gives way";
    UniqueIsUnique: "symbols", "STB_GNU_UNIQUE: one definition in the process";
    VersionsMatch: "versions", "a versioned reference takes no other version";
    OldestForUnversioned: "versions", "a reference without version takes the oldest definition";
    HiddenVersions: "versions", "dlsym takes no hidden version";
    VersionsChecked: "versions", "a version that is missing is an error";
    CopyRelocation: "relocations", "R_X86_64_COPY copies";
    RelrBitmaps: "relocations", "DT_RELR: bitmaps stand for words";
    OverflowChecked: "relocations", "a value of 32 bits must fit";
    SizeAddend: "relocations", "R_X86_64_SIZE64 has an addend";
    IfuncCalled: "ifunc", "the value of an IFUNC symbol is what its resolver answers";
    TlsImage: "tls", "a thread's block begins as the module's image";
    TlsAlignment: "tls", "a thread's block is aligned";
    TlsSurplus: "tls", "there is room for opened modules with initial-exec TLS";
    DependenciesFirst: "order", "dependencies are initialised first";
    InitFirst: "order", "DF_1_INITFIRST is initialised first";
    DestructorsAtExit: "order", "libraries are finalised at exit";
    RunpathEndsRpath: "search", "DT_RPATH is ignored where there is a DT_RUNPATH";
    RpathInherited: "search", "the DT_RPATH of who needs an object counts for what it needs";
    LibraryPathFirst: "search", "LD_LIBRARY_PATH goes before DT_RUNPATH";
    OriginExpanded: "search", "$ORIGIN is the object's directory";
    NoDefaultDirectories: "search", "DF_1_NODEFLIB leaves the default directories out";
    PreloadedFirst: "preload", "preloaded objects are searched first";
    LibraryPathInSecureMode: "secure", "secure execution ignores LD_LIBRARY_PATH";
    VariablesInSecureMode: "secure", "secure execution removes variables";
    InhibitRpath: "search", "--inhibit-rpath";
    Argv0: "options", "--argv0";
    TunableBounds: "tunables", "a tunable keeps within its bounds";
    LastTunableCounts: "tunables", "the last of several items counts";
    ExecutableStack: "stacks", "PT_GNU_STACK makes stacks executable";
    SegmentAlignment: "mapping", "p_align above a page is honoured";
    SegmentProtection: "mapping", "a segment that is not PF_X is not executable";
    RelroProtected: "relro", "PT_GNU_RELRO becomes read-only";
    UnwinderInformed: "unwinding", "the unwinder is told of opened objects";
    ChangesAnnounced: "debugger", "changes of the list are announced";
    CountedOpens: "dl", "an object is unloaded when it is closed as often as it was opened";
    NextIsBehind: "dl", "RTLD_NEXT looks behind the caller";
    GlobalPromotion: "dl", "RTLD_GLOBAL makes symbols visible to all";
    ThreadDestructorsHold: "threads", "an object stays while its thread-local destructors have to run";
    BindNow: "calls", "LD_BIND_NOW binds everything at start-up";
    ElfHeaderChecked: "malformed", "what the ELF header says is checked";
}

/// Whether a rule holds in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn holds(_rule: Rule) -> bool {
    true
}

/// Whether a rule holds in this file.
#[cfg(feature = "mutants")]
pub fn holds(rule: Rule) -> bool {
    // SAFETY: a valid, aligned byte; it is read as it lies in the file, whatever the compiler knows of it.
    unsafe { core::ptr::read_volatile(&MARK[MARK.len() - 1]) != rule as u8 + 1 }
}

/// The mark in the file. The byte behind the text is 0, or one more than the number of the rule that is broken.
#[cfg(feature = "mutants")]
#[used]
static MARK: [u8; TEXT.len() + 1] = {
    let mut mark = [0; TEXT.len() + 1];
    let mut at = 0;
    while at < TEXT.len() {
        mark[at] = TEXT[at];
        at += 1;
    }
    mark
};

/// What precedes the byte that names the broken rule.
pub const TEXT: &[u8] = b"\x7fthe rule that this loader breaks is number";
