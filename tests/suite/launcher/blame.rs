//! What `ldseal report --blame` lists, of programs that are refused something in every way there is.

use crate::report::members;
use crate::support::{check, command, refused, skip, Outcome, DONE, LDSEAL};
use conformance::build::compile;
use conformance::requirement::unmet;
use libtest_mimic::Failed;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sealing/blame");
const INTERPRETER: &str = env!("LDSEAL_INTERPRETER");

/// Builds the program and its libraries. Some if it can't be tried here.
fn build(folder: &Path) -> Result<Option<Outcome>, Failed> {
    if let Some(reason) = ["cc", "c++"].into_iter().find_map(unmet) {
        return Ok(Some(skip(reason)));
    }
    if conformance::attack::mseal::probe().is_err() {
        return Ok(Some(skip("this kernel does not seal")));
    }
    let sources = Path::new(SOURCES);
    compile(folder, "libtarget.so.1.5", &sources.join("library.c"), &["-Wl,-soname,libtarget.so.1"])?;
    std::os::unix::fs::symlink("libtarget.so.1.5", folder.join("libtarget.so.1"))?;
    compile(folder, "libclass.so", &sources.join("class.cc"), &["./libtarget.so.1.5"])?;
    let libraries = ["-pthread", "-rdynamic", "./libtarget.so.1.5", "./libclass.so", "-Wl,-rpath,$ORIGIN"];
    compile(folder, "program", &sources.join("program.c"), &libraries)?;
    Ok(None)
}

/// A copy of the program whose interpreter is `ld-seal.so`.
fn own(folder: &Path) -> Result<(), Failed> {
    let program = fs::read(folder.join("program"))?;
    let own = conformance::interp::replaced(&program, Path::new(INTERPRETER)).ok_or("no ELF")?;
    crate::support::write(&folder.join("own"), own, 0o755)
}

macro_rules! built {
    ($folder:expr) => {
        if let Some(skipped) = build($folder)? {
            return skipped;
        }
    };
}

/// `ldseal report --blame --json`, with the list in a file of its own.
fn started(folder: &Path, options: &[&str], words: &[&str]) -> Command {
    let mut started = command(LDSEAL, folder);
    started.args(["report", "--blame", "--json", "--output", "list.json"]).args(options).arg("--").args(words);
    started
}

fn list(folder: &Path) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&fs::read(folder.join("list.json"))?)?)
}

fn blamed(folder: &Path, options: &[&str], words: &[&str]) -> Result<(Output, Value), Failed> {
    let output = started(folder, options, words).output()?;
    Ok((output, list(folder)?))
}

fn entries(list: &Value) -> &[Value] {
    list["refused"].as_array().map_or(&[], Vec::as_slice)
}

/// Functions on the way to a call, as far as they have names.
fn functions(entry: &Value) -> Vec<&str> {
    entry["frames"].as_array().into_iter().flatten().map(|frame| frame["symbol"].as_str().unwrap_or("?")).collect()
}

fn caller(entry: &Value) -> &Value {
    &entry["frames"][entry["caller"].as_u64().unwrap_or(0) as usize]
}

/// The JSON has the members that its page describes, and no others.
pub fn shape(folder: &Path) -> Outcome {
    built!(folder);
    let (_, list) = blamed(folder, &[], &["./program", "text", "exec", "/bin/true"])?;
    let mut found = BTreeSet::new();
    members(&list, "", &mut found);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/report.md"))?;
    let page = page.split_once("--blame --json`").ok_or("no such part")?.1;
    let described: BTreeSet<String> =
        page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    check(found == described, || format!("described {described:?}, found {found:?}"))?;
    check(list["version"] == 1, || list.to_string())?;
    DONE
}

