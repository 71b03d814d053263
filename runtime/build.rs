//! How the interpreter is linked: an ELF object that the kernel accepts as PT_INTERP and that needs nothing but itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=ld-seal.map");
    if std::env::var_os("CARGO_FEATURE_INTERPRETER").is_none() {
        return;
    }
    let map = format!("-Wl,--version-script={}/ld-seal.map", env!("CARGO_MANIFEST_DIR"));
    let flags = [
        "-nostdlib",
        "-nostartfiles",
        "-static-pie",
        "-Wl,-e,_start",
        "-Wl,-z,now",
        "-Wl,-z,relro",
        "-Wl,-z,text",
        "-Wl,-z,noexecstack",
        "-Wl,-z,separate-code",
        "-Wl,--hash-style=gnu",
        "-Wl,--build-id=sha1",
        "-Wl,--no-undefined",
        // Exceptions pass through calls that audit modules watch.
        "-Wl,--eh-frame-hdr",
        // libc.so.6 needs an object of this name, and versions of it.
        "-Wl,-soname,ld-linux-x86-64.so.2",
        "-Wl,--export-dynamic",
        // Nothing but valgrind's tools looks for it.
        "-Wl,--undefined=index",
        &map,
    ];
    for flag in flags {
        println!("cargo:rustc-link-arg-bin=ld-seal={flag}");
    }
}
