//! The structures and fields of glibc that the loader knows by name: one list, from which come both the types that hold
//! offsets and the description by which the tool `glibc-layouts` fills them from debug information.

use super::BitField;

/// How a field of a layout is to be found in debug information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member, present in every release.
    Member,
    /// A member that some releases lack.
    OptionalMember,
    /// A bit-field, present in every release.
    Bits,
    /// A bit-field that some releases lack.
    OptionalBits,
    /// The number of elements of a member that is an array.
    Length,
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct FieldSchema {
    /// Its name here.
    pub name: &'static str,
    /// Its name in glibc, nested members joined by dots.
    pub member: &'static str,
    /// What is recorded of it.
    pub kind: Kind,
    /// The size the member must have, in bytes (bit-fields: in bits); 0 when it differs between releases.
    pub size: usize,
}

/// A structure.
#[derive(Clone, Copy, Debug)]
pub struct StructSchema {
    /// The name of the type here.
    pub name: &'static str,
    /// The field of [`super::Layout`] that holds it.
    pub layout_field: &'static str,
    /// Whether some releases lack it.
    pub is_optional: bool,
    /// The tag or typedef in glibc.
    pub glibc: &'static str,
    /// Its fields.
    pub fields: &'static [FieldSchema],
}

macro_rules! field_type {
    (at) => { usize };
    (opt) => { Option<usize> };
    (bits) => { BitField };
    (optbits) => { Option<BitField> };
    (len) => { usize };
}

macro_rules! field_kind {
    (at) => {
        Kind::Member
    };
    (opt) => {
        Kind::OptionalMember
    };
    (bits) => {
        Kind::Bits
    };
    (optbits) => {
        Kind::OptionalBits
    };
    (len) => {
        Kind::Length
    };
}

macro_rules! field_doc {
    (len, $size:literal, $member:literal) => {
        concat!("Number of elements of `", $member, "`.")
    };
    (bits, $size:literal, $member:literal) => {
        concat!("Where `", $member, "` is (", $size, " bits).")
    };
    (optbits, $size:literal, $member:literal) => {
        concat!("Where `", $member, "` is (", $size, " bits), where there is one.")
    };
    (at, 0, $member:literal) => {
        concat!("Offset of `", $member, "`.")
    };
    (at, $size:literal, $member:literal) => {
        concat!("Offset of `", $member, "` (", $size, " bytes).")
    };
    (opt, 0, $member:literal) => {
        concat!("Offset of `", $member, "`, where there is one.")
    };
    (opt, $size:literal, $member:literal) => {
        concat!("Offset of `", $member, "` (", $size, " bytes), where there is one.")
    };
}

macro_rules! is_optional {
    (required) => {
        false
    };
    (optional) => {
        true
    };
}

/// Declares the structures: `layout_field: required Name = "glibc name" { field: kind(size) "member", ... }`, the kinds
/// being `at`, `opt`, `bits`, `optbits` and `len` for the variants of [`Kind`] in their order.
macro_rules! structures {
    ($($layout_field:ident: $presence:ident $name:ident = $glibc:literal { $($field:ident: $kind:ident($size:tt) $member:literal,)* })*) => {
        $(
            #[doc = concat!("Offsets in glibc's `", $glibc, "`.")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name {
                /// Size of the whole.
                pub size: usize,
                $(#[doc = field_doc!($kind, $size, $member)] pub $field: field_type!($kind),)*
            }
        )*

        /// Every structure with its fields, in the order of their declaration.
        pub const SCHEMA: &[StructSchema] = &[
            $(StructSchema {
                name: stringify!($name),
                layout_field: stringify!($layout_field),
                is_optional: is_optional!($presence),
                glibc: $glibc,
                fields: &[$(FieldSchema {
                    name: stringify!($field), member: $member, kind: field_kind!($kind), size: $size,
                },)*],
            },)*
        ];
    };
}

