//! The sound files, and the command lines that give a spoiled one to a loader.

use super::image::Image;
use super::{random, Case, Fault};
use crate::process::{self, Outcome};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a loader meets a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `LOADER FILE`.
    Main,
    /// A DT_NEEDED library of a sound program.
    Needed,
    /// Named by LD_PRELOAD for a sound program.
    Preload,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Main, Role::Needed, Role::Preload];

    /// Those in which the file is a library.
    pub const LIBRARY: [Role; 2] = [Role::Needed, Role::Preload];

    /// The word for it in the names of trials.
    pub fn word(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Needed => "needed",
            Role::Preload => "preload",
        }
    }

    /// The program that is started.
    pub fn program(self) -> &'static str {
        match self {
            Role::Main => "./victim",
            Role::Needed => "./user",
            Role::Preload => "./plain",
        }
    }

    /// The file that is spoiled.
    pub fn victim(self) -> &'static str {
        match self {
            Role::Main => "victim",
            Role::Needed | Role::Preload => "libvictim.so",
        }
    }
}

/// A folder with the sound files.
#[derive(Debug, Clone)]
pub struct Sound {
    folder: PathBuf,
}

/// What the sound files are built from.
const SOURCES: [(&str, &str); 4] = [
    ("victim.c", include_str!("sound/victim.c")),
    ("victim.map", include_str!("sound/victim.map")),
    ("user.c", include_str!("sound/user.c")),
    ("plain.c", include_str!("sound/plain.c")),
];

/// Longer than any of these programs takes, even on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(5);

impl Sound {
    /// Builds the sound files in `folder`.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn build(folder: &Path) -> Result<Sound, String> {
        for (name, text) in SOURCES {
            fs::write(folder.join(name), text).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let map = "-Wl,--version-script=victim.map";
        let compile = |out: &str, flags: &[&str], source: &str, libraries: &[&str]| {
            let mut command = Command::new("cc");
            command.args(["-O1", "-w", "-Wl,-z,now", "-Wl,--hash-style=gnu", "-o", out]);
            command.args(flags).arg(source).args(libraries).current_dir(folder).stdin(Stdio::null());
            match command.output() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
                Err(error) => Err(format!("{command:?}: {error}")),
            }
        };
        compile("libvictim.so", &["-shared", "-fPIC", "-Wl,-soname,libvictim.so", map], "victim.c", &[])?;
        compile("victim", &["-fPIE", "-pie", "-DPROGRAM", "-rdynamic", map], "victim.c", &[])?;
        compile("user", &["-fPIE", "-pie", "-Wl,--enable-new-dtags,-rpath,$ORIGIN"], "user.c", &["./libvictim.so"])?;
        compile("plain", &["-fPIE", "-pie"], "plain.c", &[])?;
        Ok(Sound { folder: folder.to_path_buf() })
    }

    /// What a run with sound files prints.
    pub fn output(role: Role) -> &'static [u8] {
        match role {
            Role::Main | Role::Needed => b"constructor\nb\nmain 13\n",
            Role::Preload => b"constructor\nplain\n",
        }
    }

    /// Lays out `folder` for `role`, with the victim spoiled as `case` says.
    ///
    /// # Errors
    /// A failing file operation.
    pub fn stage(&self, case: &Case, role: Role, folder: &Path) -> io::Result<()> {
        self.sound(role, folder)?;
        let victim = folder.join(role.victim());
        match case.fault {
            Fault::Spoiled(spoil) => {
                let mut image = Image::new(fs::read(&victim)?);
                spoil(&mut image);
                fs::write(&victim, image.bytes())
            }
            Fault::Replaced(put) | Fault::Hidden(put) => {
                fs::remove_file(&victim)?;
                put(&victim)
            }
        }
    }

    /// Lays out `folder` for `role`, with the victim spoiled by chance.
    ///
    /// # Errors
    /// A failing file operation.
    pub fn stage_random(&self, seed: u64, role: Role, folder: &Path) -> io::Result<()> {
        let sound = fs::read(self.folder.join(role.victim()))?;
        let mut image = Image::new(sound);
        random::spoil(&mut image, seed);
        fs::write(folder.join(role.victim()), image.bytes())
    }

    /// Lays out `folder` for `role` with sound files.
    ///
    /// # Errors
    /// A failing file operation.
    pub fn sound(&self, role: Role, folder: &Path) -> io::Result<()> {
        for file in [role.program(), role.victim()] {
            fs::copy(self.folder.join(file), folder.join(file))?;
            fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// Starts the program of `case` in `role` in `folder` under `loader` at a seal level. The system's loader ignores the level.
///
/// # Errors
/// The loader can't be started.
pub fn start(loader: &Path, case: &Case, role: Role, folder: &Path, level: u8) -> io::Result<Outcome> {
    let mut command = command(loader, role, folder, level);
    if matches!(case.fault, Fault::Hidden(_)) && rustix::process::geteuid().is_root() {
        command.uid(NOBODY);
    }
    process::capture(&mut command, b"", LIMIT)
}

/// Why a case can't be tried here, if it can't.
pub fn missing(case: &Case, loader: &Path, folder: &Path) -> Option<String> {
    if !matches!(case.fault, Fault::Hidden(_)) || !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut command = Command::new("/usr/bin/test");
    command.arg("-x").arg(loader).args(["-a", "-x"]).arg(folder).uid(NOBODY).current_dir("/");
    match command.status() {
        Ok(status) if status.success() => None,
        _ => Some(format!("user {NOBODY} can't reach {} and {}", loader.display(), folder.display())),
    }
}

/// A user with no rights of its own.
const NOBODY: u32 = 65534;

/// The same as a command that has not been started.
pub fn command(loader: &Path, role: Role, folder: &Path, level: u8) -> Command {
    let mut command = Command::new(loader);
    command.arg(role.program()).current_dir(folder).env_clear().env("LC_ALL", "C");
    command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}"));
    if role == Role::Preload {
        command.env("LD_PRELOAD", "./libvictim.so");
    }
    command
}