/// What is refused at each level, on what, and by whom; the program's own output is as without.
pub fn levels(folder: &Path) -> Outcome {
    built!(folder);
    for (level, sealed) in
        [("0", &[][..]), ("1", &["text", "relro", "vdso"]), ("2", &["text", "relro", "data", "vdso"])]
    {
        let words = ["./program", "text", "relro", "data", "vdso", "exit3"];
        let (output, list) = blamed(folder, &["--seal", level], &words)?;
        let plain = command(LDSEAL, folder).args(["run", "--seal", level, "--"]).args(words).output()?;
        check(output == plain && output.status.code() == Some(3), || format!("{output:?}, without {plain:?}"))?;
        let kinds: Vec<&str> = entries(&list).iter().filter_map(|e| e["memory"][0]["kind"].as_str()).collect();
        let as_expected =
            kinds.iter().map(|&kind| if kind == "bss" { "data" } else { kind }).eq(sealed.iter().copied());
        check(as_expected, || format!("level {level}: {list:#}"))?;
        check(list["level"] == level.parse::<u8>()? && list["level_source"] == "--seal", || list.to_string())?;
        check(list["calls"] == sealed.len() && list["ended"]["status"] == 3, || list.to_string())?;
        for (entry, kind) in entries(&list).iter().zip(sealed) {
            let object = if *kind == "vdso" { "[vdso]" } else { "/libtarget.so.1.5" };
            let on = entry["memory"][0]["object"].as_str().is_some_and(|name| name.ends_with(object));
            let public = format!("refuse_{kind}");
            let chain = ["mprotect", "hidden_function", &public, "run", "main"];
            check(on && entry["sealed"] == true && entry["call"] == "mprotect", || entry.to_string())?;
            check(functions(entry).starts_with(&chain), || format!("not {chain:?}: {entry:#}"))?;
            check(caller(entry)["symbol"] == "hidden_function", || entry.to_string())?;
        }
    }
    DONE
}

