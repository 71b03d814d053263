//! The search order here and that of the system's ld.so: the same files in the same order.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use loader::search::directories::{Directories, SearchList};
use loader::search::dst::Tokens;
use loader::search::hwcaps::Hwcaps;
use loader::search::lookup::{Candidate, CommonPaths, Lookup, ObjectPaths};
use loader::search::path::{split_preload, Layout, LAYOUTS};
use rustix::io::Errno;
use support::{argument, have, searches, SystemLoader, LD_SO};

/// Every file that a lookup proposes when all directories exist and no file does; `None` is the cache.
fn everything<'p>(
    name: &'p [u8],
    chain: &[&'p ObjectPaths],
    executable: &'p ObjectPaths,
    common: &'p CommonPaths,
    directories: &mut Directories,
) -> Vec<Option<Vec<u8>>> {
    walk(name, chain, executable, common, directories, |_| true)
}

fn walk<'p>(
    name: &'p [u8],
    chain: &[&'p ObjectPaths],
    executable: &'p ObjectPaths,
    common: &'p CommonPaths,
    directories: &mut Directories,
    mut exists: impl FnMut(&[u8]) -> bool,
) -> Vec<Option<Vec<u8>>> {
    let mut lookup = Lookup::new(name, chain.iter().copied(), Some(executable), common);
    let mut buffer = Vec::new();
    let mut files = Vec::new();
    while let Some(candidate) = lookup.next(directories, &mut buffer) {
        match candidate {
            Candidate::Probe => lookup.answer(directories, exists(&buffer).then_some(()).ok_or(Errno::NOENT)),
            Candidate::File { .. } => files.push(Some(buffer.clone())),
            Candidate::Cache { .. } => files.push(None),
            Candidate::Directory(_) => {}
        }
    }
    files
}

/// glibc tries a subdirectory twice where the platform has the name of a capability.
fn without_repetitions(files: &[Option<Vec<u8>>]) -> Vec<Option<Vec<u8>>> {
    let mut once = files.to_vec();
    once.dedup();
    once
}

/// Equality that shows the first difference only: the lists are long.
fn assert_same(ours: &[Option<Vec<u8>>], theirs: &[Option<Vec<u8>>], what: &str) {
    let text = |file: Option<&Option<Vec<u8>>>| match file {
        Some(Some(path)) => String::from_utf8_lossy(path).into_owned(),
        Some(None) => "the cache".to_owned(),
        None => "the end".to_owned(),
    };
    for index in 0..ours.len().max(theirs.len()) {
        assert_eq!(text(ours.get(index)), text(theirs.get(index)), "number {index} of {what}");
    }
}

fn layout(system: &SystemLoader) -> Option<&'static Layout> {
    let known = LAYOUTS.iter().find(|layout| layout.lib == system.dst_lib().as_bytes());
    if known.is_none() {
        eprintln!("SKIPPED: this system's directories are of no known layout");
    }
    known
}

fn common(layout: &Layout, directories: &mut Directories) -> CommonPaths {
    CommonPaths { default: directories.list(layout.directories), ..CommonPaths::default() }
}

#[test]
fn the_layout_is_this_systems() {
    let Some(system) = SystemLoader::find() else { return };
    let Some(layout) = layout(&system) else { return };
    let directories: Vec<&str> = layout.directories.iter().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(directories, system.system_dirs());
}