structures! {
    rtld_global: required RtldGlobal = "rtld_global" {
        dl_ns: at(0) "_dl_ns",
        dl_ns_len: len(0) "_dl_ns",
        dl_stack_prot_flags: opt(4) "_dl_stack_prot_flags",
        dl_nns: at(8) "_dl_nns",
        dl_load_lock: at(40) "_dl_load_lock",
        dl_load_write_lock: at(40) "_dl_load_write_lock",
        dl_load_tls_lock: opt(40) "_dl_load_tls_lock",
        dl_load_adds: at(8) "_dl_load_adds",
        dl_initfirst: at(8) "_dl_initfirst",
        dl_profile_map: at(8) "_dl_profile_map",
        dl_num_relocations: at(8) "_dl_num_relocations",
        dl_num_cache_relocations: at(8) "_dl_num_cache_relocations",
        dl_all_dirs: at(8) "_dl_all_dirs",
        dl_rtld_map: opt(0) "_dl_rtld_map",
        dl_rtld_auditstate: opt(256) "_dl_rtld_auditstate",
        dl_stack_flags: opt(4) "_dl_stack_flags",
        dl_tls_dtv_gaps: at(1) "_dl_tls_dtv_gaps",
        dl_tls_max_dtv_idx: at(8) "_dl_tls_max_dtv_idx",
        dl_tls_dtv_slotinfo_list: at(8) "_dl_tls_dtv_slotinfo_list",
        dl_tls_static_nelem: at(8) "_dl_tls_static_nelem",
        dl_tls_static_used: at(8) "_dl_tls_static_used",
        dl_tls_static_optional: at(8) "_dl_tls_static_optional",
        dl_initial_dtv: at(8) "_dl_initial_dtv",
        dl_tls_generation: at(8) "_dl_tls_generation",
        dl_scope_free_list: at(8) "_dl_scope_free_list",
        dl_stack_used: at(16) "_dl_stack_used",
        dl_stack_user: at(16) "_dl_stack_user",
        dl_stack_cache: at(16) "_dl_stack_cache",
        dl_stack_cache_actsize: at(8) "_dl_stack_cache_actsize",
        dl_in_flight_stack: at(8) "_dl_in_flight_stack",
        dl_stack_cache_lock: at(4) "_dl_stack_cache_lock",
    }

    link_namespaces: required LinkNamespaces = "link_namespaces" {
        ns_loaded: at(8) "_ns_loaded",
        ns_nloaded: at(4) "_ns_nloaded",
        ns_main_searchlist: at(8) "_ns_main_searchlist",
        ns_global_scope_alloc: at(4) "_ns_global_scope_alloc",
        ns_global_scope_pending_adds: at(4) "_ns_global_scope_pending_adds",
        libc_map: at(8) "libc_map",
        ns_unique_sym_table_lock: at(40) "_ns_unique_sym_table.lock",
        ns_unique_sym_table_entries: at(8) "_ns_unique_sym_table.entries",
        ns_unique_sym_table_size: at(8) "_ns_unique_sym_table.size",
        ns_unique_sym_table_n_elements: at(8) "_ns_unique_sym_table.n_elements",
        ns_unique_sym_table_free: at(8) "_ns_unique_sym_table.free",
        ns_debug: opt(0) "_ns_debug",
    }

    rtld_global_ro: required RtldGlobalRo = "rtld_global_ro" {
        dl_debug_mask: at(4) "_dl_debug_mask",
        dl_platform: at(8) "_dl_platform",
        dl_platformlen: at(8) "_dl_platformlen",
        dl_pagesize: at(8) "_dl_pagesize",
        dl_minsigstacksize: at(8) "_dl_minsigstacksize",
        dl_inhibit_cache: at(4) "_dl_inhibit_cache",
        dl_initial_searchlist: at(16) "_dl_initial_searchlist",
        dl_clktck: at(4) "_dl_clktck",
        dl_verbose: at(4) "_dl_verbose",
        dl_debug_fd: at(4) "_dl_debug_fd",
        dl_lazy: at(4) "_dl_lazy",
        dl_bind_not: at(4) "_dl_bind_not",
        dl_dynamic_weak: at(4) "_dl_dynamic_weak",
        dl_fpu_control: at(2) "_dl_fpu_control",
        dl_hwcap: at(8) "_dl_hwcap",
        dl_auxv: at(8) "_dl_auxv",
        dl_x86_cpu_features: at(0) "_dl_x86_cpu_features",
        dl_inhibit_rpath: at(8) "_dl_inhibit_rpath",
        dl_origin_path: at(8) "_dl_origin_path",
        dl_tls_static_size: at(8) "_dl_tls_static_size",
        dl_tls_static_align: at(8) "_dl_tls_static_align",
        dl_tls_static_surplus: at(8) "_dl_tls_static_surplus",
        dl_profile: at(8) "_dl_profile",
        dl_profile_output: at(8) "_dl_profile_output",
        dl_init_all_dirs: at(8) "_dl_init_all_dirs",
        dl_sysinfo_dso: at(8) "_dl_sysinfo_dso",
        dl_sysinfo_map: at(8) "_dl_sysinfo_map",
        dl_vdso_clock_gettime64: at(8) "_dl_vdso_clock_gettime64",
        dl_vdso_gettimeofday: at(8) "_dl_vdso_gettimeofday",
        dl_vdso_time: at(8) "_dl_vdso_time",
        dl_vdso_getcpu: at(8) "_dl_vdso_getcpu",
        dl_vdso_clock_getres_time64: at(8) "_dl_vdso_clock_getres_time64",
        dl_hwcap2: at(8) "_dl_hwcap2",
        dl_vdso_getrandom: opt(8) "_dl_vdso_getrandom",
        dl_dso_sort_algo: opt(4) "_dl_dso_sort_algo",
        dl_debug_printf: at(8) "_dl_debug_printf",
        dl_mcount: at(8) "_dl_mcount",
        dl_lookup_symbol_x: at(8) "_dl_lookup_symbol_x",
        dl_open: at(8) "_dl_open",
        dl_close: at(8) "_dl_close",
        dl_catch_error: at(8) "_dl_catch_error",
        dl_error_free: at(8) "_dl_error_free",
        dl_tls_get_addr_soft: at(8) "_dl_tls_get_addr_soft",
        dl_libc_freeres: opt(8) "_dl_libc_freeres",
        dl_find_object: opt(8) "_dl_find_object",
        dl_dlfcn_hook: at(8) "_dl_dlfcn_hook",
        dl_audit: at(8) "_dl_audit",
        dl_naudit: at(4) "_dl_naudit",
        dl_readonly_area: opt(8) "_dl_readonly_area",
    }

    link_map: required LinkMap = "link_map" {
        l_addr: at(8) "l_addr",
        l_name: at(8) "l_name",
        l_ld: at(8) "l_ld",
        l_next: at(8) "l_next",
        l_prev: at(8) "l_prev",
        l_real: at(8) "l_real",
        l_ns: at(8) "l_ns",
        l_libname: at(8) "l_libname",
        l_info: at(0) "l_info",
        l_info_len: len(0) "l_info",
        l_phdr: at(8) "l_phdr",
        l_entry: at(8) "l_entry",
        l_phnum: at(2) "l_phnum",
        l_ldnum: at(2) "l_ldnum",
        l_searchlist: at(16) "l_searchlist",
        l_symbolic_searchlist: at(16) "l_symbolic_searchlist",
        l_loader: at(8) "l_loader",
        l_versions: at(8) "l_versions",
        l_nversions: at(4) "l_nversions",
        l_nbuckets: at(4) "l_nbuckets",
        l_gnu_bitmask_idxbits: at(4) "l_gnu_bitmask_idxbits",
        l_gnu_shift: at(4) "l_gnu_shift",
        l_gnu_bitmask: at(8) "l_gnu_bitmask",
        l_gnu_buckets: at(8) "l_gnu_buckets",
        l_gnu_chain_zero: at(8) "l_gnu_chain_zero",
        l_direct_opencount: at(4) "l_direct_opencount",
        l_type: bits(2) "l_type",
        l_dt_relr_ref: optbits(1) "l_dt_relr_ref",
        l_relocated: bits(1) "l_relocated",
        l_init_called: bits(1) "l_init_called",
        l_global: bits(1) "l_global",
        l_main_map: optbits(1) "l_main_map",
        l_visited: optbits(1) "l_visited",
        l_map_used: optbits(1) "l_map_used",
        l_map_done: optbits(1) "l_map_done",
        l_phdr_allocated: bits(1) "l_phdr_allocated",
        l_soname_added: bits(1) "l_soname_added",
        l_faked: bits(1) "l_faked",
        l_need_tls_init: bits(1) "l_need_tls_init",
        l_auditing: bits(1) "l_auditing",
        l_audit_any_plt: bits(1) "l_audit_any_plt",
        l_removed: bits(1) "l_removed",
        l_contiguous: bits(1) "l_contiguous",
        l_free_initfini: bits(1) "l_free_initfini",
        l_ld_readonly: optbits(1) "l_ld_readonly",
        l_find_object_processed: optbits(1) "l_find_object_processed",
        l_nodelete_active: at(1) "l_nodelete_active",
        l_nodelete_pending: at(1) "l_nodelete_pending",
        l_property: bits(2) "l_property",
        l_x86_feature_1_and: at(4) "l_x86_feature_1_and",
        l_x86_isa_1_needed: at(4) "l_x86_isa_1_needed",
        l_1_needed: opt(4) "l_1_needed",
        l_rpath_dirs: at(16) "l_rpath_dirs",
        l_tls_in_slotinfo: optbits(1) "l_tls_in_slotinfo",
        l_reloc_result: at(8) "l_reloc_result",
        l_versyms: at(8) "l_versyms",
        l_origin: at(8) "l_origin",
        l_map_start: at(8) "l_map_start",
        l_map_end: at(8) "l_map_end",
        l_text_end: opt(8) "l_text_end",
        l_scope_mem: at(32) "l_scope_mem",
        l_scope_max: at(8) "l_scope_max",
        l_scope: at(8) "l_scope",
        l_local_scope: at(16) "l_local_scope",
        l_file_id: at(16) "l_file_id",
        l_runpath_dirs: at(16) "l_runpath_dirs",
        l_initfini: at(8) "l_initfini",
        l_init_called_next: opt(8) "l_init_called_next",
        l_reldeps: at(8) "l_reldeps",
        l_reldepsmax: at(4) "l_reldepsmax",
        l_used: at(4) "l_used",
        l_feature_1: at(4) "l_feature_1",
        l_flags_1: at(4) "l_flags_1",
        l_flags: at(4) "l_flags",
        l_idx: at(4) "l_idx",
        l_mach_plt: at(8) "l_mach.plt",
        l_mach_gotplt: at(8) "l_mach.gotplt",
        l_mach_tlsdesc_table: at(8) "l_mach.tlsdesc_table",
        l_tls_initimage: at(8) "l_tls_initimage",
        l_tls_initimage_size: at(8) "l_tls_initimage_size",
        l_tls_blocksize: at(8) "l_tls_blocksize",
        l_tls_align: at(8) "l_tls_align",
        l_tls_firstbyte_offset: at(8) "l_tls_firstbyte_offset",
        l_tls_offset: at(8) "l_tls_offset",
        l_tls_modid: at(8) "l_tls_modid",
        l_tls_dtor_count: at(8) "l_tls_dtor_count",
        l_relro_addr: at(8) "l_relro_addr",
        l_relro_size: at(8) "l_relro_size",
        l_serial: at(8) "l_serial",
    }

    pthread: required Pthread = "pthread" {
        header_tcb: at(8) "header.tcb",
        header_dtv: at(8) "header.dtv",
        header_self: at(8) "header.self",
        header_multiple_threads: at(4) "header.multiple_threads",
        header_gscope_flag: at(4) "header.gscope_flag",
        header_sysinfo: at(8) "header.sysinfo",
        header_stack_guard: at(8) "header.stack_guard",
        header_pointer_guard: at(8) "header.pointer_guard",
        header_feature_1: at(4) "header.feature_1",
        header_ssp_base: at(8) "header.ssp_base",
        list: at(16) "list",
        tid: at(4) "tid",
        robust_prev: at(8) "robust_prev",
        robust_head_list: at(8) "robust_head.list",
        robust_head_futex_offset: at(8) "robust_head.futex_offset",
        robust_head_list_op_pending: at(8) "robust_head.list_op_pending",
        cleanup: at(8) "cleanup",
        cleanup_jmp_buf: at(8) "cleanup_jmp_buf",
        cancelhandling: at(4) "cancelhandling",
        flags: at(4) "flags",
        specific_1stblock: at(512) "specific_1stblock",
        specific_1stblock_len: len(0) "specific_1stblock",
        specific: at(256) "specific",
        specific_used: at(1) "specific_used",
        report_events: at(1) "report_events",
        user_stack: opt(1) "user_stack",
        stopped_start: at(1) "stopped_start",
        setup_failed: at(4) "setup_failed",
        stack_mode: opt(4) "stack_mode",
        lock: at(4) "lock",
        setxid_futex: at(4) "setxid_futex",
        joinid: opt(8) "joinid",
        joinstate: opt(4) "joinstate",
        result: at(8) "result",
        schedparam_sched_priority: at(4) "schedparam.sched_priority",
        schedpolicy: at(4) "schedpolicy",
        start_routine: at(8) "start_routine",
        arg: at(8) "arg",
        eventbuf: at(24) "eventbuf",
        nextevent: at(8) "nextevent",
        stackblock: at(8) "stackblock",
        stackblock_size: at(8) "stackblock_size",
        guardsize: at(8) "guardsize",
        sigmask: at(0) "sigmask",
        rtld_catch: opt(8) "rtld_catch",
        tls_state: at(16) "tls_state",
        getrandom_buf: opt(8) "getrandom_buf",
        rseq_area: opt(32) "rseq_area",
    }

    cpu_features: required CpuFeaturesLayout = "cpu_features" {
        basic_kind: at(4) "basic.kind",
        basic_max_cpuid: at(4) "basic.max_cpuid",
        basic_family: at(4) "basic.family",
        basic_model: at(4) "basic.model",
        basic_stepping: at(4) "basic.stepping",
        features: at(0) "features",
        features_len: len(0) "features",
        preferred: at(4) "preferred",
        isa_1: at(4) "isa_1",
        xsave_state_size: at(8) "xsave_state_size",
        xsave_state_full_size: at(4) "xsave_state_full_size",
        data_cache_size: at(8) "data_cache_size",
        shared_cache_size: at(8) "shared_cache_size",
        non_temporal_threshold: at(8) "non_temporal_threshold",
        rep_movsb_threshold: at(8) "rep_movsb_threshold",
        rep_movsb_stop_threshold: at(8) "rep_movsb_stop_threshold",
        rep_stosb_threshold: at(8) "rep_stosb_threshold",
        level1_icache_size: at(8) "level1_icache_size",
        level1_icache_linesize: at(8) "level1_icache_linesize",
        memset_non_temporal_threshold: opt(8) "memset_non_temporal_threshold",
        level1_dcache_size: at(8) "level1_dcache_size",
        level1_dcache_assoc: at(8) "level1_dcache_assoc",
        level1_dcache_linesize: at(8) "level1_dcache_linesize",
        level2_cache_size: at(8) "level2_cache_size",
        level2_cache_assoc: at(8) "level2_cache_assoc",
        level2_cache_linesize: at(8) "level2_cache_linesize",
        level3_cache_size: at(8) "level3_cache_size",
        level3_cache_assoc: at(8) "level3_cache_assoc",
        level3_cache_linesize: at(8) "level3_cache_linesize",
        level4_cache_size: at(8) "level4_cache_size",
        cachesize_non_temporal_divisor: opt(8) "cachesize_non_temporal_divisor",
    }

    r_debug: required RDebug = "r_debug" {
        r_version: at(4) "r_version",
        r_map: at(8) "r_map",
        r_brk: at(8) "r_brk",
        r_state: at(4) "r_state",
        r_ldbase: at(8) "r_ldbase",
    }

    r_debug_extended: optional RDebugExtended = "r_debug_extended" {
        r_next: at(8) "r_next",
    }

    dlfcn_hook: required DlfcnHook = "dlfcn_hook" {
        dlopen: at(8) "dlopen",
        dlclose: at(8) "dlclose",
        dlsym: at(8) "dlsym",
        dlvsym: at(8) "dlvsym",
        dlerror: at(8) "dlerror",
        dladdr: at(8) "dladdr",
        dladdr1: at(8) "dladdr1",
        dlinfo: at(8) "dlinfo",
        dlmopen: at(8) "dlmopen",
        libc_dlopen_mode: at(8) "libc_dlopen_mode",
        libc_dlsym: at(8) "libc_dlsym",
        libc_dlvsym: at(8) "libc_dlvsym",
        libc_dlclose: at(8) "libc_dlclose",
    }

    dl_find_object: optional DlFindObject = "dl_find_object" {
        dlfo_flags: at(8) "dlfo_flags",
        dlfo_map_start: at(8) "dlfo_map_start",
        dlfo_map_end: at(8) "dlfo_map_end",
        dlfo_link_map: at(8) "dlfo_link_map",
        dlfo_eh_frame: at(8) "dlfo_eh_frame",
        dlfo_sframe: opt(8) "dlfo_sframe",
    }

    dl_exception: required DlException = "dl_exception" {
        objname: at(8) "objname",
        errstring: at(8) "errstring",
        message_buffer: at(8) "message_buffer",
    }

    dtv: required Dtv = "dtv_t" {
        counter: at(8) "counter",
        pointer_val: at(8) "pointer.val",
        pointer_to_free: at(8) "pointer.to_free",
    }

    dtv_slotinfo_list: required DtvSlotinfoList = "dtv_slotinfo_list" {
        len: at(8) "len",
        next: at(8) "next",
        slotinfo: at(0) "slotinfo",
    }

    dtv_slotinfo: required DtvSlotinfo = "dtv_slotinfo" {
        gen: at(8) "gen",
        map: at(8) "map",
    }

    scope_elem: required ScopeElem = "r_scope_elem" {
        r_list: at(8) "r_list",
        r_nlist: at(4) "r_nlist",
    }

    found_version: required FoundVersion = "r_found_version" {
        name: at(8) "name",
        hash: at(4) "hash",
        hidden: at(4) "hidden",
        filename: at(8) "filename",
    }

    libname_list: required LibnameList = "libname_list" {
        name: at(8) "name",
        next: at(8) "next",
        dont_free: at(4) "dont_free",
    }

    audit_ifaces: required AuditIfaces = "audit_ifaces" {
        activity: at(8) "activity",
        objsearch: at(8) "objsearch",
        objopen: at(8) "objopen",
        preinit: at(8) "preinit",
        symbind64: at(8) "symbind64",
        x86_64_gnu_pltenter: at(8) "x86_64_gnu_pltenter",
        x86_64_gnu_pltexit: at(8) "x86_64_gnu_pltexit",
        objclose: at(8) "objclose",
        next: at(8) "next",
    }

    mutex: required Mutex = "__pthread_mutex_s" {
        lock: at(4) "__lock",
        count: at(4) "__count",
        owner: at(4) "__owner",
        nusers: at(4) "__nusers",
        kind: at(4) "__kind",
    }

    list_head: required ListHead = "list_head" {
        next: at(8) "next",
        prev: at(8) "prev",
    }
}