/// Each call that a seal refuses is seen, and each by the function that makes it.
pub fn calls(folder: &Path) -> Outcome {
    built!(folder);
    let (output, list) = blamed(folder, &[], &["./program", "calls"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    // A kernel may lack a call, or keys; those that were refused are those that are listed.
    let refused = said.lines().filter_map(|line| line.strip_suffix(" refused"));
    let mut refused: Vec<&str> = refused.map(|name| name.split('-').next().unwrap_or(name)).collect();
    let mut found: Vec<&str> = Vec::new();
    for entry in entries(&list) {
        let count = entry["count"].as_u64().unwrap_or(0) as usize;
        found.extend(std::iter::repeat_n(entry["call"].as_str().unwrap_or_default(), count));
        let expected = if entry["call"] == "brk" { "heap" } else { "relro" };
        check(entry["memory"][0]["kind"] == expected, || entry.to_string())?;
        check(caller(entry)["symbol"] == "calls", || format!("{entry:#}"))?;
    }
    refused.sort_unstable();
    found.sort_unstable();
    check(refused == found && refused.len() >= 8, || format!("refused {refused:?}, listed {found:?}, {output:?}"))?;
    DONE
}

/// The function to blame: of C++, one that makes the system call itself, and, without `.symtab`, what `.dynsym` names.
pub fn callers(folder: &Path) -> Outcome {
    built!(folder);
    let (_, list) = blamed(folder, &[], &["./program", "class", "inline"])?;
    let symbols: Vec<&Value> = entries(&list).iter().map(|entry| &caller(entry)["symbol"]).collect();
    check(symbols == ["blamed::Patcher::patch(char const*, unsigned long)", "refuse_inline"], || format!("{list:#}"))?;
    check(entries(&list)[1]["caller"] == 0, || format!("{list:#}"))?;
    // What a signal has interrupted is a caller as well.
    let (_, list) = blamed(folder, &[], &["./program", "handler"])?;
    let chain = functions(entries(&list).first().ok_or("nothing is listed")?);
    check(chain[..4] == ["mprotect", "hidden_function", "refuse_text", "handler"], || format!("{list:#}"))?;
    check(chain.contains(&"raise") && chain.ends_with(&["_start"]), || format!("{list:#}"))?;
    let text = command(LDSEAL, folder).args(["report", "--blame", "--", "./program", "class"]).output()?;
    let text = String::from_utf8_lossy(&text.stderr).into_owned();
    check(text.contains("by   blamed::Patcher::patch(char const*, unsigned long)+0x"), || text.clone())?;
    check(text.contains(", through munmap+0x") && text.contains("from refuse_class+0x"), || text.clone())?;
    if let Some(reason) = unmet("strip") {
        return skip(reason);
    }
    let status = command("strip", folder).arg("libtarget.so.1.5").status()?;
    check(status.success(), || status.to_string())?;
    let (_, list) = blamed(folder, &[], &["./program", "text"])?;
    let entry = entries(&list).first().ok_or("nothing is listed")?;
    check(functions(entry).starts_with(&["mprotect", "?", "refuse_text", "run"]), || format!("{entry:#}"))?;
    let inside = caller(entry)["object"].as_str().is_some_and(|object| object.ends_with("/libtarget.so.1.5"));
    check(inside && caller(entry)["file_address"].is_string(), || format!("{entry:#}"))?;
    DONE
}

/// Threads, children, and what children execute; equal calls are one entry.
pub fn processes(folder: &Path) -> Outcome {
    built!(folder);
    let (_, list) = blamed(folder, &[], &["./program", "text", "text", "thread", "text", "fork", "text"])?;
    let processes = |entry: &Value| entry["processes"].as_array().cloned().unwrap_or_default();
    let counts = |list: &Value| -> Vec<u64> { entries(list).iter().filter_map(|e| e["count"].as_u64()).collect() };
    // From main, where it is called twice, from the thread, and from the child.
    check(counts(&list).iter().sum::<u64>() == 4 && list["calls"] == 4, || format!("{list:#}"))?;
    let of_thread = entries(&list).iter().find(|entry| functions(entry).contains(&"thread"));
    let other_thread = of_thread.is_some_and(|entry| {
        let process = &entry["processes"][0];
        process["threads"][0].is_u64() && process["threads"][0] != process["pid"]
    });
    check(other_thread, || format!("{list:#}"))?;
    let pids: BTreeSet<u64> = entries(&list).iter().flat_map(processes).filter_map(|p| p["pid"].as_u64()).collect();
    check(pids.len() == 2, || format!("{list:#}"))?;

    let (_, list) = blamed(folder, &[], &["./program", "children", "text"])?;
    let one = counts(&list) == [20] && processes(&entries(&list)[0]).len() == 20;
    check(one && processes(&entries(&list)[0]).iter().all(|p| p["ended"]["status"] == 0), || format!("{list:#}"))?;

    // A program under the loader, and one that is not.
    own(folder)?;
    let (_, list) = blamed(folder, &[], &["./program", "fork", "exec", "./own", "text"])?;
    let entry = entries(&list).first().ok_or("nothing is listed")?;
    check(processes(entry)[0]["command"] == serde_json::json!(["./own", "text"]), || format!("{list:#}"))?;
    check(list["unsealed"] == serde_json::json!([]), || format!("{list:#}"))?;
    let (output, list) = blamed(folder, &[], &["./program", "exec", "./program", "text"])?;
    check(output.stdout == b"text done\n" && list["calls"] == 0, || format!("{output:?} {list:#}"))?;
    let unsealed = list["unsealed"][0].as_str().is_some_and(|path| path.ends_with("/program"));
    check(unsealed, || format!("{list:#}"))?;
    DONE
}

/// What fails for other reasons is not listed.
pub fn innocent(folder: &Path) -> Outcome {
    built!(folder);
    for (words, printed) in [
        (&["foreign"][..], "1\n12\n"),
        (&["exit0"], ""),
        // The program's own filter answers, and for one that wants a tracer there is none.
        (&["errno", "failure"], "1\n"),
        (&["trace", "failure"], "38\n"),
    ] {
        let (output, list) = blamed(folder, &["--seal", "2"], &[&["./program"], words].concat())?;
        let as_alone = output.status.success() && output.stdout == printed.as_bytes();
        check(as_alone && list["calls"] == 0 && entries(&list).is_empty(), || {
            format!("{words:?} {output:?} {list:#}")
        })?;
    }
    let output = command(LDSEAL, folder).args(["report", "--blame", "--", "./program", "exit5"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text
        == "ldseal: ./program exit5: exit status 5, level 1 (the default)\nNo call was refused on sealed memory.\n";
    check(said && output.status.code() == Some(5), || format!("{output:?}"))?;
    DONE
}

/// Standard descriptors, exit statuses, signals, and what can go wrong with the list itself.
pub fn ends(folder: &Path) -> Outcome {
    built!(folder);
    let (output, list) = blamed(folder, &[], &["./program", "text", "abort"])?;
    check(output.status.signal() == Some(6) && list["ended"]["signal"] == "SIGABRT", || {
        format!("{output:?} {list:#}")
    })?;
    check(entries(&list)[0]["processes"][0]["ended"]["signal"] == "SIGABRT", || format!("{list:#}"))?;

    let mut reader = started(folder, &[], &["./program", "read"]);
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    reader.stdin.take().ok_or("no input")?.write_all(b"through\n")?;
    let output = reader.wait_with_output()?;
    check(output.stdout == b"through\n" && output.stderr.is_empty(), || format!("{output:?}"))?;

    let (output, list) = blamed(folder, &[], &["./program", "abandon", "text"])?;
    check(output.status.success() && list["calls"] == 1, || format!("{output:?} {list:#}"))?;

    // Somebody else traces it already: that ends it, and nothing stays behind that holds its output.
    if unmet("strace").is_none() {
        let mut traced = command("strace", folder);
        let output = traced.args(["-f", "-o", "trace", LDSEAL, "report", "--blame", "--", "./program"]).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let said = text == "ldseal: tracing the program: Operation not permitted\n";
        check(said && output.status.code() == Some(1), || format!("{output:?}"))?;
    }

    let blame = |words: &[&str]| command(LDSEAL, folder).args(["report", "--blame"]).args(words).output();
    refused(&blame(&["--", "no-such-program"])?, 127, "command not found")?;
    refused(&blame(&["--output", "none/x", "--", "./program", "text"])?, 1, "none/x: No such file")?;
    let full = blame(&["--output", "/dev/full", "--", "./program"])?;
    refused(&full, 1, "the report can't be written")?;
    DONE
}

/// A program that runs under the list, in a process group of its own; killed with it when this goes.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(folder: &Path, words: &[&str]) -> Result<Running, Failed> {
        let mut command = started(folder, &[], words);
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Running { child, output })
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn send(&self, signal: &str, group: bool) -> Result<(), Failed> {
        let whom = format!("{}{}", if group { "-" } else { "" }, self.child.id());
        let status = Command::new("kill").args([&format!("-{signal}"), "--", &whom]).status()?;
        check(status.success(), || format!("kill -{signal} {whom}: {status}"))
    }

    /// Waits until `ldseal` is in this state, as `/proc/PID/stat` names it.
    fn is(&self, state: &str) -> Result<(), Failed> {
        let end = Instant::now() + Duration::from_secs(20);
        let stat = || fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        while !stat().contains(&format!(") {state} ")) {
            check(Instant::now() < end, || format!("not {state}: {}", stat()))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A signal to `ldseal` is one to the program, and when job control stops the program it stops as well.
pub fn signals(folder: &Path) -> Outcome {
    built!(folder);
    for (signal, number) in [("TERM", 15), ("INT", 2), ("USR1", 10), ("40", 40)] {
        let mut running = Running::start(folder, &["./program", "wait"])?;
        let waiting = running.line()?;
        running.send(signal, false)?;
        let said = running.line()?;
        let status = running.child.wait()?;
        let as_expected = waiting == "waiting\n" && said == format!("signal {number}\n") && status.success();
        check(as_expected, || format!("{signal}: {waiting:?}, {said:?}, {status}"))?;
    }
    // What the program has left behind gets it when the program has ended; the second ends it.
    let mut running = Running::start(folder, &["./program", "abandon", "wait"])?;
    running.line()?;
    running.send("TERM", false)?;
    let said = running.line()?;
    let status = running.child.wait()?;
    check(said == "signal 15\n" && status.success(), || format!("{said:?}, {status}"))?;
    let mut running = Running::start(folder, &["./program", "abandon", "text", "ignore"])?;
    running.line()?;
    running.line()?;
    running.send("TERM", false)?;
    running.send("INT", false)?;
    let mut said = String::new();
    running.output.read_to_string(&mut said)?;
    let status = running.child.wait()?;
    check(status.success() && list(folder)?["calls"] == 1, || format!("{said:?}, {status}"))?;
    let mut running = Running::start(folder, &["./program", "stop", "text", "exit4"])?;
    running.is("T")?;
    running.send("CONT", true)?;
    let mut said = String::new();
    running.output.read_to_string(&mut said)?;
    let status = running.child.wait()?;
    check(said == "text refused\n" && status.code() == Some(4), || format!("{said:?}, {status}"))?;
    check(list(folder)?["calls"] == 1, || "the call is not listed".into())?;
    DONE
}

/// Each remedy that is named helps.
pub fn remedies(folder: &Path) -> Outcome {
    built!(folder);
    for (level, word, fewest) in
        [("1", "text", 2), ("1", "relro", 2), ("2", "text", 1), ("2", "data", 3), ("2", "vdso", 1)]
    {
        let (_, list) = blamed(folder, &["--seal", level], &["./program", word])?;
        let entry = entries(&list).first().ok_or("nothing is listed")?;
        let remedies: Vec<String> = entry["remedies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|remedy| remedy["set"].as_str().map(str::to_owned))
            .collect();
        if word == "vdso" && remedies.is_empty() {
            // The kernel seals it by itself.
            continue;
        }
        check(remedies.len() >= fewest, || format!("level {level}, {word}: {entry:#}"))?;
        for remedy in remedies {
            let mut options = vec!["--seal", level];
            let mut tunables = None;
            if let Some(item) = remedy.strip_prefix("GLIBC_TUNABLES=") {
                tunables = Some(item);
            } else if let Some(level) = remedy.strip_prefix("--seal ") {
                options[1] = level;
            } else {
                let words: Vec<&str> = remedy.split(' ').collect();
                let status = command(LDSEAL, folder).args(&words[1..]).status()?;
                check(words[0] == "ldseal" && status.success(), || format!("{remedy}: {status}"))?;
            }
            let mut again = started(folder, &options, &["./program", word]);
            let output = again.envs(tunables.map(|item| ("GLIBC_TUNABLES", item))).output()?;
            let list = self::list(folder)?;
            let helps = list["calls"] == 0 && output.stdout == format!("{word} done\n").as_bytes();
            check(helps, || format!("level {level}, {word}: {remedy} does not help: {output:?} {list:#}"))?;
        }
        // What `mark` wrote is taken back.
        let status = command(LDSEAL, folder).args(["mark", "--clear", "libtarget.so.1.5"]).status()?;
        check(status.success(), || status.to_string())?;
    }
    DONE
}

/// A child that has its level from the environment gets it changed there, whatever `--seal` says.
pub fn remedies_of_children(folder: &Path) -> Outcome {
    built!(folder);
    own(folder)?;
    let words = ["./program", "exec", "./own", "data"];
    let list = |tunables: &str| -> Result<Value, Failed> {
        started(folder, &["--seal", "2"], &words).env("GLIBC_TUNABLES", tunables).output()?;
        list(folder)
    };
    let refused = list("glibc.rtld.seal=2")?;
    let remedies =
        entries(&refused).first().and_then(|entry| entry["remedies"].as_array()).ok_or("nothing is listed")?;
    let items = remedies.iter().filter_map(|remedy| remedy["set"].as_str()?.strip_prefix("GLIBC_TUNABLES="));
    let items: Vec<&str> = items.collect();
    check(items.len() == remedies.len() && items.contains(&"glibc.rtld.seal=1"), || format!("{refused:#}"))?;
    for item in items {
        let list = list(&format!("glibc.rtld.seal=2:{item}"))?;
        check(list["calls"] == 0, || format!("{item} does not help: {list:#}"))?;
    }
    DONE
}

/// In a static program the C library is the program's own: it has its unwind tables without an index, or, with musl, none for itself.
pub fn statics(folder: &Path) -> Outcome {
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    let source = Path::new(SOURCES).join("static.c");
    for (needs, compiler) in [("/usr/lib/x86_64-linux-gnu/libc.a", "cc"), ("musl-gcc", "musl-gcc")] {
        if let Some(reason) = [needs, compiler].into_iter().find_map(unmet) {
            return skip(reason);
        }
        let built = command(compiler, folder).args(["-O1", "-static", "-o", "static"]).arg(&source).status()?;
        check(built.success(), || format!("{compiler}: {built}"))?;
        let (output, list) = blamed(folder, &[], &["./static"])?;
        check(output.status.code() == Some(4) && list["calls"] == 1, || format!("{compiler}: {output:?} {list:#}"))?;
        let chain = ["mprotect", "hidden_function", "refuse", "main"];
        check(functions(&entries(&list)[0]).starts_with(&chain), || format!("{compiler}: {list:#}"))?;
        check(caller(&entries(&list)[0])["symbol"] == "hidden_function", || format!("{compiler}: {list:#}"))?;
    }
    DONE
}

/// An ordinary user sees the same; that nothing which is executed gains rights is the price. A process that hides its memory is said to.
pub fn ordinary_user(folder: &Path) -> Outcome {
    built!(folder);
    let run = |words: &[&str]| -> Result<(Output, String), Failed> {
        let folder = folder.display();
        // Neither the folder nor this command need be within reach of another user.
        let script = format!(
            "cd {folder} && exec 3<{LDSEAL} && t=$(mktemp -d) && trap 'rm -r $t' EXIT && chmod 755 $t && \
             cp program lib* $t && cd $t && $SWITCH /proc/self/fd/3 report --blame --json -- {}",
            words.join(" ")
        );
        let mut command = command("sh", Path::new("/"));
        let switch = if crate::support::is_root() { "setpriv --reuid 65534 --clear-groups" } else { "env" };
        let output = command.args(["-c", &script.replace("$SWITCH", switch)]).output()?;
        let list = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output, list))
    };
    if let Some(reason) = unmet("setpriv") {
        return skip(reason);
    }
    let (output, list) = run(&["./program", "text", "privileges", "exit3"])?;
    let list: Value = serde_json::from_str(&list).map_err(|error| format!("{error}: {output:?}"))?;
    let seen = output.stdout == b"text refused\n1\n" && output.status.code() == Some(3);
    check(seen && list["calls"] == 1, || format!("{output:?}"))?;
    check(caller(&entries(&list)[0])["symbol"] == "hidden_function", || format!("{list:#}"))?;

    let (output, list) = run(&["./program", "hide", "text"])?;
    let list: Value = serde_json::from_str(&list).map_err(|error| format!("{error}: {output:?}"))?;
    let entry = entries(&list).first().ok_or("nothing is listed")?;
    check(entry["sealed"].is_null() && entry["call"] == "mprotect", || format!("{list:#}"))?;
    if crate::support::is_root() {
        let (output, _) = blamed(folder, &[], &["./program", "privileges"])?;
        check(output.stdout == b"0\n", || format!("{output:?}"))?;
    }
    DONE
}

/// A program of the real world that its seals kill: V8 makes its flags read-only.
pub fn v8(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("node") {
        return skip(reason);
    }
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    const FREEZE: &str = "--freeze-flags-after-init";
    let words = ["node", FREEZE, "-e", "console.log(1)"];
    let alone = command("node", folder).args(&words[1..]).output()?;
    if !alone.status.success() {
        return skip("this node does not know --freeze-flags-after-init");
    }
    let (output, list) = blamed(folder, &["--seal", "2"], &words)?;
    if output.status.success() {
        return skip("this node freezes no flags");
    }
    check(output.status.signal().is_some(), || format!("{output:?}"))?;
    let entry = entries(&list).first().ok_or("nothing is listed")?;
    let by_v8 = caller(entry)["symbol"].as_str().is_some_and(|symbol| symbol.starts_with("v8::base::OS::SetData"));
    let data = ["data", "bss"].contains(&entry["memory"][0]["kind"].as_str().unwrap_or_default());
    check(by_v8 && data && entry["call"] == "mprotect", || format!("{list:#}"))?;
    let mut again = started(folder, &["--seal", "2"], &words);
    let output = again.env("GLIBC_TUNABLES", "ldseal.data=0").output()?;
    check(output == alone && self::list(folder)?["calls"] == 0, || format!("{output:?}"))?;
    DONE
}