#[test]
fn library_path_and_hwcaps_options_give_the_files_that_ld_so_tries() {
    let Some(system) = SystemLoader::find() else { return };
    let Some(layout) = layout(&system) else { return };
    let paths: [&[u8]; 8] = [
        b"",
        b"/A",
        b":",
        b"/A:/B//;:rel/;/A/:///:/A",
        b"$ORIGIN:${LIB}:$PLATFORM/x:$LIBx:${LIB:${ORIGIN}x:/q$$ORIGIN",
        b"$ORIGIN/../lib:/x/$LIB/$PLATFORM:$ORIGINx:$ORIGIN_:$ORIGIN-",
        b"/a b:$:${}:{ORIGIN}:$origin:$$",
        b";;",
    ];
    let hwcaps_options = [
        (None, None),
        (Some(&b"x86-64-v3:foo::foo:a/b"[..]), Some(&b"x86-64-v2:x86-64-v3"[..])),
        (None, Some(b"")),
        (Some(b""), Some(b"::x86-64-v4:")),
        (Some(b"new"), Some(b"none")),
    ];
    for path in paths {
        for (prepend, mask) in hwcaps_options {
            let mut command = Command::new(LD_SO);
            command.env_remove("LD_LIBRARY_PATH").env("LD_DEBUG", "libs").args(["--preload", "libnosuch.so.7"]);
            command.arg("--library-path").arg(argument(path));
            prepend.map(|list| command.arg("--glibc-hwcaps-prepend").arg(argument(list)));
            mask.map(|list| command.arg("--glibc-hwcaps-mask").arg(argument(list)));
            let output = command.args(["--list", "/bin/true"]).output().unwrap();
            let theirs = &searches(&output)[0];
            assert_eq!(theirs.name, b"libnosuch.so.7");

            let machine = system.machine();
            let mut directories = Directories::new(&Hwcaps::new(machine, prepend, mask));
            let tokens =
                Tokens { origin: Some(b"/bin"), platform: machine.platform, layout, secure: false, executable: true };
            let mut common = common(layout, &mut directories);
            common.library_path = directories.library_path(path, &tokens);
            let executable = ObjectPaths::default();
            let ours = everything(b"libnosuch.so.7", &[&executable], &executable, &common, &mut directories);
            assert_same(
                &without_repetitions(&ours),
                &without_repetitions(&theirs.tried),
                &String::from_utf8_lossy(path),
            );
        }
    }
}