/// A `_thread_db_*` descriptor that libc.so.6 exports for libthread_db, and what it describes.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorSchema {
    /// The symbol.
    pub symbol: &'static str,
    /// The tag or typedef in glibc.
    pub glibc: &'static str,
    /// The member, or `None` for the size of the whole.
    pub member: Option<&'static str>,
}

macro_rules! descriptors {
    ($($symbol:literal: $glibc:literal $($member:literal)?,)*) => {
        /// The descriptors that tell one snapshot from another and that every libc.so.6 since 2.34 has.
        pub const DESCRIPTORS: &[DescriptorSchema] = &[
            $(DescriptorSchema { symbol: $symbol, glibc: $glibc, member: descriptors!(@member $($member)?) },)*
        ];
    };
    (@member) => { None };
    (@member $member:literal) => { Some($member) };
}

descriptors! {
    "_thread_db_link_map_l_tls_modid": "link_map" "l_tls_modid",
    "_thread_db_link_map_l_tls_offset": "link_map" "l_tls_offset",
    "_thread_db_rtld_global__dl_tls_dtv_slotinfo_list": "rtld_global" "_dl_tls_dtv_slotinfo_list",
    "_thread_db_rtld_global__dl_stack_used": "rtld_global" "_dl_stack_used",
    "_thread_db_rtld_global__dl_stack_user": "rtld_global" "_dl_stack_user",
    "_thread_db_sizeof_pthread": "pthread",
    "_thread_db_pthread_dtvp": "pthread" "header.dtv",
    "_thread_db_pthread_list": "pthread" "list",
    "_thread_db_pthread_tid": "pthread" "tid",
    "_thread_db_pthread_cancelhandling": "pthread" "cancelhandling",
    "_thread_db_pthread_specific": "pthread" "specific",
    "_thread_db_pthread_report_events": "pthread" "report_events",
    "_thread_db_pthread_schedparam_sched_priority": "pthread" "schedparam.sched_priority",
    "_thread_db_pthread_schedpolicy": "pthread" "schedpolicy",
    "_thread_db_pthread_start_routine": "pthread" "start_routine",
    "_thread_db_pthread_eventbuf": "pthread" "eventbuf",
    "_thread_db_pthread_nextevent": "pthread" "nextevent",
    "_thread_db_dtv_t_counter": "dtv_t" "counter",
    "_thread_db_dtv_t_pointer_val": "dtv_t" "pointer.val",
    "_thread_db_sizeof_dtv_slotinfo_list": "dtv_slotinfo_list",
    "_thread_db_dtv_slotinfo_list_len": "dtv_slotinfo_list" "len",
    "_thread_db_dtv_slotinfo_list_next": "dtv_slotinfo_list" "next",
    "_thread_db_sizeof_dtv_slotinfo": "dtv_slotinfo",
    "_thread_db_dtv_slotinfo_gen": "dtv_slotinfo" "gen",
    "_thread_db_dtv_slotinfo_map": "dtv_slotinfo" "map",
}

/// The fields of [`super::CpuKinds`], and the enumerators of glibc whose values they hold.
pub const CPU_KINDS: &[(&str, &str)] = &[
    ("unknown", "arch_kind_unknown"),
    ("intel", "arch_kind_intel"),
    ("amd", "arch_kind_amd"),
    ("zhaoxin", "arch_kind_zhaoxin"),
    ("other", "arch_kind_other"),
];
