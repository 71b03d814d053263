//! What `/proc/PID` tells about a process.

use super::image::Image;
use super::smaps::{self, Mapping};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// A process, looked at from outside.
pub struct Process {
    /// Its ID.
    pub pid: u32,
}

impl Process {
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// The mappings, with their seals.
    ///
    /// # Errors
    /// No such process, or no right to look at it.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        let text = fs::read(self.file("smaps"))?;
        smaps::parse(&String::from_utf8_lossy(&text)).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Its memory.
    ///
    /// # Errors
    /// No right to read it.
    pub fn memory(&self) -> io::Result<File> {
        File::open(self.file("mem"))
    }

    /// What it is called by its own command line.
    pub fn called(&self) -> String {
        self.command_line().first().map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
    }

    /// Why it may not be looked at.
    pub fn why_forbidden(&self) -> String {
        let owner = |path: PathBuf| fs::metadata(path).ok().map(|m| std::os::unix::fs::MetadataExt::uid(&m));
        let status = fs::read_to_string(self.file("status")).unwrap_or_default();
        let user =
            status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
        let own = rustix::process::getuid().as_raw();
        match (user, owner(self.file("status"))) {
            (Some(user), _) if user != own => {
                format!("it may not be looked at: it belongs to another user (ID {user})")
            }
            // The kernel gives the files of a process that must not be dumped to root, though not its folder.
            (Some(user), Some(owner)) if user != owner => {
                "it may not be looked at: it is not dumpable (privileged, or by its own wish)".into()
            }
            _ => "it may not be looked at: the system forbids it (Yama, a security module, or missing capabilities)"
                .into(),
        }
    }

    /// The arguments, as the process shows them.
    pub fn command_line(&self) -> Vec<Vec<u8>> {
        let mut bytes = fs::read(self.file("cmdline")).unwrap_or_default();
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
    }

    /// A variable of the environment that the process was started with; None also without the right to see it.
    pub fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        let environment = fs::read(self.file("environ")).ok()?;
        environment
            .split(|&byte| byte == 0)
            .find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix(b"=")?.to_vec()))
    }

    /// The names in its `/etc/ld.so.preload`.
    pub fn preload_file(&self) -> Option<Vec<u8>> {
        fs::read(self.file("root/etc/ld.so.preload")).ok()
    }

    /// Whether the environment can be read at all.
    pub fn environment_is_readable(&self) -> bool {
        fs::read(self.file("environ")).is_ok()
    }

    /// Whether it is in secure execution (AT_SECURE), where tunables don't count.
    pub fn secure(&self) -> bool {
        const AT_SECURE: u64 = 23;
        let auxv = fs::read(self.file("auxv")).unwrap_or_default();
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        auxv.chunks_exact(16).any(|entry| word(&entry[..8]) == AT_SECURE && word(&entry[8..]) != 0)
    }

    /// The path of the file that the kernel executed.
    pub fn executable(&self) -> Option<String> {
        Some(fs::read_link(self.file("exe")).ok()?.to_string_lossy().into_owned())
    }

    /// That file.
    ///
    /// # Errors
    /// No such process, or no right to look at it.
    pub fn executed(&self) -> io::Result<File> {
        File::open(self.file("exe"))
    }

    /// What the file behind a mapping says about its image.
    pub fn image(&self, mapping: &Mapping) -> Option<Rc<Image>> {
        self.files(mapping).find_map(|file| Image::read(&file)).map(Rc::new)
    }

    /// The file behind a mapping.
    pub fn open(&self, mapping: &Mapping) -> Option<File> {
        self.files(mapping).next()
    }

    /// The file behind a mapping, by the ways that lead to it.
    fn files(&self, mapping: &Mapping) -> impl Iterator<Item = File> {
        let by_range = self.file(&format!("map_files/{:x}-{:x}", mapping.range.start, mapping.range.end));
        let by_name = match mapping.name.strip_suffix(" (deleted)") {
            Some(_) if self.executable().as_deref() == Some(&mapping.name) => Some(self.file("exe")),
            Some(_) => None,
            None => Some(self.file(&format!("root{}", mapping.name))),
        };
        [Some(by_range), by_name].into_iter().flatten().filter_map(open_regular)
    }
}

/// Only regular files are opened: opening a device can have effects.
fn open_regular(path: PathBuf) -> Option<File> {
    fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    File::open(path).ok()
}