/// How one object of the chain is linked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    None,
    Rpath(&'static str),
    Runpath(&'static str),
    /// DT_RUNPATH and DF_1_NODEFLIB.
    RunpathOnly(&'static str),
}

impl Link {
    fn options(self) -> Vec<String> {
        match self {
            Link::None => vec![],
            Link::Rpath(path) => vec!["-Wl,--disable-new-dtags".into(), format!("-Wl,-rpath,{path}")],
            Link::Runpath(path) => vec!["-Wl,--enable-new-dtags".into(), format!("-Wl,-rpath,{path}")],
            Link::RunpathOnly(path) => [Link::Runpath(path).options(), vec!["-Wl,-z,nodefaultlib".into()]].concat(),
        }
    }

    fn paths(self, directories: &mut Directories, tokens: &Tokens<'_>) -> ObjectPaths {
        match self {
            Link::None => ObjectPaths::default(),
            Link::Rpath(path) => {
                ObjectPaths { rpath: directories.rpath(path.as_bytes(), tokens), ..ObjectPaths::default() }
            }
            Link::Runpath(path) | Link::RunpathOnly(path) => ObjectPaths {
                runpath: directories.rpath(path.as_bytes(), tokens),
                has_runpath: true,
                no_default: matches!(self, Link::RunpathOnly(_)),
                ..ObjectPaths::default()
            },
        }
    }
}

/// Links an executable that needs liba.so, which needs libb.so, which needs libnosuch.so.7; the last is removed.
fn link_chain(directory: &Path, chain: [Link; 3]) {
    let [executable, first, second] = chain;
    for subdirectory in ["A", "B", "E", "e"] {
        std::fs::create_dir_all(directory.join(subdirectory)).unwrap();
    }
    let link = |output: &str, needed: &str, path: Link, shared: bool| {
        let mut command = Command::new("cc");
        command.current_dir(directory).args(["-o", output, "-L.", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]);
        command.args(if shared { vec!["-shared", "-nostdlib"] } else { vec!["-nostdlib", "-Wl,-e,main"] });
        command.args(path.options()).args(["-x", "c", "main.c", "-x", "none"]);
        if !needed.is_empty() {
            command.arg(format!("-l:{needed}"));
        }
        assert!(command.status().unwrap().success());
    };
    std::fs::write(directory.join("main.c"), "").unwrap();
    link("libnosuch.so.7", "", Link::None, true);
    link("libb.so", "libnosuch.so.7", second, true);
    std::fs::write(directory.join("main.c"), "").unwrap();
    link("liba.so", "libb.so", first, true);
    std::fs::write(directory.join("main.c"), "int main(void) { return 0; }").unwrap();
    link("program", "liba.so", executable, false);
    std::fs::remove_file(directory.join("libnosuch.so.7")).unwrap();
}

#[test]
fn rpath_and_runpath_of_a_chain_give_the_files_that_ld_so_tries() {
    let Some(system) = SystemLoader::find() else { return };
    let Some(layout) = layout(&system) else { return };
    if !have("cc") {
        return;
    }
    use Link::{None as Without, Rpath, Runpath, RunpathOnly};
    let chains = [
        [Without, Without, Without],
        [Rpath("$ORIGIN/E:$ORIGIN/e"), Rpath("$ORIGIN/A:$ORIGIN/A"), Rpath("$ORIGIN/B:$ORIGIN/E")],
        [Rpath("$ORIGIN/E"), Runpath("$ORIGIN/A"), Rpath("$ORIGIN/B")],
        [Rpath("$ORIGIN/E"), Rpath("$ORIGIN/A"), Runpath("$ORIGIN/B:$LIB")],
        [Runpath("$ORIGIN/E"), Rpath("$ORIGIN/A"), Without],
        [Rpath("$ORIGIN/E"), Rpath(""), RunpathOnly("$ORIGIN/B")],
        [RunpathOnly("$ORIGIN/E"), Without, Rpath(":$ORIGIN/B")],
    ];
    let machine = system.machine();
    for (number, chain) in chains.into_iter().enumerate() {
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chain-{}-{number}", std::process::id()));
        link_chain(&directory, chain);
        let directory = std::fs::canonicalize(directory).unwrap();
        let here = directory.as_os_str().as_encoded_bytes();
        let output = Command::new(LD_SO)
            .args([
                "--library-path".as_ref(),
                directory.as_os_str(),
                "--list".as_ref(),
                directory.join("program").as_os_str(),
            ])
            .env("LD_DEBUG", "libs")
            .output()
            .unwrap();
        let theirs = searches(&output).into_iter().find(|search| search.name == b"libnosuch.so.7").unwrap();

        let mut directories = Directories::new(&Hwcaps::new(machine, None, None));
        let tokens =
            |executable| Tokens { origin: Some(here), platform: machine.platform, layout, secure: false, executable };
        let objects = chain.map(|path| path.paths(&mut directories, &tokens(false)));
        let [executable, first, second] = &objects;
        let mut common = common(layout, &mut directories);
        common.library_path = directories.library_path(here, &tokens(true));
        // Searching liba.so and libb.so has shown ld.so which directories exist, in paths common to all.
        let exists = |path: &[u8]| path.is_empty() || Path::new(argument(path)).is_dir();
        for name in [&b"liba.so"[..], b"libb.so"] {
            walk(name, &[executable], executable, &common, &mut directories, exists);
        }
        let ours = walk(b"libnosuch.so.7", &[second, first, executable], executable, &common, &mut directories, exists);
        let real = |file: &Option<Vec<u8>>| match file {
            Some(file) => exists(Path::new(argument(file)).parent().unwrap().as_os_str().as_encoded_bytes()),
            None => true,
        };
        let theirs: Vec<_> = theirs.tried.into_iter().filter(real).collect();
        assert_same(&without_repetitions(&ours), &without_repetitions(&theirs), &format!("{chain:?}"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn preload_lists_name_what_ld_so_looks_for() {
    let Some(_) = SystemLoader::find() else { return };
    for list in ["libno1.so", " libno1.so::libno2.so  libno3.so:", "libno1.so\tlibno2.so", ":", "libno1.so;libno2.so"] {
        for as_option in [false, true] {
            let mut command = Command::new(LD_SO);
            command.env("LD_DEBUG", "libs").env_remove("LD_PRELOAD");
            if as_option {
                command.args(["--preload", list]);
            } else {
                command.env("LD_PRELOAD", list);
            }
            let output = command.args(["--list", "/bin/true"]).output().unwrap();
            let theirs =
                searches(&output).into_iter().map(|search| search.name).filter(|name| name.starts_with(b"libno"));
            let ours = split_preload(list.as_bytes(), false).map(<[u8]>::to_vec);
            assert!(ours.eq(theirs), "{list:?}");
        }
    }
}

#[test]
fn nothing_is_searched_without_paths() {
    let mut directories = Directories::new(&Hwcaps::new(Default::default(), None, None));
    let none = ObjectPaths::default();
    let common = CommonPaths { inhibit_cache: true, ..CommonPaths::default() };
    assert_eq!(everything(b"x", &[&none], &none, &common, &mut directories), Vec::<Option<Vec<u8>>>::new());
    assert!(SearchList::default().is_empty());
}
