//! Checks that each layer refers only to the layers and crates that it may use. Each rule is a part of the source tree
//! and the words that must not occur there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Forbids `words` in all files whose path under src/ begins with one of `inside` and with none of `but`.
struct Rule {
    inside: &'static [&'static str],
    but: &'static [&'static str],
    words: &'static [&'static str],
}

const RULES: &[Rule] = &[
    // Logic is pure: no descriptor, no clock, no system call, no reference to the layers above.
    Rule {
        inside: &["logic/"],
        but: &[],
        words: &[
            "crate::driver",
            "crate::sys",
            "crate::cli",
            "crate::target",
            "rustix",
            "mio::",
            "libc::",
            "std::fs",
            "std::process",
            "std::thread",
            "std::env",
            "std::os::fd",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "UnixDatagram",
            "io::stdin",
            "io::stdout",
            "io::stderr",
            "Instant::now",
            "SystemTime::now",
            "println!",
        ],
    },
    // Parsing of arguments needs no other layer.
    Rule {
        inside: &["cli/", "config.rs", "duration.rs", "error.rs", "fleet.rs", "signal.rs", "target.rs"],
        but: &[],
        words: &[
            "crate::driver",
            "crate::sys",
            "crate::logic",
            "rustix",
            "mio::",
            "libc::",
            "std::process",
            "std::fs",
        ],
    },
    Rule {
        inside: &["config.rs", "duration.rs", "error.rs", "fleet.rs", "signal.rs", "target.rs"],
        but: &[],
        words: &["crate::cli"],
    },
    // Driver gets its configuration as a Config.
    Rule { inside: &["driver/"], but: &[], words: &["crate::cli", "libc::", "serde_json"] },
    // Sys does not refer to other parts of kapo.
    Rule { inside: &["sys/"], but: &[], words: &["crate::", "kapo::", "mio::", "super::super"] },
    // C's main is unsafe to call, and passes its arguments to sys.
    Rule {
        inside: &["entry.rs"],
        but: &[],
        words: &["kapo::driver", "kapo::logic", "kapo::cli", "libc::", "mio::"],
    },
    // Each dependency is used in one place.
    Rule {
        inside: &[""],
        but: &["sys/", "entry.rs"],
        words: &["unsafe ", "unsafe(", "unsafe_code", "libc::"],
    },
    Rule { inside: &[""], but: &["driver/"], words: &["mio::"] },
    Rule {
        inside: &[""],
        but: &["logic/http/request.rs", "logic/fleet/proxied.rs", "driver/client/exchange.rs"],
        words: &["httparse::"],
    },
    Rule { inside: &[""], but: &["sys/clock.rs"], words: &["Instant::now", "SystemTime::now"] },
    Rule {
        inside: &[""],
        but: &[],
        words: &["thread::spawn", "thread::sleep", "set_var", "todo!(", "unimplemented!("],
    },
];

/// Collects the source files under `folder` except test files, which may use files and clocks.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the source tree is readable") {
        let path = entry.expect("the source tree is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Returns the lines of the program with their numbers, without the unit tests at the end. A declaration for tests
/// only, such as `mod world;`, does not end the program.
fn program(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| matches!(pair, ["#[cfg(test)]", item] if item.ends_with('{'));
    let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
    lines.into_iter().take(end).zip(1..).map(|(line, number)| (number, line))
}

/// Returns the lines of [`program`] that are not comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    program(text).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn no_layer_refers_to_forbidden_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for rule in RULES {
        let mut covered = 0;
        for file in &files {
            let name = file.strip_prefix(&root).expect("found below it").to_string_lossy();
            let under = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
            if !under(rule.inside) || under(rule.but) {
                continue;
            }
            covered += 1;
            let text = fs::read_to_string(file).expect("the source tree is readable");
            for (number, line) in code(&text) {
                wrong.extend(
                    rule.words
                        .iter()
                        .filter(|word| line.contains(*word))
                        .map(|word| format!("src/{name}:{number} names {word}")),
                );
            }
        }
        assert!(covered > 0, "no file is under {:?}: the rule guards nothing", rule.inside);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The maximum number of lines of a file, without unit tests.
const LONGEST_FILE: usize = 500;

/// Modules whose file is beside their directory.
const BESIDE_THEIR_FOLDER: &[&str] = &["logic/client/status.rs"];

#[test]
fn no_file_is_longer_than_500_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let long: Vec<String> = files
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(file).expect("the source tree is readable");
            program(&text).count() > LONGEST_FILE
        })
        .map(|file| file.strip_prefix(&root).expect("found below it").to_string_lossy().into_owned())
        .collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn a_module_with_its_own_files_is_a_folder_with_mod_rs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let beside: Vec<String> = files
        .iter()
        .filter(|file| file.with_extension("").is_dir())
        .map(|file| file.strip_prefix(&root).expect("found below it").to_string_lossy().into_owned())
        .collect();
    assert_eq!(beside, BESIDE_THEIR_FOLDER, "write x/mod.rs, not x.rs beside x/");
}

/// Type names that may be declared in several modules.
const DECLARED_TWICE: &[&str] = &[];

/// Returns the name of the struct, enum, trait or type alias that a line at the top level of a module declares.
fn declared_type(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let keywords = ["struct ", "enum ", "trait ", "type "];
    let name = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
    name.split(|letter: char| !letter.is_alphanumeric()).next()
}

/// The attributes of a module that is no part of the program.
const FOR_TESTS: &[&str] = &["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];

/// Returns the folders of the modules that `file` declares for tests and fuzzing only.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let folder = if file.ends_with("mod.rs") || file.ends_with("lib.rs") {
        file.parent().expect("a file is in a folder").to_owned()
    } else {
        file.with_extension("")
    };
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair.first().is_some_and(|line| FOR_TESTS.contains(line)));
    let names = declared.filter_map(|pair| pair.last()?.strip_suffix(';')?.rsplit_once("mod "));
    names.map(|(_, name)| folder.join(name)).collect()
}

#[test]
fn each_type_name_is_declared_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let read = |file: &PathBuf| fs::read_to_string(file).expect("the source tree is readable");
    let for_tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file, &read(file))).collect();
    files.retain(|file| {
        !for_tests.iter().any(|module| file.starts_with(module) || *file == module.with_extension("rs"))
    });
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &files {
        let place = file.strip_prefix(&root).expect("found below it").to_string_lossy().into_owned();
        for name in code(&read(file)).filter_map(|(_, line)| declared_type(line)) {
            declared.entry(name.to_owned()).or_default().push(place.clone());
        }
    }
    assert!(declared.len() > 100, "only {} types were found", declared.len());
    declared.retain(|_, places| places.len() > 1);
    let names: Vec<&str> = declared.keys().map(String::as_str).collect();
    assert_eq!(names, DECLARED_TWICE, "rename these by their subjects: {declared:#?}");
}
